// FRONT DOOR of a worker's state: one session is one attach of one key-group range. It owns the write buffer, the caches and
// the codecs; states and timer queues made by it share them. One task uses a session and everything made by it; nothing
// here is locked.
//
//   read   write tables (active, then in flight) → value cache → key index → server
//   write  active table ──full, old, barrier──► sealed batch ──► in flight ──acked──► value cache

internal import CisternCompression
public import CisternPrimitives

/// The keyed state of one worker: registers states, says which key they work on, flushes and takes snapshots.
///
/// Not Sendable and not reentrant: one task calls it, one call at a time. A call that throws an error with advice `.stop`,
/// `.attachAgain` or `.restoreFromCheckpoint` ends the session: later calls throw the same.
@safe public final class KeyedStateSession {
    let remote: any RemoteTree
    let environment: ClientEnvironment
    let configuration: ClientConfiguration
    let request: AttachRequest

    var recordsByName: [String: StateRecord] = [:]
    /// Indexed by state id.
    var recordsByID: [StateRecord?] = []
    /// States the server knew at the last attach.
    var remoteStates: [RemoteState] = []
    var remoteDictionaries: [(id: UInt32, state: UInt16)] = []
    var timerStateIDs: Set<UInt16> = []
    /// By name; whoever holds a queue holds the session, not the other way round.
    var timers: [String: TimerHeap] = [:]
    var sequenceAtAttach: UInt64 = 0
    /// The attach made an empty tree, so nothing has to be looked for in it.
    var startedEmpty = false

    /// What every operation touches, behind a pointer: a variable of a class is checked for exclusive access each time, which was a
    /// quarter of what a write costs. One task uses a session, one call at a time, and nothing here is held across a call of the
    /// program's code but what its serializers write into.
    struct Hot {
        var active = WriteTable()
        var activeSinceNanoseconds: UInt64 = 0
        var cache: ValueCache
        /// nil when switched off or given up.
        var index: KeyIndex?
        var counters = ClientMetrics()
        var failure: ClientError?
        var watermark: UInt64 = 0
        var serverClock: ServerClock
        var key: [UInt8] = []
        var keyGroup: UInt16?
        var currentNamespace: [UInt8] = []
        /// `varint len ‖ key ‖ varint len ‖ namespace`, the middle of a store key.
        var keyAndNamespace: [UInt8] = []
        /// The store key of the operation under way, and its hash.
        var keyScratch: [UInt8] = []
        var keyHash: UInt64 = 0
        /// The serializer's bytes of the operation under way.
        var valueScratch: [UInt8] = []
        /// What the last local read found out for the remote one that follows it.
        var miss = Miss()
    }

    /// Made with the session and freed with it; never handed out.
    private let hot: UnsafeMutablePointer<Hot>

    var active: WriteTable {
        _read { yield unsafe hot.pointee.active }
        _modify { yield unsafe &hot.pointee.active }
    }
    var activeSinceNanoseconds: UInt64 {
        _read { yield unsafe hot.pointee.activeSinceNanoseconds }
        _modify { yield unsafe &hot.pointee.activeSinceNanoseconds }
    }
    var cache: ValueCache {
        _read { yield unsafe hot.pointee.cache }
        _modify { yield unsafe &hot.pointee.cache }
    }
    var index: KeyIndex? {
        _read { yield unsafe hot.pointee.index }
        _modify { yield unsafe &hot.pointee.index }
    }
    var counters: ClientMetrics {
        _read { yield unsafe hot.pointee.counters }
        _modify { yield unsafe &hot.pointee.counters }
    }
    var failure: ClientError? {
        _read { yield unsafe hot.pointee.failure }
        _modify { yield unsafe &hot.pointee.failure }
    }
    var watermark: UInt64 {
        _read { yield unsafe hot.pointee.watermark }
        _modify { yield unsafe &hot.pointee.watermark }
    }
    var serverClock: ServerClock {
        _read { yield unsafe hot.pointee.serverClock }
        _modify { yield unsafe &hot.pointee.serverClock }
    }
    var key: [UInt8] {
        _read { yield unsafe hot.pointee.key }
        _modify { yield unsafe &hot.pointee.key }
    }
    var keyGroup: UInt16? {
        _read { yield unsafe hot.pointee.keyGroup }
        _modify { yield unsafe &hot.pointee.keyGroup }
    }
    var currentNamespace: [UInt8] {
        _read { yield unsafe hot.pointee.currentNamespace }
        _modify { yield unsafe &hot.pointee.currentNamespace }
    }
    var keyAndNamespace: [UInt8] {
        _read { yield unsafe hot.pointee.keyAndNamespace }
        _modify { yield unsafe &hot.pointee.keyAndNamespace }
    }
    var keyScratch: [UInt8] {
        _read { yield unsafe hot.pointee.keyScratch }
        _modify { yield unsafe &hot.pointee.keyScratch }
    }
    var keyHash: UInt64 {
        _read { yield unsafe hot.pointee.keyHash }
        _modify { yield unsafe &hot.pointee.keyHash }
    }
    var valueScratch: [UInt8] {
        _read { yield unsafe hot.pointee.valueScratch }
        _modify { yield unsafe &hot.pointee.valueScratch }
    }
    var miss: Miss {
        _read { yield unsafe hot.pointee.miss }
        _modify { yield unsafe &hot.pointee.miss }
    }

