// What a writer's owner and its event loop share: entries on their way in, acknowledgements on their way out, and the room
// that is left in the window.
//
// Entry ids are given here, in the order of the appends, and the machine gives the same ones: there is one writer, and all that is
// appended reaches the machine in this order until it fails.
//
// Threading: any; guarded by its mutex. Continuations and callbacks are called outside of it.

internal import CisternLogProtocol
internal import CisternPrimitives
internal import NIOCore
internal import Synchronization

final class LedgerWriterQueue: Sendable {
    typealias Acknowledgement = @Sendable (Result<EntryID, LedgerError>) -> Void

    private struct RoomWaiter {
        let body: [UInt8]
        let resume: Acknowledgement
    }

    private struct State {
        var next: EntryID
        /// Not taken by the loop yet.
        var bodies: [[UInt8]] = []
        /// Bytes of `bodies` and of what the loop took and did not report on yet.
        var queuedBytes = 0
        /// Unacknowledged bytes as the machine last reported.
        var pendingBytes = 0
        /// What the slowest node has not answered, as the host last reported.
        var lagBytes = 0
        var trouble = ""
        var acknowledged: EntryID
        var isScheduled = false
        var isClosing = false
        var end: Result<EntryID, LedgerError>?
        var host: NIOLoopBound<LedgerWriterHost>?
        var roomWaiters = WaitingLine<RoomWaiter>()
        /// By entry, ascending.
        var ackWaiters = WaitingLine<(entry: EntryID, resume: Acknowledgement)>()
        /// For entries asked about out of order.
        var lateWaiters: [(entry: EntryID, resume: Acknowledgement)] = []
        var closers: [Acknowledgement] = []
    }

    let ledger: LedgerID
    let windowBytes: Int
    private let windowEntries: Int
    private let state: Mutex<State>

    init(ledger: LedgerID, next: EntryID, windowBytes: Int, windowEntries: Int) {
        self.ledger = ledger
        self.windowBytes = windowBytes
        self.windowEntries = windowEntries
        state = Mutex(State(next: next, acknowledged: next.previous))
    }

    func open(_ host: NIOLoopBound<LedgerWriterHost>) { state.withLock { $0.host = host } }

    var lastAcknowledged: EntryID { state.withLock { $0.acknowledged } }
    var unacknowledgedBytes: Int { state.withLock { $0.queuedBytes + $0.pendingBytes } }

    var trouble: String { state.withLock { $0.trouble } }

    // MARK: - The owner's side

    /// Takes an entry; nil when there is no room.
    func append(_ body: [UInt8], _ acknowledged: Acknowledgement?) throws(LedgerError) -> EntryID? {
        let (result, host) = state.withLock {
            state -> (Result<EntryID?, LedgerError>, NIOLoopBound<LedgerWriterHost>?) in
            if let refusal = refusal(state) { return (.failure(refusal), nil) }
            guard state.roomWaiters.isEmpty, hasRoom(state, for: body.count) else { return (.success(nil), nil) }
            let entry = admit(body, &state)
            if let acknowledged { state.ackWaiters.append((entry, acknowledged)) }
            return (.success(entry), schedule(&state))
        }
        wake(host)
        return try result.get()
    }

    /// Takes an entry as soon as there is room; `admitted` gets its id then.
    func append(_ body: [UInt8], whenAdmitted admitted: @escaping Acknowledgement) {
        let (result, host) = state.withLock {
            state -> (Result<EntryID, LedgerError>?, NIOLoopBound<LedgerWriterHost>?) in
            if let refusal = refusal(state) { return (.failure(refusal), nil) }
            guard state.roomWaiters.isEmpty, hasRoom(state, for: body.count) else {
                state.roomWaiters.append(RoomWaiter(body: body, resume: admitted))
                return (nil, nil)
            }
            return (.success(admit(body, &state)), schedule(&state))
        }
        wake(host)
        if let result { admitted(result) }
    }

    /// Calls back when all entries up to `entry` are acknowledged.
    func whenAcknowledged(_ entry: EntryID, _ resume: @escaping Acknowledgement) {
        let result = state.withLock { state -> Result<EntryID, LedgerError>? in
            if entry <= state.acknowledged { return .success(entry) }
            precondition(entry < state.next, "\(entry) of \(ledger) was not appended, the next one is \(state.next)")
            if case .failure(let error) = state.end { return .failure(error) }
            if let last = state.ackWaiters.last, last.entry > entry {
                state.lateWaiters.append((entry, resume))
            } else {
                state.ackWaiters.append((entry, resume))
            }
            return nil
        }
        if let result { resume(result) }
    }

    /// Closes the ledger behind all that was appended.
    func close(_ resume: @escaping Acknowledgement) {
        let (result, host) = state.withLock {
            state -> (Result<EntryID, LedgerError>?, NIOLoopBound<LedgerWriterHost>?) in
            if let end = state.end { return (end, nil) }
            state.isClosing = true
            state.closers.append(resume)
            return (nil, schedule(&state))
        }
        wake(host)
        if let result { resume(result) }
    }

