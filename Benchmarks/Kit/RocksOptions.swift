// RocksDB as a good Flink user tunes it: bloom filters of 10 bits, partitioned index and filters, 16 KB blocks, a cache that
// holds them with the top level pinned, write buffers of 64 MB, two background threads, dynamic level sizes, no block
// compression unless the case is about it, no log.

import CBenchShims

package struct RocksOptions {
    package typealias Handle = RocksLibrary.Handle
    package static let blockBytes = 16 << 10
    package static let writeBuffers: Int32 = 4
    package static let backgroundJobs: Int32 = 2
    /// As Flink's users set it: a dictionary of 16 KB, trained on a hundred times as much.
    package static let dictionaryBytes: Int32 = 16 << 10

    package let options: Handle
    package let timeToLive: UnsafeMutablePointer<bench_ttl_state>?

    package static func describe() -> String {
        "\(StoreSettings().cacheBytes >> 20) MB LRU cache, bloom 10 bits, partitioned index and filters in the cache, top level "
            + "pinned, \(blockBytes >> 10) KB blocks, \(writeBuffers) write buffers of \(StoreSettings().memtableBytes >> 20) MB, "
            + "\(backgroundJobs) background jobs, dynamic level sizes, no log"
    }

    package init(_ library: RocksLibrary, _ settings: StoreSettings) throws {
        let prefix = "rocksdb_block_based_options_set_"
        let table = try library.create("rocksdb_block_based_options_create")
        try library.set(prefix + "block_size", table, size: RocksOptions.blockBytes)
        let cache = try library.function("rocksdb_cache_create_lru", as: (@convention(c) (Int) -> Handle).self)(
            settings.cacheBytes)
        try library.set(prefix + "block_cache", table, handle: cache)
        let bloom = try library.function(
            "rocksdb_filterpolicy_create_bloom_full", as: (@convention(c) (Double) -> Handle).self)(10)
        try library.set(prefix + "filter_policy", table, handle: bloom)
        try library.set(prefix + "index_type", table, int: 2)
        for switched in [
            "partition_filters", "cache_index_and_filter_blocks", "pin_top_level_index_and_filter",
            "pin_l0_filter_and_index_blocks_in_cache",
        ] {
            try library.set(prefix + switched, table, byte: 1)
        }
        if library.wantsXXH3 { try library.set(prefix + "checksum", table, byte: 4) }

        options = try library.create("rocksdb_options_create")
        try library.set("rocksdb_options_set_create_if_missing", options, byte: 1)
        try library.set("rocksdb_options_set_write_buffer_size", options, size: settings.memtableBytes)
        try library.set("rocksdb_options_set_max_write_buffer_number", options, int: RocksOptions.writeBuffers)
        try library.set("rocksdb_options_set_max_background_jobs", options, int: RocksOptions.backgroundJobs)
        try library.set("rocksdb_options_set_level_compaction_dynamic_level_bytes", options, byte: 1)
        try library.set("rocksdb_options_set_block_based_table_factory", options, handle: table)
        if !settings.compacts {
            try library.set("rocksdb_options_set_disable_auto_compactions", options, int: 1)
            try library.set("rocksdb_options_set_level0_slowdown_writes_trigger", options, int: 500)
            try library.set("rocksdb_options_set_level0_stop_writes_trigger", options, int: 1000)
        }
        try RocksOptions.separateValues(options, library, settings.valueFileThresholdBytes)
        if settings.mapPrefixBytes > 0 {
            // Filters of whole keys and of prefixes.
            let prefix = try library.function(
                "rocksdb_slicetransform_create_fixed_prefix", as: (@convention(c) (Int) -> Handle).self)(
                    settings.mapPrefixBytes)
            try library.set("rocksdb_options_set_prefix_extractor", options, handle: prefix)
        }
        try RocksOptions.compress(options, library, settings.blockCompression)
        try RocksOptions.mergeLists(options, library)
        timeToLive = try RocksOptions.filterExpired(options, library, settings.timeToLiveMilliseconds)
    }

    /// Blob files with their garbage collection, which begins at the same share of garbage as ours.
    private static func separateValues(_ options: Handle, _ library: RocksLibrary, _ thresholdBytes: Int) throws {
        guard thresholdBytes > 0 else { return }
        try library.set("rocksdb_options_set_enable_blob_files", options, byte: 1)
        try library.set("rocksdb_options_set_min_blob_size", options, size: thresholdBytes)
        try library.set("rocksdb_options_set_enable_blob_gc", options, byte: 1)
        let setForce: @convention(c) (Handle, Double) -> Void = try library.function(
            "rocksdb_options_set_blob_gc_force_threshold")
        setForce(options, 0.5)
    }

    private static func compress(_ options: Handle, _ library: RocksLibrary, _ codec: BlockCompression) throws {
        let number: Int32 =
            switch codec {
            case .none: 0
            case .lz4: 4
            case .zstd: 7
            }
        try library.set("rocksdb_options_set_compression", options, int: number)
        guard case .zstd(let level, let dictionary) = codec else { return }
        let set: @convention(c) (Handle, Int32, Int32, Int32, Int32) -> Void = try library.function(
            "rocksdb_options_set_compression_options")
        set(options, -14, Int32(level), 0, dictionary ? dictionaryBytes : 0)
        if dictionary {
            try library.set(
                "rocksdb_options_set_compression_options_zstd_max_train_bytes", options, int: dictionaryBytes * 100)
        }
    }

    private typealias Destructor = @convention(c) (UnsafeMutableRawPointer?) -> Void
    private typealias Name = @convention(c) (UnsafeMutableRawPointer?) -> UnsafePointer<CChar>?

    private static func mergeLists(_ options: Handle, _ library: RocksLibrary) throws {
        typealias Operands = UnsafePointer<UnsafePointer<CChar>?>
        typealias FullMerge =
            @convention(c) (
                UnsafeMutableRawPointer?, UnsafePointer<CChar>?, Int, UnsafePointer<CChar>?, Int, Operands?,
                UnsafePointer<Int>?, Int32, UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<Int>?
            ) -> UnsafeMutablePointer<CChar>?
        typealias PartialMerge =
            @convention(c) (
                UnsafeMutableRawPointer?, UnsafePointer<CChar>?, Int, Operands?, UnsafePointer<Int>?, Int32,
                UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<Int>?
            ) -> UnsafeMutablePointer<CChar>?
        typealias DeleteValue = @convention(c) (UnsafeMutableRawPointer?, UnsafePointer<CChar>?, Int) -> Void
        let create:
            @convention(c) (
                UnsafeMutableRawPointer?, Destructor, FullMerge, PartialMerge, DeleteValue, Name
            ) -> Handle = try library.function("rocksdb_mergeoperator_create")
        let merge = create(
            nil, bench_no_destructor, bench_list_full_merge, bench_list_partial_merge, bench_list_delete_value,
            bench_list_name)
        try library.set("rocksdb_options_set_merge_operator", options, handle: merge)
    }

    private static func filterExpired(
        _ options: Handle, _ library: RocksLibrary, _ milliseconds: UInt64
    ) throws -> UnsafeMutablePointer<bench_ttl_state>? {
        guard milliseconds > 0 else { return nil }
        typealias Filter =
            @convention(c) (
                UnsafeMutableRawPointer?, Int32, UnsafePointer<CChar>?, Int, UnsafePointer<CChar>?, Int,
                UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, UnsafeMutablePointer<Int>?,
                UnsafeMutablePointer<UInt8>?
            ) -> UInt8
        let create: @convention(c) (UnsafeMutableRawPointer?, Destructor, Filter, Name) -> Handle =
            try library.function(
                "rocksdb_compactionfilter_create")
        let state = UnsafeMutablePointer<bench_ttl_state>.allocate(capacity: 1)
        state.initialize(
            to: bench_ttl_state(now_milliseconds: nowMilliseconds(), time_to_live_milliseconds: milliseconds))
        let filter = create(state, bench_no_destructor, bench_ttl_filter, bench_ttl_name)
        try library.set("rocksdb_options_set_compaction_filter", options, handle: filter)
        return state
    }
}
