// Timers of a session: in memory as a heap, in the tree as one entry each, so that they are part of every snapshot. The
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
    private struct Timer {
        var time: Int64
        var storeKey: [UInt8]

        /// By time; equal times by key group and key, so that a restored worker fires in the same order.
        func fires(before other: Timer) -> Bool {
            time != other.time ? time < other.time : storeKey.lexicographicallyPrecedes(other.storeKey)
        }
    }

    private static let loadPageSize = 8192

    private let session: KeyedStateSession
    private let record: StateRecord
    /// Binary heap, earliest first. Deleted timers stay until they come up or outnumber the others.
    private var heap: [Timer] = []
    private var live: Set<[UInt8]> = []

    init(_ session: KeyedStateSession, _ record: StateRecord) {
        self.session = session
        self.record = record
    }

    /// Timers that wait.
    public var count: Int { live.count }

    /// When the earliest timer is due; nil without timers.
    public var nextTime: Int64? {
        dropDeleted()
        return heap.first?.time
    }

    /// Registers a timer for the current key and namespace. Costs a buffered write; nothing when it is registered already.
    public func register(at time: Int64) async throws(ClientError) {
        try prepare(time)
        guard !live.contains(session.keyScratch) else { return }
        let storeKey = session.keyScratch
        session.valueScratch.removeAll(keepingCapacity: true)
        try await session.write(.put, record, expiry: .never)
        live.insert(storeKey)
        push(Timer(time: time, storeKey: storeKey))
    }

    /// Takes a timer of the current key and namespace back. Nothing happens when it is not registered.
    public func delete(at time: Int64) async throws(ClientError) {
        try prepare(time)
        guard live.contains(session.keyScratch) else { return }
        let storeKey = session.keyScratch
        session.valueScratch.removeAll(keepingCapacity: true)
        try await session.write(.delete, record, expiry: .never)
        live.remove(storeKey)
        if heap.count > live.count * 2 + 1024 { rebuild() }
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
        while let timer = nextDue(time) {
            guard let fired = TimerKey.decode(timer.storeKey) else {
                throw KeyedStateSession.damaged(record, "a timer's key of \(timer.storeKey.count) bytes")
            }
            session.keyScratch = timer.storeKey
            try session.finishKey()
            session.valueScratch.removeAll(keepingCapacity: true)
            try await session.write(.delete, record, expiry: .never)
            live.remove(timer.storeKey)
            popFirst()
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
                    if live.insert(item.key).inserted { push(Timer(time: timer.time, storeKey: item.key)) }
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

    // MARK: Heap

    private func nextDue(_ time: Int64) -> Timer? {
        dropDeleted()
        guard let first = heap.first, first.time <= time else { return nil }
        return first
    }

    /// A deleted and registered-again timer is in the heap twice and live once: the first one fires, the second is dropped.
    private func dropDeleted() {
        while let first = heap.first, !live.contains(first.storeKey) { popFirst() }
    }

    private func push(_ timer: Timer) {
        heap.append(timer)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].fires(before: heap[parent]) else { return }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private func popFirst() {
        guard let last = heap.popLast() else { return }
        if heap.isEmpty { return }
        heap[0] = last
        siftDown(from: 0)
    }

    private func siftDown(from start: Int) {
        var parent = start
        while true {
            let left = parent * 2 + 1
            guard left < heap.count else { return }
            let right = left + 1
            let child = right < heap.count && heap[right].fires(before: heap[left]) ? right : left
            guard heap[child].fires(before: heap[parent]) else { return }
            heap.swapAt(child, parent)
            parent = child
        }
    }

    private func rebuild() {
        var kept: Set<[UInt8]> = []
        heap = heap.filter { live.contains($0.storeKey) && kept.insert($0.storeKey).inserted }
        for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { siftDown(from: index) }
    }
}