    /// Lets the ledger go as it is. Idempotent.
    func stop() {
        let host = state.withLock { $0.host }
        finish(.failure(.stopped(ledger)))
        host?.eventLoop.execute { host?.value.stop() }
    }

    private func refusal(_ state: borrowing State) -> LedgerError? {
        switch state.end {
        case .failure(let error): error
        case .success: .writerClosed(ledger)
        case nil: state.isClosing ? .writerClosed(ledger) : nil
        }
    }

    private func hasRoom(_ state: borrowing State, for bytes: Int) -> Bool {
        // A node that acknowledgements do not wait for may lag by one window more; then it is waited for, or it fails.
        if state.lagBytes > 0, state.lagBytes + state.queuedBytes + bytes > 2 * windowBytes { return false }
        let entries = Int(state.next.rawValue - state.acknowledged.rawValue) - 1
        if entries == 0 { return true }
        return entries < windowEntries && state.queuedBytes + state.pendingBytes + bytes <= windowBytes
    }

    private func admit(_ body: [UInt8], _ state: inout State) -> EntryID {
        defer { state.next = state.next.next }
        state.bodies.append(body)
        state.queuedBytes += body.count
        return state.next
    }

    private func schedule(_ state: inout State) -> NIOLoopBound<LedgerWriterHost>? {
        if state.isScheduled { return nil }
        state.isScheduled = true
        return state.host
    }

    private func wake(_ host: NIOLoopBound<LedgerWriterHost>?) {
        guard let host else { return }
        host.eventLoop.execute { host.value.drain() }
    }

    // MARK: - The loop's side

    /// What was appended since the last time, and whether the ledger is to be closed behind it.
    func take() -> (bodies: [[UInt8]], closes: Bool) {
        state.withLock { state in
            state.isScheduled = false
            defer { state.bodies.removeAll(keepingCapacity: state.bodies.count <= 1024) }
            return (state.bodies, state.isClosing && state.roomWaiters.isEmpty)
        }
    }

    /// Where the machine stands after it has got `taken` bytes more. Lets in who waited for room.
    func report(acknowledged: EntryID, pendingBytes: Int, lagBytes: Int, taken: Int) {
        var ready: [(Acknowledgement, EntryID)] = []
        let host = state.withLock { state -> NIOLoopBound<LedgerWriterHost>? in
            state.queuedBytes -= taken
            state.pendingBytes = pendingBytes
            state.lagBytes = lagBytes
            if acknowledged > state.acknowledged {
                state.acknowledged = acknowledged
                state.trouble = ""
                while let first = state.ackWaiters.first, first.entry <= acknowledged {
                    ready.append((first.resume, first.entry))
                    state.ackWaiters.removeFirst()
                }
                if !state.lateWaiters.isEmpty {
                    ready += state.lateWaiters.filter { $0.entry <= acknowledged }.map { ($0.resume, $0.entry) }
                    state.lateWaiters.removeAll { $0.entry <= acknowledged }
                }
            }
            if state.end != nil { return nil }
            var letIn = false
            while let first = state.roomWaiters.first, hasRoom(state, for: first.body.count) {
                ready.append((first.resume, admit(first.body, &state)))
                state.roomWaiters.removeFirst()
                letIn = true
            }
            return letIn ? schedule(&state) : nil
        }
        for (resume, entry) in ready { resume(.success(entry)) }
        wake(host)
    }

    /// Why nothing is acknowledged, until something is.
    func note(trouble: String) { state.withLock { $0.trouble = trouble } }

    /// The end: nobody waits any longer. The first one counts.
    func finish(_ end: Result<EntryID, LedgerError>) {
        var failed: [Acknowledgement] = []
        let closers = state.withLock { state -> [Acknowledgement] in
            guard state.end == nil else { return [] }
            state.end = end
            state.host = nil
            state.bodies = []
            failed = state.ackWaiters.all.map(\.resume) + state.lateWaiters.map(\.resume)
            failed += state.roomWaiters.all.map(\.resume)
            state.ackWaiters = WaitingLine()
            state.lateWaiters = []
            state.roomWaiters = WaitingLine()
            defer { state.closers = [] }
            return state.closers
        }
        for resume in closers { resume(end) }
        // A ledger that is closed has all its entries acknowledged: only failures leave somebody here.
        if case .failure(let error) = end { for resume in failed { resume(.failure(error)) } }
    }
}

/// A queue in an array. Taking from the front is O(1) amortised.
struct WaitingLine<Element> {
    private var elements: [Element] = []
    private var head = 0

    var isEmpty: Bool { head == elements.count }
    var first: Element? { isEmpty ? nil : elements[head] }
    var last: Element? { isEmpty ? nil : elements[elements.count - 1] }
    var all: ArraySlice<Element> { elements[head...] }

    mutating func append(_ element: Element) { elements.append(element) }

    mutating func removeFirst() {
        head += 1
        if head == elements.count {
            elements.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 64 && head * 2 >= elements.count {
            elements.removeFirst(head)
            head = 0
        }
    }
}
