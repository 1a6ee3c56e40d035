// RocksDB as a good Flink user tunes it: bloom filters of 10 bits, partitioned index and filters, 16 KB blocks, a cache of
// 256 MB that holds them, write buffers of 64 MB, two background threads, no block compression, no log.

import Foundation

final class RocksStore: BenchStore {
    typealias Handle = RocksLibrary.Handle
    typealias ErrorSlot = RocksLibrary.ErrorSlot
    typealias Bytes = RocksLibrary.Bytes

    private let path: String
    private let db: Handle
    private let writeOptions: Handle
    private let readOptions: Handle
    private let flushOptions: Handle
    private let batch: Handle
    private let calls: Calls

    /// The functions of the hot path, looked up once.
    private struct Calls {
        let batchClear: @convention(c) (Handle) -> Void
        let batchPut: @convention(c) (Handle, Bytes, Int, Bytes, Int) -> Void
        let write: @convention(c) (Handle, Handle, Handle, ErrorSlot) -> Void
        let get: @convention(c) (Handle, Handle, Bytes, Int, ErrorSlot) -> Handle?
        let pinned: @convention(c) (Handle, UnsafeMutablePointer<Int>) -> Bytes?
        let unpin: @convention(c) (Handle) -> Void
        let iterator: @convention(c) (Handle, Handle) -> Handle
        let seek: @convention(c) (Handle, Bytes, Int) -> Void
        let isValid: @convention(c) (Handle) -> UInt8
        let next: @convention(c) (Handle) -> Void
        let key: @convention(c) (Handle, UnsafeMutablePointer<Int>) -> Bytes
        let value: @convention(c) (Handle, UnsafeMutablePointer<Int>) -> Bytes
        let destroyIterator: @convention(c) (Handle) -> Void
        let flush: @convention(c) (Handle, Handle, ErrorSlot) -> Void
        let property: @convention(c) (Handle, UnsafePointer<CChar>, UnsafeMutablePointer<UInt64>) -> Int32
        let close: @convention(c) (Handle) -> Void
    }

    init(_ path: String, _ library: RocksLibrary) throws {
        self.path = path
        let create = { (symbol: String) throws -> Handle in
            try library.function(symbol, as: (@convention(c) () -> Handle).self)()
        }
        let setByte = { (symbol: String, target: Handle, value: UInt8) throws in
            try library.function(symbol, as: (@convention(c) (Handle, UInt8) -> Void).self)(target, value)
        }
        let setInt = { (symbol: String, target: Handle, value: Int32) throws in
            try library.function(symbol, as: (@convention(c) (Handle, Int32) -> Void).self)(target, value)
        }
        let setSize = { (symbol: String, target: Handle, value: Int) throws in
            try library.function(symbol, as: (@convention(c) (Handle, Int) -> Void).self)(target, value)
        }
        let setHandle = { (symbol: String, target: Handle, value: Handle) throws in
            try library.function(symbol, as: (@convention(c) (Handle, Handle) -> Void).self)(target, value)
        }

        let table = try create("rocksdb_block_based_options_create")
        try setSize("rocksdb_block_based_options_set_block_size", table, 16 << 10)
        let cache = try library.function("rocksdb_cache_create_lru", as: (@convention(c) (Int) -> Handle).self)(
            256 << 20)
        try setHandle("rocksdb_block_based_options_set_block_cache", table, cache)
        let bloom = try library.function(
            "rocksdb_filterpolicy_create_bloom_full", as: (@convention(c) (Double) -> Handle).self)(10)
        try setHandle("rocksdb_block_based_options_set_filter_policy", table, bloom)
        try setInt("rocksdb_block_based_options_set_index_type", table, 2)
        try setByte("rocksdb_block_based_options_set_partition_filters", table, 1)
        try setByte("rocksdb_block_based_options_set_cache_index_and_filter_blocks", table, 1)
        try setByte("rocksdb_block_based_options_set_pin_top_level_index_and_filter", table, 1)
        try setByte("rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache", table, 1)
        if library.wantsXXH3 { try setByte("rocksdb_block_based_options_set_checksum", table, 4) }

        let options = try create("rocksdb_options_create")
        try setByte("rocksdb_options_set_create_if_missing", options, 1)
        try setSize("rocksdb_options_set_write_buffer_size", options, 64 << 20)
        try setInt("rocksdb_options_set_max_write_buffer_number", options, 4)
        try setInt("rocksdb_options_set_max_background_jobs", options, 2)
        try setInt("rocksdb_options_set_compression", options, 0)
        try setByte("rocksdb_options_set_level_compaction_dynamic_level_bytes", options, 1)
        try setHandle("rocksdb_options_set_block_based_table_factory", options, table)

        writeOptions = try create("rocksdb_writeoptions_create")
        try setInt("rocksdb_writeoptions_disable_WAL", writeOptions, 1)
        readOptions = try create("rocksdb_readoptions_create")
        flushOptions = try create("rocksdb_flushoptions_create")
        batch = try create("rocksdb_writebatch_create")
        calls = Calls(
            batchClear: try library.function("rocksdb_writebatch_clear"),
            batchPut: try library.function("rocksdb_writebatch_put"),
            write: try library.function("rocksdb_write"),
            get: try library.function("rocksdb_get_pinned"),
            pinned: try library.function("rocksdb_pinnableslice_value"),
            unpin: try library.function("rocksdb_pinnableslice_destroy"),
            iterator: try library.function("rocksdb_create_iterator"),
            seek: try library.function("rocksdb_iter_seek"),
            isValid: try library.function("rocksdb_iter_valid"),
            next: try library.function("rocksdb_iter_next"),
            key: try library.function("rocksdb_iter_key"),
            value: try library.function("rocksdb_iter_value"),
            destroyIterator: try library.function("rocksdb_iter_destroy"),
            flush: try library.function("rocksdb_flush"),
            property: try library.function("rocksdb_property_int"),
            close: try library.function("rocksdb_close"))

        var error: UnsafeMutablePointer<CChar>?
        let open: @convention(c) (Handle, UnsafePointer<CChar>, ErrorSlot) -> Handle? = try library.function(
            "rocksdb_open")
        guard let db = open(options, path, &error) else {
            throw BenchFailure(description: "RocksDB cannot open \(path): \(error.map { String(cString: $0) } ?? "")")
        }
        self.db = db
    }

