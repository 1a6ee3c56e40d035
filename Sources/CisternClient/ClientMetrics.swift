// What a session did, counted by its own thread without locks.

/// Counters of one session since its attach. All grow, except `keyIndexKeys`, `keyIndexBytes` and the cache gauges.
public struct ClientMetrics: Sendable, Hashable {
    /// Updates, additions, removals and timer changes the worker asked for.
    public var writeOperations = 0
    /// Batches sent, repeated ones included.
    public var writeRPCs = 0
    /// Writes that changed an entry still in the buffer, and so never travel by themselves.
    public var writesAbsorbed = 0
    /// Entries in the batches that were made.
    public var entriesSent = 0
    /// Reads of single keys the worker asked for.
    public var readOperations = 0
    /// Requests sent for them.
    public var readRPCs = 0
    /// Pages of scans (map iteration, timers, whole-state pages).
    public var scanRPCs = 0
    /// Reads answered by writes that are not acknowledged yet.
    public var bufferHits = 0
    /// Reads answered by the value cache, remembered absences included.
    public var cacheHits = 0
    /// Reads that found nothing.
    public var absentReads = 0
    /// Reads that found nothing and needed a request to know. In `verify` mode the checks are not counted here.
    public var absentReadRPCs = 0
    /// Reads the key index answered with "absent".
    public var indexSkips = 0
    /// Answers of the key index that were compared with the server's (`verify` mode).
    public var verifyChecks = 0
    /// Comparisons that differed. Anything but 0 is a bug worth reporting.
    public var verifyDisagreements = 0
    public var keyIndexKeys = 0
    public var keyIndexBytes = 0
    public var keyIndexLoadMicroseconds: UInt64 = 0
    /// True when the keys outgrew `keyIndexBytesMax` and the index was given up.
    public var keyIndexDropped = false
    public var valueCacheEntries = 0
    public var valueCacheBytes = 0
    /// Bytes of values before and after their envelopes, of everything that was sent once.
    public var bytesBeforeCompression: UInt64 = 0
    public var bytesAfterCompression: UInt64 = 0
    public var dictionariesTrained = 0
    /// Body bytes of requests and replies.
    public var bytesSent: UInt64 = 0
    public var bytesReceived: UInt64 = 0
    public var snapshots = 0
    /// Flush, wait and request of each snapshot.
    public var snapshotMicroseconds: [UInt64] = []
    /// The server's time to build the tree at attach.
    public var restoreMicroseconds: UInt64 = 0
    /// The whole attach as the worker saw it, the key index included when it loads before the attach returns.
    public var attachMicroseconds: UInt64 = 0
    public var reconnects = 0
    public var batchesResent = 0
    /// Times a write had to wait because too many batches were in flight.
    public var writerWaits = 0

    public init() {}
}
