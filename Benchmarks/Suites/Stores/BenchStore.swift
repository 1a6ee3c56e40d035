// What every side must do. Keys and values are borrowed: what a read returns is valid until the next call.

import CisternBenchKit

protocol BenchStore: AnyObject {
    /// Applies a batch; blocks while the store says that its background work is behind.
    func write(_ batch: WriteBatch) throws
    func get(_ key: UnsafeRawBufferPointer) throws -> UnsafeRawBufferPointer?
    /// Looks many keys up at once.
    /// - Returns: how many were found and how many bytes their values have.
    func multiGet(_ keys: KeyList) throws -> (found: Int, bytes: Int)
    /// Visits up to `limit` entries whose keys begin with `prefix`, and looks at their keys and values.
    /// - Returns: how many there were and how many bytes their values have.
    func scan(_ prefix: UnsafeRawBufferPointer, limit: Int) throws -> (entries: Int, bytes: Int)
    /// Writes what is in memory to files.
    func flush() throws
    /// Writes what is in memory to files and waits until there was no background work for `settledMilliseconds`.
    func settle() throws
    /// Sorted runs that a read may have to look into; 0 for a store that has none.
    var runs: Int { get }
    /// Begins to merge everything to the last level; `isCompacting` tells when it has.
    func startCompaction() throws
    var isCompacting: Bool { get }
    /// Why the last full compaction ended early.
    var compactionFailure: String? { get }
    /// Begins a checkpoint as the side's users take it. `finished` gets the moment it was there, in `wallNanoseconds`.
    func checkpoint(_ number: UInt64, finished: @escaping @Sendable (Double) -> Void) throws
    /// Lets the owner's queued work run; called between operations.
    func pump()
    /// The same, after a millisecond at most in which there was nothing to do.
    func nap()
    /// Moves the clock that time to live is judged by.
    func advanceClock(milliseconds: UInt64)
    /// Bytes of the store's files; waits until those that were replaced are gone.
    func bytesOnDisk() -> UInt64
    /// What the side says that it takes of memory; 0 when it does not say.
    var ledgerBytes: Double { get }
    func close()
}

/// A store may have work that it begins only when it is left alone for a moment. All sides get the same moment.
let settledMilliseconds = 1500

extension BenchStore {
    var compactionFailure: String? { nil }
    var ledgerBytes: Double { 0 }
    var runs: Int { 0 }

    func compact() throws {
        try startCompaction()
        while isCompacting { nap() }
        if let compactionFailure { throw BenchFailure("a full compaction: \(compactionFailure)") }
    }

    func nap() { sleepMilliseconds(1) }
}
