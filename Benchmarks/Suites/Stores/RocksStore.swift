// RocksDB through its C API, by the cheapest calls it has: pinned reads, batched multi-gets, a write batch that is kept.

import CBenchShims
import CisternBenchKit
import CisternPrimitives
import Foundation

final class RocksStore: BenchStore {
    typealias Handle = RocksLibrary.Handle
    typealias ErrorSlot = RocksLibrary.ErrorSlot
    typealias Bytes = RocksLibrary.Bytes

    static let multiGetKeysMax = 1000
    private static let levels = 7
    private static let settleStepMilliseconds = 5

    private let path: String
    private let library: RocksLibrary
    private let options: RocksOptions
    private let db: Handle
    private let columnFamily: Handle
    private let writeOptions: Handle
    private let readOptions: Handle
    /// Of iterators over one map: they end with it, and ask the filters for its prefix.
    private let scanOptions: Handle
    private let flushOptions: Handle
    private let compactOptions: Handle
    private let batch: Handle
    private let calls: Calls
    /// What the last get returned, which the caller may still look at.
    private var pinnedSlice: Handle?
    private let multiKeys = UnsafeMutablePointer<Bytes?>.allocate(capacity: RocksStore.multiGetKeysMax)
    private let multiSizes = UnsafeMutablePointer<Int>.allocate(capacity: RocksStore.multiGetKeysMax)
    private let multiValues = UnsafeMutablePointer<Handle?>.allocate(capacity: RocksStore.multiGetKeysMax)
    private let multiErrors = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(
        capacity: RocksStore.multiGetKeysMax)
    private let compaction = CompactionRun()
    private var compactionThread: Thread?

    /// The functions of the hot path, looked up once.
    private struct Calls {
        let batchClear: @convention(c) (Handle) -> Void
        let batchPut: @convention(c) (Handle, UnsafeRawPointer, Int, UnsafeRawPointer, Int) -> Void
        let batchMerge: @convention(c) (Handle, UnsafeRawPointer, Int, UnsafeRawPointer, Int) -> Void
        let batchDelete: @convention(c) (Handle, UnsafeRawPointer, Int) -> Void
        let write: @convention(c) (Handle, Handle, Handle, ErrorSlot) -> Void
        let get: @convention(c) (Handle, Handle, UnsafeRawPointer, Int, ErrorSlot) -> Handle?
        let pinned: @convention(c) (Handle, UnsafeMutablePointer<Int>) -> Bytes?
        let unpin: @convention(c) (Handle) -> Void
        let multiGet:
            (
                @convention(c) (
                    Handle, Handle, Handle, Int, UnsafePointer<Bytes?>, UnsafePointer<Int>,
                    UnsafeMutablePointer<Handle?>,
                    UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>, Bool
                ) -> Void
            )?
        let iterator: @convention(c) (Handle, Handle) -> Handle
        let seek: @convention(c) (Handle, UnsafeRawPointer, Int) -> Void
        let isValid: @convention(c) (Handle) -> UInt8
        let next: @convention(c) (Handle) -> Void
        let key: @convention(c) (Handle, UnsafeMutablePointer<Int>) -> Bytes
        let value: @convention(c) (Handle, UnsafeMutablePointer<Int>) -> Bytes
        let destroyIterator: @convention(c) (Handle) -> Void
        let flush: @convention(c) (Handle, Handle, ErrorSlot) -> Void
        let compact: @convention(c) (Handle, Handle, Bytes?, Int, Bytes?, Int) -> Void
        let property: @convention(c) (Handle, UnsafePointer<CChar>, UnsafeMutablePointer<UInt64>) -> Int32
        let textProperty: @convention(c) (Handle, UnsafePointer<CChar>) -> UnsafeMutablePointer<CChar>?
        let checkpointObject: @convention(c) (Handle, ErrorSlot) -> Handle?
        let checkpoint: @convention(c) (Handle, UnsafePointer<CChar>, UInt64, ErrorSlot) -> Void
        let destroyCheckpoint: @convention(c) (Handle) -> Void
        let destroyFamily: @convention(c) (Handle) -> Void
        let close: @convention(c) (Handle) -> Void

