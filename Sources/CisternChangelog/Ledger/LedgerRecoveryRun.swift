// Carries out what a `LedgerRecovery` wants, once, to its end.
// Threading: owned by the ledger's event loop.

package import CisternLogProtocol
package import CisternPrimitives
internal import NIOCore

/// A ledger that is closed, by this recovery or by somebody else.
package struct RecoveredLedger: Hashable, Sendable {
    package let metadata: Versioned<LedgerMetadata>
    /// `none` when the ledger is empty.
    package let last: EntryID
}

final class LedgerRecoveryRun: LogNodeCaller {
    typealias End = @Sendable (Result<RecoveredLedger, LedgerError>) -> Void

    private let connections: LogNodeConnections
    private let service: any LedgerMetadataService
    private let end: End
    private var machine: LedgerRecovery
    private var actions: [RecoveryAction] = []
    private var isDone = false
    private var nodes: Set<LogNodeID> = []
    private var retryTask: Scheduled<Void>?

    init(
        _ machine: LedgerRecovery, connections: LogNodeConnections, service: any LedgerMetadataService,
        end: @escaping End
    ) {
        self.machine = machine
        self.connections = connections
        self.service = service
        self.end = end
    }

    func start() {
        machine.start(into: &actions)
        carryOut()
    }

    func received(_ reply: NodeReply, to request: NodeRequest, from node: LogNodeID) {
        if isDone { return }
        machine.receive(reply, from: node, into: &actions)
        carryOut()
    }

    func failed(_ request: NodeRequest, to node: LogNodeID) {
        if isDone { return }
        machine.nodeFailed(node, into: &actions)
        carryOut()
    }

    private func answered(_ result: LedgerMetadataResult) {
        if isDone { return }
        machine.receive(result, into: &actions)
        if result == .unavailable { retryLater() }
        carryOut()
    }

    private func retryLater() {
        guard retryTask == nil else { return }
        let interval = connections.options.retryInterval
        retryTask = connections.eventLoop.assumeIsolated().scheduleTask(in: interval) {
            self.retryTask = nil
            if self.isDone { return }
            self.machine.retry(into: &self.actions)
            self.carryOut()
        }
    }

    private func carryOut() {
        let batch = actions
        actions.removeAll(keepingCapacity: batch.count <= 1024)
        let caller = NIOLoopBound<any LogNodeCaller>(self, eventLoop: connections.eventLoop)
        let deadline = NIODeadline.now() + connections.options.requestTimeout
        for action in batch where !isDone {
            switch action {
            case .send(let request, let node):
                nodes.insert(node)
                connections.send(request, to: node, deadline: deadline, for: caller)
            case .metadata(let request): ask(request)
            case .closed(let metadata, let last): finish(.success(RecoveredLedger(metadata: metadata, last: last)))
            case .failed(let failure):
                finish(.failure(.failed(machine.ledger, failure, causes: connections.causes(nodes))))
            }
        }
        connections.flush()
    }

    private func ask(_ request: LedgerMetadataRequest) {
        let run = NIOLoopBound(self, eventLoop: connections.eventLoop)
        Task { [service] in
            let result = await service.ask(request)
            run.eventLoop.execute { run.value.answered(result) }
        }
    }

    private func finish(_ result: Result<RecoveredLedger, LedgerError>) {
        isDone = true
        retryTask?.cancel()
        end(result)
    }
}
