// Carries out what a `LedgerWriter` wants: sends to nodes, asks metadata, keeps its timers.
//
// Timers: `retry` after trouble with a node or with metadata, `idle` when acknowledged entries were not followed by an add for a
// while. Neither runs while there is nothing to do.
//
// Threading: owned by the ledger's event loop.

internal import CisternLogProtocol
internal import CisternPrimitives
internal import NIOCore

final class LedgerWriterHost: LogNodeCaller {
    private let queue: LedgerWriterQueue
    private let connections: LogNodeConnections
    private let service: any LedgerMetadataService
    private var machine: LedgerWriter
    private var actions: [WriterAction] = []
    private var isDone = false

    /// Bytes of adds on their way to each node, not answered and not failed.
    private var lags: [LogNodeID: Int] = [:]

    /// Of nodes whose last answer was one.
    private var refusals: [LogNodeID: NodeRefusal] = [:]

    private let moreCandidates: LedgerWriterCandidates?
    private var isAskingForCandidates = false
    private var candidatesAsked = NIODeadline.uptimeNanoseconds(0)

    private var retryTask: Scheduled<Void>?
    private var idleTask: Scheduled<Void>?
    /// Adds went out since the idle timer was set.
    private var sentAdds = false

    init(
        _ machine: LedgerWriter, queue: LedgerWriterQueue, connections: LogNodeConnections,
        service: any LedgerMetadataService, moreCandidates: LedgerWriterCandidates?
    ) {
        self.moreCandidates = moreCandidates
        self.machine = machine
        self.queue = queue
        self.connections = connections
        self.service = service
    }

    private var options: LedgerClientOptions { connections.options }
    private var eventLoop: any EventLoop { connections.eventLoop }
    private func bound() -> NIOLoopBound<LedgerWriterHost> { NIOLoopBound(self, eventLoop: eventLoop) }

    // MARK: - Events

    /// Takes what the owner appended.
    func drain() {
        if isDone { return }
        let (bodies, closes) = queue.take()
        var taken = 0
        for body in bodies {
            taken += body.count
            let entry = machine.append(body, into: &actions)
            invariant(entry != nil || !machine.isOpen, "an entry that had room in the window was not taken")
        }
        if closes { machine.close(into: &actions) }
        carryOut(taken: taken)
    }

    func received(_ reply: NodeReply, to request: NodeRequest, from node: LogNodeID) {
        guard !isDone, case .add(let reply) = reply, case .add(let add) = request else { return }
        lags[node, default: 0] -= cost(add)
        if refusals[node] != reply.refusal { refusals[node] = reply.refusal }
        if reply.refusal != nil { retryLater() }
        machine.receive(reply, from: node, into: &actions)
        carryOut()
    }

    func failed(_ request: NodeRequest, to node: LogNodeID) {
        // A hint that is lost is followed by others.
        guard !isDone, case .add(let add) = request else { return }
        lags[node, default: 0] -= cost(add)
        retryLater()
        machine.nodeFailed(node, into: &actions)
        carryOut()
    }

    private func answered(_ result: LedgerMetadataResult) {
        if isDone { return }
        if result == .unavailable { retryLater() }
        machine.receive(result, into: &actions)
        carryOut()
    }

    func setCandidates(_ nodes: [LogNodeID]) {
        if isDone { return }
        machine.setCandidates(nodes, into: &actions)
        carryOut()
    }

    /// The owner gave it up.
    func stop() {
        isDone = true
        retryTask?.cancel()
        idleTask?.cancel()
        retryTask = nil
        idleTask = nil
    }

    // MARK: - Actions

    private func carryOut(taken: Int = 0) {
        let batch = actions
        actions.removeAll(keepingCapacity: batch.count <= 1024)
        var end: Result<EntryID, LedgerError>?
        if !batch.isEmpty {
            let caller = NIOLoopBound<any LogNodeCaller>(self, eventLoop: eventLoop)
            let deadline = NIODeadline.now() + options.requestTimeout
            for action in batch {
                switch action {
                case .send(let request, let node):
                    if case .add(let add) = request {
                        sentAdds = true
                        lags[node, default: 0] += cost(add)
                    }
                    connections.send(request, to: node, deadline: deadline, for: caller)
                case .metadata(let request): ask(request)
                case .acknowledged: idleLater()
                case .closed(let last): end = .success(last)
                case .failed(let failure):
                    end = .failure(.failed(machine.ledger, failure, causes: causes()))
                }
            }
            connections.flush()
        }
        queue.report(
            acknowledged: machine.lastAddConfirmed, pendingBytes: machine.pendingBytes, lagBytes: lag(), taken: taken)
        if let end {
            stop()
            queue.finish(end)
        }
    }

    /// What the slowest node of the ensemble has not answered. Acknowledgements do not wait for it, but memory does.
    private func lag() -> Int {
        machine.metadata.value.lastFragment.ensemble.reduce(0) { max($0, lags[$1] ?? 0) }
    }

    private func cost(_ add: AddRequest) -> Int { add.body.count + LedgerWriterHost.addOverheadBytes }

    /// What an add on its way takes beside its body, about.
    private static let addOverheadBytes = 256

    /// What the nodes of the ensemble last refused or failed with, for people.
    private func causes() -> String {
        let ensemble = machine.metadata.value.lastFragment.ensemble
        let refused = ensemble.sorted().compactMap { node in refusals[node].map { "\(node) refuses: \($0)" } }
        return (refused + [connections.causes(ensemble)]).filter { !$0.isEmpty }.joined(separator: "; ")
    }

    private func ask(_ request: LedgerMetadataRequest) {
        let host = bound()
        // The task ends with its answer, which the store bounds in time; a host that is done ignores it.
        Task { [service] in
            let result = await service.ask(request)
            host.eventLoop.execute { host.value.answered(result) }
        }
    }

    // MARK: - Timers

    private func retryLater() {
        guard retryTask == nil, !isDone else { return }
        retryTask = eventLoop.assumeIsolated().scheduleTask(in: options.retryInterval) {
            self.retryTask = nil
            if self.isDone { return }
            self.queue.note(trouble: self.causes())
            self.askForCandidates()
            self.machine.retry(into: &self.actions)
            self.carryOut()
        }
    }

    private func askForCandidates() {
        guard let moreCandidates, !isAskingForCandidates, .now() >= candidatesAsked + options.candidatesInterval else {
            return
        }
        isAskingForCandidates = true
        candidatesAsked = .now()
        let host = bound()
        Task {
            let nodes = await moreCandidates()
            host.eventLoop.execute {
                host.value.isAskingForCandidates = false
                if !nodes.isEmpty { host.value.setCandidates(nodes) }
            }
        }
    }

    private func idleLater() {
        guard idleTask == nil, !isDone else { return }
        sentAdds = false
        idleTask = eventLoop.assumeIsolated().scheduleTask(in: options.idleInterval) {
            self.idleTask = nil
            if self.isDone { return }
            if self.sentAdds { return self.idleLater() }
            self.machine.idle(into: &self.actions)
            self.carryOut()
        }
    }
}
