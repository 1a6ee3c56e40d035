// Carries out what a `LedgerReader` wants, and gives it credit as entries are taken.
//
// At the end of a ledger that is written, one request for news waits at each node at most. News of the metadata comes by looking:
// a ledger whose writer closes it tells its nodes nothing.
//
// Threading: owned by the ledger's event loop.

internal import CisternLogProtocol
internal import CisternPrimitives
internal import NIOCore

final class LedgerReaderHost: LogNodeCaller {
    private let queue: LedgerReaderQueue
    private let connections: LogNodeConnections
    private let service: any LedgerMetadataService
    private var machine: LedgerReader
    private var actions: [LedgerReader.Action] = []
    private var isCarryingOut = false
    private var isDone = false

    /// The last entry to read; nil: to the end of the ledger.
    private let through: EntryID?
    private var delivered: EntryID
    private var wanted: EntryID
    /// The largest entry of the last runs, with what it takes beside its body.
    private var entryBytes = LedgerReaderHost.entryBytesGuess

    private var readsOut = 0
    private var nodesThatTellNews: Set<LogNodeID> = []
    /// Tells the answer to the machine's last question from older ones.
    private var questions = 0
    private var questionIsOut = false
    private var isLooking = false
    private var hasProgress = false
    private var timer: Scheduled<Void>?

    /// As it was last read.
    private var metadata: LedgerMetadata
    /// Since when no node gives the next entry.
    private var unreadableSince: NIODeadline?
    private var restartTask: Scheduled<Void>?

    /// Before the first entry came.
    private static let entryBytesGuess = 64 << 10
    private static let runMax = 1024

    init(
        _ ledger: LedgerID, metadata: LedgerMetadata, from first: EntryID, through: EntryID?, queue: LedgerReaderQueue,
        connections: LogNodeConnections, service: any LedgerMetadataService
    ) {
        machine = LedgerReader(ledger: ledger, metadata: metadata, from: first)
        self.metadata = metadata
        self.through = through
        self.queue = queue
        self.connections = connections
        self.service = service
        delivered = first.previous
        wanted = first.previous
    }

    private var options: LedgerClientOptions { connections.options }
    private var eventLoop: any EventLoop { connections.eventLoop }
    private func bound() -> NIOLoopBound<LedgerReaderHost> { NIOLoopBound(self, eventLoop: eventLoop) }

    // MARK: - Events

    func start() {
        if let through, through <= delivered { return finish(.success(())) }
        demand(buffered: 0)
        carryOut()
        tickLater()
    }

    func entriesWereTaken() {
        let buffered = queue.rearm()
        if isDone { return }
        demand(buffered: buffered)
        carryOut()
    }

    func received(_ reply: NodeReply, to request: NodeRequest, from node: LogNodeID) {
        switch reply {
        case .read: readsOut -= 1
        case .lac: nodesThatTellNews.remove(node)
        case .add: return
        }
        if isDone { return }
        machine.receive(reply, from: node, into: &actions)
        carryOut()
    }

    func failed(_ request: NodeRequest, to node: LogNodeID) {
        switch request {
        case .read: readsOut -= 1
        case .readLAC: nodesThatTellNews.remove(node)
        case .add, .writeLAC, .delete: return
        }
        if isDone { return }
        machine.nodeFailed(node, into: &actions)
        carryOut()
    }

    func stop() {
        isDone = true
        timer?.cancel()
        timer = nil
        restartTask?.cancel()
        restartTask = nil
    }

    // MARK: - Credit

    /// Lets the machine go on as far as there is room for what it brings.
    private func demand(buffered: Int) {
        guard buffered <= options.readAheadBytes / 2 else { return }
        let run = max(1, min(LedgerReaderHost.runMax, options.readAheadBytes / 2 / entryBytes))
        var last = delivered.advanced(by: run)
        if let through { last = min(last, through) }
        guard last > wanted else { return }
        wanted = last
        machine.demand(through: last, into: &actions)
    }

    // MARK: - Actions