        init(_ library: RocksLibrary) throws {
            batchClear = try library.function("rocksdb_writebatch_clear")
            batchPut = try library.function("rocksdb_writebatch_put")
            batchMerge = try library.function("rocksdb_writebatch_merge")
            batchDelete = try library.function("rocksdb_writebatch_delete")
            write = try library.function("rocksdb_write")
            get = try library.function("rocksdb_get_pinned")
            pinned = try library.function("rocksdb_pinnableslice_value")
            unpin = try library.function("rocksdb_pinnableslice_destroy")
            multiGet = library.optionalFunction("rocksdb_batched_multi_get_cf")
            iterator = try library.function("rocksdb_create_iterator")
            seek = try library.function("rocksdb_iter_seek")
            isValid = try library.function("rocksdb_iter_valid")
            next = try library.function("rocksdb_iter_next")
            key = try library.function("rocksdb_iter_key")
            value = try library.function("rocksdb_iter_value")
            destroyIterator = try library.function("rocksdb_iter_destroy")
            flush = try library.function("rocksdb_flush")
            compact = try library.function("rocksdb_compact_range_opt")
            property = try library.function("rocksdb_property_int")
            textProperty = try library.function("rocksdb_property_value")
            checkpointObject = try library.function("rocksdb_checkpoint_object_create")
            checkpoint = try library.function("rocksdb_checkpoint_create")
            destroyCheckpoint = try library.function("rocksdb_checkpoint_object_destroy")
            destroyFamily = try library.function("rocksdb_column_family_handle_destroy")
            close = try library.function("rocksdb_close")
        }
    }

    init(_ path: String, _ library: RocksLibrary, _ settings: StoreSettings) throws {
        self.path = path
        self.library = library
        let options = try RocksOptions(library, settings)
        self.options = options
        writeOptions = try library.create("rocksdb_writeoptions_create")
        try library.set("rocksdb_writeoptions_disable_WAL", writeOptions, int: 1)
        readOptions = try library.create("rocksdb_readoptions_create")
        scanOptions = try library.create("rocksdb_readoptions_create")
        if settings.mapPrefixBytes > 0 {
            try library.set("rocksdb_readoptions_set_prefix_same_as_start", scanOptions, byte: 1)
        }
        flushOptions = try library.create("rocksdb_flushoptions_create")
        compactOptions = try library.create("rocksdb_compactoptions_create")
        // Other compactions go on beside it; what is in the last level already is merged too.
        try library.set("rocksdb_compactoptions_set_exclusive_manual_compaction", compactOptions, byte: 0)
        batch = try library.create("rocksdb_writebatch_create")
        calls = try Calls(library)
        // The one column family by its handle, which a batched multi-get wants.
        let open:
            @convention(c) (
                Handle, UnsafePointer<CChar>, Int32, UnsafePointer<UnsafePointer<CChar>?>, UnsafePointer<Handle?>,
                UnsafeMutablePointer<Handle?>, ErrorSlot
            ) -> Handle? = try library.function("rocksdb_open_column_families")
        var error: UnsafeMutablePointer<CChar>?
        var handle: Handle?
        let opened = options.options
        let db = "default".withCString { name in open(opened, path + "/rocksdb", 1, [name], [opened], &handle, &error) }
        guard let db, let handle else {
            throw BenchFailure("RocksDB cannot open \(path): \(error.map { String(cString: $0) } ?? "")")
        }
        self.db = db
        columnFamily = handle
    }

    private func check(_ error: UnsafeMutablePointer<CChar>?) throws {
        if let error { throw BenchFailure("RocksDB: \(String(cString: error))") }
    }

    func write(_ entries: WriteBatch) throws {
        calls.batchClear(batch)
        var key = UnsafeRawPointer(entries.keys)
        var value = UnsafeRawPointer(entries.values)
        for index in 0..<entries.count {
            let keyEnd = UnsafeRawPointer(entries.keys) + Int(entries.keyEnds[index])
            let valueEnd = UnsafeRawPointer(entries.values) + Int(entries.valueEnds[index])
            switch EntryKind(rawValue: entries.kinds[index]) {
            case .put: calls.batchPut(batch, key, keyEnd - key, value, valueEnd - value)
            case .append: calls.batchMerge(batch, key, keyEnd - key, value, valueEnd - value)
            case .delete: calls.batchDelete(batch, key, keyEnd - key)
            case nil: throw BenchFailure("an entry of unknown kind")
            }
            key = keyEnd
            value = valueEnd
        }
        var error: UnsafeMutablePointer<CChar>?
        calls.write(db, writeOptions, batch, &error)
        try check(error)
    }