    /// Emptied tables, to be used again.
    var spareTables: [WriteTable] = []
    let sender: BatchSender
    let policy: FlushPolicy
    var loader = KeyIndexLoader()
    /// Changes of times to live that the tree had seen when the loading of the key index began.
    var knownTimeToLiveChanges: UInt64 = 0
    let decoder = EnvelopeDecoder()
    /// Attaches so far.
    var connections = 0
    var random: SeededRandom
    var elementScratch: [UInt8] = []

    init(
        remote: any RemoteTree, request: AttachRequest, configuration: ClientConfiguration,
        environment: ClientEnvironment
    ) {
        self.remote = remote
        self.request = request
        self.configuration = configuration
        self.environment = environment
        sender = BatchSender(remote: remote)
        policy = FlushPolicy(
            bytesMax: configuration.writeBufferBytes, entriesMax: configuration.writeBufferEntries,
            ageMaxNanoseconds: UInt64(configuration.writeBufferAgeMilliseconds) * 1_000_000)
        unsafe hot = .allocate(capacity: 1)
        unsafe hot.initialize(
            to: Hot(
                cache: ValueCache(capacityBytes: configuration.valueCacheBytes),
                index: configuration.keyIndex == .off ? nil : KeyIndex(),
                serverClock: ServerClock(
                    wallMilliseconds: 0, atNanoseconds: environment.time.monotonicNanoseconds)))
        random = SeededRandom(seed: environment.time.monotonicNanoseconds ^ request.epoch)
        setKeyAndNamespace()
    }

    deinit {
        if failure == nil { remote.close() }
        unsafe hot.deinitialize(count: 1)
        unsafe hot.deallocate()
    }

    // MARK: The key that states work on

    /// The key that every state call until the next `setCurrentKey` is about. Costs tens of nanoseconds, never waits.
    /// - Throws: `.invalidArgument` when the key belongs to another worker's key groups, `.limitExceeded` when it is longer
    ///   than a store key may be.
    public func setCurrentKey(_ key: [UInt8]) throws(ClientError) {
        let group = KeyGroup.group(ofKey: key, count: request.keyGroupCount)
        guard request.keyGroups.contains(group) else { throw foreignKey(group) }
        try Self.check(keyBytes: key.count)
        self.key = key
        keyGroup = group
        setKeyAndNamespace()
    }

    @inline(never)
    func foreignKey(_ group: UInt16) -> ClientError {
        ClientError(
            .invalidArgument, .fixTheCall,
            "a key of group \(group) was used in a session of \(request.store) that owns \(request.keyGroups); send "
                + "records by KeyGroup.worker(of:parallelism:count:)")
    }

    /// Separates state of one key, for example by window; empty at the start. Kept when the key changes.
    public var namespace: [UInt8] {
        get { currentNamespace }
        set {
            currentNamespace = newValue
            setKeyAndNamespace()
        }
    }

    /// The key set last; empty before the first.
    public var currentKey: [UInt8] { key }

    /// Puts key and namespace back after timers fired.
    func restoreKey(_ key: [UInt8], _ group: UInt16?, _ namespace: [UInt8]) {
        self.key = key
        keyGroup = group
        currentNamespace = namespace
        setKeyAndNamespace()
    }

    private func setKeyAndNamespace() {
        keyAndNamespace.removeAll(keepingCapacity: true)
        StateKey.appendLengthPrefixed(key, to: &keyAndNamespace)
        StateKey.appendLengthPrefixed(currentNamespace, to: &keyAndNamespace)
    }

    /// Tells the session how far event time has come, for event-time expiry; never goes back. Also sends a write buffer that
    /// has become old, when that needs no waiting.
    public func advanceWatermark(to milliseconds: UInt64) {
        watermark = max(watermark, milliseconds)
        takeArrivals()
        flushIfDueWithoutWaiting()
    }

    // MARK: Barriers

    /// Sends the write buffer and waits until every write is acknowledged, which means in the synced log when the server
    /// keeps one. Costs at least one round trip unless there is nothing to send.
    public func flush() async throws(ClientError) {
        try ensureOpen()
        try await sealActive()
        try await settle("flush writes") { $0.isIdle }
    }