    private func check(_ error: UnsafeMutablePointer<CChar>?) throws {
        if let error { throw BenchFailure(description: "RocksDB: \(String(cString: error))") }
    }

    func put(_ puts: PutBatch) throws {
        calls.batchClear(batch)
        puts.keys.withUnsafeBufferPointer { keys in
            puts.values.withUnsafeBufferPointer { values in
                var key = 0
                var value = 0
                for index in 0..<puts.count {
                    let keyEnd = Int(puts.keyEnds[index])
                    let valueEnd = Int(puts.valueEnds[index])
                    calls.batchPut(
                        batch, keys.baseAddress! + key, keyEnd - key, values.baseAddress! + value, valueEnd - value)
                    key = keyEnd
                    value = valueEnd
                }
            }
        }
        var error: UnsafeMutablePointer<CChar>?
        calls.write(db, writeOptions, batch, &error)
        try check(error)
    }

    func get(_ key: [UInt8]) throws -> Int {
        var error: UnsafeMutablePointer<CChar>?
        let slice = key.withUnsafeBufferPointer { calls.get(db, readOptions, $0.baseAddress!, $0.count, &error) }
        try check(error)
        guard let slice else { return -1 }
        var size = 0
        _ = calls.pinned(slice, &size)
        calls.unpin(slice)
        return size
    }

    func scan(_ key: [UInt8], prefix: Int, limit: Int) throws -> Int {
        let cursor = calls.iterator(db, readOptions)
        defer { calls.destroyIterator(cursor) }
        key.withUnsafeBufferPointer { calls.seek(cursor, $0.baseAddress!, prefix) }
        var count = 0
        while count < limit, calls.isValid(cursor) != 0 {
            var keySize = 0
            var valueSize = 0
            let found = calls.key(cursor, &keySize)
            _ = calls.value(cursor, &valueSize)
            let isInside = key.withUnsafeBufferPointer { memcmp(found, $0.baseAddress!, prefix) == 0 }
            if !isInside { break }
            count += 1
            calls.next(cursor)
        }
        return count
    }

    func settle() throws {
        var error: UnsafeMutablePointer<CChar>?
        calls.flush(db, flushOptions, &error)
        try check(error)
        var quiet = 0
        while quiet < 40 {
            usleep(5000)
            let isIdle = [
                "rocksdb.num-running-compactions", "rocksdb.num-running-flushes", "rocksdb.compaction-pending",
                "rocksdb.mem-table-flush-pending",
            ].allSatisfy { name in
                var value: UInt64 = 0
                return calls.property(db, name, &value) != 0 || value == 0
            }
            quiet = isIdle ? quiet + 1 : 0
        }
    }

    func bytesOnDisk() -> UInt64 { diskBytes(path) }

    func close() { calls.close(db) }
}