    private func carryOut() {
        // An action may bring on others; they are taken by the loop that runs.
        if isCarryingOut { return }
        isCarryingOut = true
        let caller = NIOLoopBound<any LogNodeCaller>(self, eventLoop: eventLoop)
        let deadline = NIODeadline.now() + options.requestTimeout
        var index = 0
        while index < actions.count, !isDone {
            let action = actions[index]
            index += 1
            switch action {
            case .send(let request, let node): send(request, to: node, deadline, caller)
            case .metadata(let request): ask(request)
            case .deliver(let first, let bodies): deliver(LedgerBatch(first: first, bodies: bodies))
            case .ended: finish(.success(()))
            case .failed(let failure):
                if isPatient(with: failure) { break }
                let causes = connections.causes(nodes)
                finish(.failure(.failed(machine.ledger, failure, causes: causes)))
            }
        }
        actions.removeAll(keepingCapacity: actions.count <= 1024)
        isCarryingOut = false
        connections.flush()
    }

    private var nodes: Set<LogNodeID> = []

    private func send(
        _ request: NodeRequest, to node: LogNodeID, _ deadline: NIODeadline,
        _ caller: NIOLoopBound<any LogNodeCaller>
    ) {
        nodes.insert(node)
        if case .readLAC = request {
            // The one that waits there asks for the same or for less.
            guard nodesThatTellNews.insert(node).inserted else { return }
            return connections.send(request, to: node, deadline: nil, for: caller)
        }
        readsOut += 1
        connections.send(request, to: node, deadline: deadline, for: caller)
    }

    private func deliver(_ batch: LedgerBatch) {
        hasProgress = true
        unreadableSince = nil
        delivered = batch.first.advanced(by: batch.bodies.count - 1)
        let largest = batch.bodies.reduce(0) { max($0, $1.count) } + LedgerBatch.entryOverheadBytes
        // Grows at once and shrinks slowly.
        entryBytes = max(largest, entryBytes / 2)
        queue.put(batch)
        if let through, delivered >= through { return finish(.success(())) }
        demand(buffered: queue.bytes)
    }

    /// Nodes that were asked in vain may be back in a moment: a new machine goes on behind what was delivered.
    private func isPatient(with failure: LedgerFailure) -> Bool {
        guard case .unreadable = failure else { return false }
        let since = unreadableSince ?? .now()
        unreadableSince = since
        guard .now() < since + options.patience else { return false }
        restartTask = eventLoop.assumeIsolated().scheduleTask(in: options.readerInterval) {
            self.restartTask = nil
            if self.isDone { return }
            self.machine = LedgerReader(ledger: self.machine.ledger, metadata: self.metadata, from: self.delivered.next)
            self.machine.demand(through: self.wanted, into: &self.actions)
            self.carryOut()
        }
        return true
    }

    private func finish(_ end: Result<Void, LedgerError>) {
        stop()
        queue.finish(end)
    }

    // MARK: - Metadata

    private func ask(_ request: LedgerMetadataRequest) {
        questions += 1
        questionIsOut = true
        let (host, number) = (bound(), questions)
        Task { [service] in
            let result = await service.ask(request)
            host.eventLoop.execute { host.value.answered(result, number) }
        }
    }

    /// The answer to a question of the machine, or to a look that no question has overtaken.
    private func answered(_ result: LedgerMetadataResult, _ number: Int) {
        if isDone || number != questions { return }
        questionIsOut = false
        if case .found(let found) = result { metadata = found.value }
        machine.receive(result, into: &actions)
        carryOut()
    }

    private func look() {
        guard !questionIsOut, !isLooking else { return }
        isLooking = true
        let (host, number, ledger) = (bound(), questions, machine.ledger)
        Task { [service] in
            let result = await service.ask(.get(ledger))
            host.eventLoop.execute {
                host.value.isLooking = false
                // A look that gets no answer is no failure: the next one comes.
                if result != .unavailable { host.value.answered(result, number) }
            }
        }
    }

    // MARK: - Timer

    private func tickLater() {
        timer = eventLoop.assumeIsolated().scheduleTask(in: options.readerInterval) { self.tick() }
    }

    private func tick() {
        if isDone { return }
        defer { tickLater() }
        let isStuck = wanted > delivered && !hasProgress
        hasProgress = false
        guard isStuck else { return }
        if readsOut == 0 { look() }
        machine.speculate(into: &actions)
        carryOut()
    }
}
