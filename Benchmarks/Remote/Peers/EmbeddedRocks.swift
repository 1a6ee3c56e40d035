// RocksDB in the worker's own process, as Flink's state backend uses it: a get and a put a record, pinned reads, no log.

import CBenchShims
import CisternBenchKit
import Foundation

final class EmbeddedRocks {
    private typealias Handle = RocksLibrary.Handle
    private typealias ErrorSlot = RocksLibrary.ErrorSlot

    private let options: RocksOptions
    private let db: Handle
    private let readOptions: Handle
    private let writeOptions: Handle
    private let getPinned: @convention(c) (Handle, Handle, UnsafeRawPointer, Int, ErrorSlot) -> Handle?
    private let pinnedValue: @convention(c) (Handle, UnsafeMutablePointer<Int>) -> RocksLibrary.Bytes?
    private let unpin: @convention(c) (Handle) -> Void
    private let putCall:
        @convention(c) (Handle, Handle, UnsafeRawPointer, Int, UnsafeRawPointer, Int, ErrorSlot) -> Void
    private let closeCall: @convention(c) (Handle) -> Void

    init(_ path: String, timeToLiveMilliseconds: UInt64 = 0) throws {
        let library = try RocksLibrary.load()
        var settings = StoreSettings()
        settings.timeToLiveMilliseconds = timeToLiveMilliseconds
        options = try RocksOptions(library, settings)
        readOptions = try library.create("rocksdb_readoptions_create")
        writeOptions = try library.create("rocksdb_writeoptions_create")
        try library.set("rocksdb_writeoptions_disable_WAL", writeOptions, int: 1)
        getPinned = try library.function("rocksdb_get_pinned")
        pinnedValue = try library.function("rocksdb_pinnableslice_value")
        unpin = try library.function("rocksdb_pinnableslice_destroy")
        putCall = try library.function("rocksdb_put")
        closeCall = try library.function("rocksdb_close")
        let open: @convention(c) (Handle, UnsafePointer<CChar>, ErrorSlot) -> Handle? = try library.function(
            "rocksdb_open")
        var error: UnsafeMutablePointer<CChar>?
        guard let db = open(options.options, path, &error) else {
            throw BenchFailure("RocksDB cannot open \(path): \(error.map { String(cString: $0) } ?? "")")
        }
        self.db = db
    }

    deinit { closeCall(db) }

    static func name() throws -> String { try RocksLibrary.load().name + ", embedded, log off" }

    /// Reads eight bytes; nil when there are none.
    func get(_ key: UnsafeRawBufferPointer) throws -> UInt64? {
        var error: UnsafeMutablePointer<CChar>?
        guard let slice = getPinned(db, readOptions, key.baseAddress!, key.count, &error) else {
            try check(error)
            return nil
        }
        var size = 0
        let bytes = pinnedValue(slice, &size)
        guard let bytes, size == 8 else { throw BenchFailure("RocksDB has a value of \(size) bytes, not of 8") }
        let value = UnsafeRawPointer(bytes).loadUnaligned(as: UInt64.self)
        unpin(slice)
        return value
    }

    func put(_ key: UnsafeRawBufferPointer, _ value: UInt64) throws {
        var error: UnsafeMutablePointer<CChar>?
        withUnsafeBytes(of: value) {
            putCall(db, writeOptions, key.baseAddress!, key.count, $0.baseAddress!, 8, &error)
        }
        try check(error)
    }

    /// The clock of the filter that drops expired values in compactions.
    func setClock(milliseconds: UInt64) { options.timeToLive?.pointee.now_milliseconds = milliseconds }

    private func check(_ error: UnsafeMutablePointer<CChar>?) throws {
        if let error { throw BenchFailure("RocksDB: \(String(cString: error))") }
    }
}
