// Timers of a session: in memory as a heap (`TimerHeap`), in the tree as one entry each, so that they are part of every snapshot. The
// order is kept in memory only; the server is read once, when the queue is made.

internal import CisternPrimitives

/// A timer that is due.
public struct FiredTimer: Hashable, Sendable {
    public let key: [UInt8]
    public let namespace: [UInt8]
    /// What it was registered for, milliseconds.
    public let time: Int64
}

/// Timers for keys and namespaces. Made by `KeyedStateSession.timerQueue`; used by the session's task only.
///
/// A registration (time, key, namespace) exists once however often it is made, and fires once.
public final class TimerQueue {
    private static let loadPageSize = 8192

    private let session: KeyedStateSession
    private let record: StateRecord
    /// The session's: every queue of a name shares them.
    private let timers: TimerHeap

    init(_ session: KeyedStateSession, _ record: StateRecord, _ timers: TimerHeap) {
        self.session = session
        self.record = record
        self.timers = timers
    }

    /// Timers that wait.
    public var count: Int { timers.count }

    /// When the earliest timer is due; nil without timers.
    public var nextTime: Int64? { timers.first?.time }

    /// Registers a timer for the current key and namespace. Costs a buffered write; nothing when it is registered already.
    public func register(at time: Int64) async throws(ClientError) {
        try prepare(time)
        guard !timers.contains(session.keyScratch) else { return }
        let storeKey = session.keyScratch
        session.valueScratch.removeAll(keepingCapacity: true)
        try await session.write(.put, record, expiry: .never)
        timers.insert(storeKey, time: time)
    }

    /// Takes a timer of the current key and namespace back. Nothing happens when it is not registered.
    public func delete(at time: Int64) async throws(ClientError) {
        try prepare(time)
        guard timers.contains(session.keyScratch) else { return }
        let storeKey = session.keyScratch
        session.valueScratch.removeAll(keepingCapacity: true)
        try await session.write(.delete, record, expiry: .never)
        timers.remove(storeKey)
    }

    /// Fires every timer that is due at `time`, earliest first, those included that `body` registers meanwhile. For `body`
    /// the session's current key and namespace are the timer's; afterwards they are what they were.
    ///
    /// A timer is removed before `body` runs. When `body` throws, its timer is gone and the later ones are still there.
    public func advance(to time: Int64, _ body: (FiredTimer) async throws -> Void) async throws {
        let key = session.key
        let group = session.keyGroup
        let namespace = session.namespace
        defer { session.restoreKey(key, group, namespace) }
        while let timer = timers.first, timer.time <= time {
            guard let fired = TimerKey.decode(timer.storeKey) else {
                throw KeyedStateSession.damaged(record, "a timer's key of \(timer.storeKey.count) bytes")
            }
            session.keyScratch = timer.storeKey
            try session.finishKey()
            session.valueScratch.removeAll(keepingCapacity: true)
            try await session.write(.delete, record, expiry: .never)
            timers.removeFirst()
            try session.setCurrentKey(fired.key)
            session.namespace = fired.namespace
            try await body(FiredTimer(key: fired.key, namespace: fired.namespace, time: fired.time))
        }
    }

    /// Reads the timers that the tree holds, key group by key group.
    func load() async throws(ClientError) {
        for group in session.request.keyGroups.first...session.request.keyGroups.last {
            let scan = StateScan(
                session, record, prefix: StateKey.prefix(keyGroup: group, stateID: record.id),
                pageSize: Self.loadPageSize, keysOnly: true)
            while let page = try await scan.next() {
                for item in page {
                    guard let timer = TimerKey.decode(item.key) else {
                        throw KeyedStateSession.damaged(record, "a timer's key of \(item.key.count) bytes")
                    }
                    timers.insert(item.key, time: timer.time)
                }
            }
        }
    }

    private func prepare(_ time: Int64) throws(ClientError) {
        guard let group = session.keyGroup else {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "timer queue \(record.name) was used before setCurrentKey: set a key first")
        }
        session.keyScratch = TimerKey.encode(
            keyGroup: group, stateID: record.id, time: time, key: session.key, namespace: session.namespace)
        try session.finishKey()
    }
}