    /// Flushes, then makes everything written so far durable under a handle. Asking again for the same checkpoint gives the
    /// same handle.
    /// - Parameter checkpoint: the engine's checkpoint number.
    public func snapshot(checkpoint: UInt64) async throws(ClientError) -> SnapshotHandle {
        let started = environment.time.monotonicNanoseconds
        try await flush()
        let sequence = sender.ackedSequence
        let handle = try await call("take snapshot \(checkpoint)") {
            (remote: any RemoteTree) async throws(RemoteError) -> SnapshotHandle in
            try await remote.snapshot(checkpoint: checkpoint, sequence: sequence)
        }
        counters.snapshots += 1
        counters.snapshotMicroseconds.append((environment.time.monotonicNanoseconds - started) / 1000)
        return handle
    }

    /// Waits until the key index knows every key. `attach` has done so already unless
    /// `ClientConfiguration.keyIndexLoadsInBackground` is set. Returns at once when there is no index.
    public func loadKeyIndex() async throws(ClientError) {
        let started = environment.time.monotonicNanoseconds
        var deadline = retryDeadline()
        var failures = 0
        while true {
            try ensureOpen()
            takeArrivals()
            guard index != nil else { return }
            if loader.failures == 0 {
                deadline = retryDeadline()
            } else if loader.failures != failures, loader.phase != .complete {
                try checkDeadline(deadline, "load the key index", loader.reason)
            }
            failures = loader.failures
            switch loader.phase {
            case .complete:
                if counters.keyIndexLoadMicroseconds == 0 {
                    counters.keyIndexLoadMicroseconds = (environment.time.monotonicNanoseconds - started) / 1000
                }
                return
            case .idle: loader.begin(remote, watermark: watermark, connection: connections)
            case .streaming, .refused: await loader.mailbox.wait()
            case .interrupted:
                try await reconnect(until: deadline, after: failures - 1, "load the key index", loader.reason)
            case .failed(let error): throw error
            }
        }
    }

    // MARK: The end

    /// Flushes, gives the tree up in order and closes the connection. The session cannot be used any more.
    public func detach() async throws(ClientError) {
        try await flush()
        for record in recordsByName.values { await record.trainer?.finish() }
        try await call("detach") { (remote: any RemoteTree) async throws(RemoteError) in
            try await remote.detach()
        }
        close(ClientError(.closed, .fixTheCall, "the session of \(request.store) was detached"))
    }

    /// Ends the session as a crash would: what is buffered is lost, the server is not told.
    public func abandon() {
        close(ClientError(.closed, .fixTheCall, "the session of \(request.store) was abandoned"))
    }

    private func close(_ reason: ClientError) {
        if failure == nil { failure = reason }
        remote.close()
    }

    /// What the session did so far. Costs a copy; call it when you want to look, not for each record.
    public var metrics: ClientMetrics {
        takeArrivals()
        var metrics = counters
        metrics.writeRPCs = sender.batchesSent
        metrics.batchesResent = sender.batchesResent
        metrics.keyIndexKeys = index?.count ?? 0
        metrics.keyIndexBytes = index?.byteCount ?? 0
        metrics.valueCacheEntries = cache.count
        metrics.valueCacheBytes = cache.byteCount
        (metrics.bytesSent, metrics.bytesReceived) = remote.traffic
        return metrics
    }

    /// The key groups this session owns.
    public var keyGroups: KeyGroupRange { request.keyGroups }

    static func check(keyBytes: Int) throws(ClientError) {
        guard keyBytes <= ClientLimits.keyBytesMax - 16 else {
            throw ClientError(
                .limitExceeded, .fixTheCall,
                "a key of \(keyBytes) bytes; store keys may have \(ClientLimits.keyBytesMax) bytes with 16 for their frame"
            )
        }
    }

    func ensureOpen() throws(ClientError) {
        if let failure { throw failure }
    }
}

/// Where the session's time, pauses and randomness come from; tests put their own here.
package struct ClientEnvironment: Sendable {
    package var time: any TimeSource
    package var sleep: @Sendable (_ milliseconds: UInt64) async throws -> Void

    package init(
        time: any TimeSource = SystemTime(),
        sleep: @escaping @Sendable (_ milliseconds: UInt64) async throws -> Void = {
            try await Task.sleep(nanoseconds: $0 * 1_000_000)
        }
    ) {
        self.time = time
        self.sleep = sleep
    }
}

/// The server's wall clock as the client knows it: what the server said when it answered, carried on by the client's
/// monotonic clock. The answer travelled, so the estimate is never ahead of the server's clock (drift aside): a value is
/// never taken for expired before the server does so.
struct ServerClock {
    let wallMilliseconds: UInt64
    let atNanoseconds: UInt64

    func now(_ monotonicNanoseconds: UInt64) -> UInt64 {
        wallMilliseconds + (monotonicNanoseconds - min(atNanoseconds, monotonicNanoseconds)) / 1_000_000
    }
}

/// Left behind by a local read that could not answer.
struct Miss {
    /// Some batch in flight appends to the key: whether the server's answer would contain it is open.
    var hasAppendsInFlight = false
    /// `verify` mode: what the key index would have answered.
    var prediction: Bool?
}