    func get(_ key: UnsafeRawBufferPointer) throws -> UnsafeRawBufferPointer? {
        if let slice = pinnedSlice { calls.unpin(slice) }
        var error: UnsafeMutablePointer<CChar>?
        pinnedSlice = calls.get(db, readOptions, key.baseAddress!, key.count, &error)
        if error != nil { try check(error) }
        guard let slice = pinnedSlice else { return nil }
        var size = 0
        let value = calls.pinned(slice, &size)
        return UnsafeRawBufferPointer(start: value, count: size)
    }

    func multiGet(_ keys: KeyList) throws -> (found: Int, bytes: Int) {
        precondition(keys.count <= RocksStore.multiGetKeysMax, "too many keys for a multi-get")
        guard let multiGet = calls.multiGet else { throw BenchFailure("\(library.name) has no batched multi-get") }
        for index in 0..<keys.count {
            multiKeys[index] = keys[index].baseAddress!.assumingMemoryBound(to: UInt8.self)
            multiSizes[index] = keys.keySize
        }
        multiGet(db, readOptions, columnFamily, keys.count, multiKeys, multiSizes, multiValues, multiErrors, false)
        var found = 0
        var bytes = 0
        for index in 0..<keys.count {
            if multiErrors[index] != nil { try check(multiErrors[index]) }
            guard let slice = multiValues[index] else { continue }
            var size = 0
            _ = calls.pinned(slice, &size)
            found += 1
            bytes += size
            calls.unpin(slice)
        }
        return (found, bytes)
    }

    /// An iterator for each scan, as a map state's iteration makes one.
    func scan(_ prefix: UnsafeRawBufferPointer, limit: Int) throws -> (entries: Int, bytes: Int) {
        let cursor = calls.iterator(db, scanOptions)
        defer { calls.destroyIterator(cursor) }
        calls.seek(cursor, prefix.baseAddress!, prefix.count)
        var entries = 0
        var bytes = 0
        while entries < limit, calls.isValid(cursor) != 0 {
            var keySize = 0
            let key = calls.key(cursor, &keySize)
            guard keySize >= prefix.count, memcmp(key, prefix.baseAddress!, prefix.count) == 0 else { break }
            var valueSize = 0
            _ = calls.value(cursor, &valueSize)
            entries += 1
            bytes += valueSize
            calls.next(cursor)
        }
        return (entries, bytes)
    }

    func flush() throws {
        var error: UnsafeMutablePointer<CChar>?
        calls.flush(db, flushOptions, &error)
        try check(error)
    }

    func settle() throws {
        try flush()
        var quiet = 0
        while quiet < settledMilliseconds / RocksStore.settleStepMilliseconds {
            sleepMilliseconds(UInt32(RocksStore.settleStepMilliseconds))
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

    var runs: Int {
        let files = (0..<RocksStore.levels).map { Int(text("rocksdb.num-files-at-level\($0)")) ?? 0 }
        return files[0] + files.dropFirst().count { $0 > 0 }
    }

    private func text(_ property: String) -> String {
        guard let value = calls.textProperty(db, property) else { return "" }
        defer { free(value) }
        return String(cString: value)
    }

    func startCompaction() throws {
        compaction.begin()
        let run = compaction
        let compact = calls.compact
        nonisolated(unsafe) let (db, options) = (db, compactOptions)
        let thread = Thread {
            compact(db, options, nil, 0, nil, 0)
            run.end()
        }
        compactionThread = thread
        thread.start()
    }

    var isCompacting: Bool { compaction.isRunning }

    /// On the writing thread, as Flink's synchronous part of a checkpoint does; without a log it flushes.
    func checkpoint(_ number: UInt64, finished: @escaping @Sendable (Double) -> Void) throws {
        let target = path + "/checkpoint-\(number)"
        var error: UnsafeMutablePointer<CChar>?
        guard let object = calls.checkpointObject(db, &error) else { return try check(error) }
        calls.checkpoint(object, target, 0, &error)
        finished(wallNanoseconds())
        calls.destroyCheckpoint(object)
        try check(error)
        try FileManager.default.removeItem(atPath: target)
    }

    func pump() {}

    func advanceClock(milliseconds: UInt64) { options.timeToLive?.pointee.now_milliseconds += milliseconds }

    func bytesOnDisk() -> UInt64 { settledDiskBytes(path) }

    func close() {
        if let slice = pinnedSlice { calls.unpin(slice) }
        pinnedSlice = nil
        calls.destroyFamily(columnFamily)
        calls.close(db)
        for memory in [UnsafeMutableRawPointer(multiKeys), .init(multiSizes), .init(multiValues), .init(multiErrors)] {
            memory.deallocate()
        }
    }
}
