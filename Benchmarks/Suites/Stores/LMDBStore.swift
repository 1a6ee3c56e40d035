// LMDB (lmdb.h), opened at run time: a memory-mapped B+-tree, the fastest reader among the embedded peers. Only what reads
// are compared with.

import CisternBenchKit
import CisternPrimitives
import Glibc

final class LMDBStore: BenchStore {
    private typealias Handle = OpaquePointer
    private struct Value {
        var size: Int
        var data: UnsafeRawPointer?
    }
    private typealias Begin = @convention(c) (Handle, Handle?, UInt32, UnsafeMutablePointer<Handle?>) -> Int32
    private typealias Finish = @convention(c) (Handle) -> Int32
    private typealias Get = @convention(c) (Handle, UInt32, UnsafeMutableRawPointer, UnsafeMutableRawPointer) -> Int32
    private typealias Put =
        @convention(c) (
            Handle, UInt32, UnsafeMutableRawPointer, UnsafeMutableRawPointer, UInt32
        ) -> Int32

    static let name = "LMDB 0.9"
    private static let notFound: Int32 = -30798
    // MDB_NOSYNC | MDB_WRITEMAP | MDB_NORDAHEAD; MDB_RDONLY
    private static let environmentFlags: UInt32 = 0x10000 | 0x80000 | 0x800000
    private static let readOnly: UInt32 = 0x20000

    private let path: String
    private let environment: Handle
    private let table: UInt32
    private let begin: Begin
    private let commit: Finish
    private let abort: @convention(c) (Handle) -> Void
    private let find: Get
    private let store: Put
    private let closeEnvironment: @convention(c) (Handle) -> Void
    /// One reader for many gets, which is the cheapest way; it ends when something is written.
    private var reader: Handle?

    init(_ path: String, mapBytes: Int) throws {
        self.path = path
        guard let library = dlopen("liblmdb.so.0", RTLD_NOW | RTLD_LOCAL) else {
            throw BenchFailure("no liblmdb.so.0: install liblmdb0")
        }
        func function<F>(_ symbol: String, as type: F.Type = F.self) throws -> F {
            guard let address = dlsym(library, symbol) else { throw BenchFailure("LMDB has no function \(symbol)") }
            return unsafeBitCast(address, to: type)
        }
        let create: @convention(c) (UnsafeMutablePointer<Handle?>) -> Int32 = try function("mdb_env_create")
        let setSize: @convention(c) (Handle, Int) -> Int32 = try function("mdb_env_set_mapsize")
        let open: @convention(c) (Handle, UnsafePointer<CChar>, UInt32, UInt32) -> Int32 = try function("mdb_env_open")
        let openTable: @convention(c) (Handle, UnsafePointer<CChar>?, UInt32, UnsafeMutablePointer<UInt32>) -> Int32 =
            try function("mdb_dbi_open")
        begin = try function("mdb_txn_begin")
        commit = try function("mdb_txn_commit")
        abort = try function("mdb_txn_abort")
        find = try function("mdb_get")
        store = try function("mdb_put")
        closeEnvironment = try function("mdb_env_close")
        var made: Handle?
        try LMDBStore.check("mdb_env_create", create(&made))
        environment = made!
        try LMDBStore.check("mdb_env_set_mapsize", setSize(environment, mapBytes))
        try LMDBStore.check("mdb_env_open", open(environment, path, LMDBStore.environmentFlags, 0o644))
        var transaction: Handle?
        try LMDBStore.check("mdb_txn_begin", begin(environment, nil, 0, &transaction))
        var table: UInt32 = 0
        try LMDBStore.check("mdb_dbi_open", openTable(transaction!, nil, 0, &table))
        self.table = table
        try LMDBStore.check("mdb_txn_commit", commit(transaction!))
    }

    private static func check(_ call: String, _ code: Int32) throws {
        if code != 0 { throw BenchFailure("\(call): \(code)") }
    }

    func write(_ batch: WriteBatch) throws {
        endReading()
        var transaction: Handle?
        try LMDBStore.check("mdb_txn_begin", begin(environment, nil, 0, &transaction))
        var key = UnsafeRawPointer(batch.keys)
        var value = UnsafeRawPointer(batch.values)
        for index in 0..<batch.count {
            let keyEnd = UnsafeRawPointer(batch.keys) + Int(batch.keyEnds[index])
            let valueEnd = UnsafeRawPointer(batch.values) + Int(batch.valueEnds[index])
            guard batch.kinds[index] == EntryKind.put.rawValue else { throw BenchFailure("LMDB is given puts only") }
            var name = Value(size: keyEnd - key, data: key)
            var content = Value(size: valueEnd - value, data: value)
            try LMDBStore.check("mdb_put", store(transaction!, table, &name, &content, 0))
            key = keyEnd
            value = valueEnd
        }
        try LMDBStore.check("mdb_txn_commit", commit(transaction!))
    }

    func get(_ key: UnsafeRawBufferPointer) throws -> UnsafeRawBufferPointer? {
        if reader == nil {
            try LMDBStore.check("mdb_txn_begin", begin(environment, nil, LMDBStore.readOnly, &reader))
        }
        var name = Value(size: key.count, data: key.baseAddress)
        var content = Value(size: 0, data: nil)
        let code = find(reader!, table, &name, &content)
        if code == LMDBStore.notFound { return nil }
        try LMDBStore.check("mdb_get", code)
        return UnsafeRawBufferPointer(start: content.data, count: content.size)
    }

    private func endReading() {
        if let reader { abort(reader) }
        reader = nil
    }

    func multiGet(_ keys: KeyList) throws -> (found: Int, bytes: Int) { throw LMDBStore.unsupported("multi-gets") }
    func scan(_ prefix: UnsafeRawBufferPointer, limit: Int) throws -> (entries: Int, bytes: Int) {
        throw LMDBStore.unsupported("scans")
    }
    func flush() throws {}
    func settle() throws {}
    func startCompaction() throws { throw LMDBStore.unsupported("compaction") }
    var isCompacting: Bool { false }
    func checkpoint(_ number: UInt64, finished: @escaping @Sendable (Double) -> Void) throws {
        throw LMDBStore.unsupported("checkpoints")
    }
    func pump() {}
    func advanceClock(milliseconds: UInt64) {}
    func bytesOnDisk() -> UInt64 { diskBytes(path) }

    func close() {
        endReading()
        closeEnvironment(environment)
    }

    private static func unsupported(_ what: String) -> BenchFailure { BenchFailure("LMDB is not compared on \(what)") }
}
