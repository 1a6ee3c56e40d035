// Carries out what a `FragmentRepair` wants, once, to its end: reads from peers at the pace of its copies, adds to the target,
// the swap in metadata.
//
// Threading: owned by an event loop.

internal import CisternLogProtocol
internal import CisternPrimitives
internal import NIOCore

/// What a repair made anew.
package struct CopiedEntries: Hashable, Sendable {
    /// Entries that the target has durably, also those that it had.
    package internal(set) var entries: UInt64 = 0
    package internal(set) var bytes: UInt64 = 0

    package init() {}
}

final class FragmentRepairRun: LogNodeCaller {
    typealias End = @Sendable (Result<CopiedEntries, LedgerError>) -> Void

    private let connections: LogNodeConnections
    private let service: any LedgerMetadataService
    private let pace: CopyPace
    private let end: End
    private var machine: FragmentRepair
    private var actions: [FragmentRepair.Action] = []
    private var copied = CopiedEntries()
    private var nodes: Set<LogNodeID> = []
    private var retryTask: Scheduled<Void>?
    private var isDone = false

    init(
        _ machine: FragmentRepair, connections: LogNodeConnections, service: any LedgerMetadataService,
        pace: CopyPace, end: @escaping End
    ) {
        self.machine = machine
        self.connections = connections
        self.service = service
        self.pace = pace
        self.end = end
    }

    private var eventLoop: any EventLoop { connections.eventLoop }
    private func bound() -> NIOLoopBound<FragmentRepairRun> { NIOLoopBound(self, eventLoop: eventLoop) }

    // MARK: - Events

    func start() {
        machine.start(into: &actions)
        carryOut()
    }

    func received(_ reply: NodeReply, to request: NodeRequest, from node: LogNodeID) {
        if isDone { return }
        switch reply {
        case .read(let read): pace.took(bytes: FragmentRepairRun.bytes(read))
        case .add(let add): count(add, request)
        case .lac: break
        }
        machine.receive(reply, from: node, into: &actions)
        carryOut()
    }

    func failed(_ request: NodeRequest, to node: LogNodeID) {
        if isDone { return }
        machine.nodeFailed(node, into: &actions)
        carryOut()
    }

    /// The owner gave it up: what was copied stays where it is, and is in nobody's ensemble.
    func stop() {
        if !isDone { finish(.failure(.stopped(machine.ledger))) }
    }

    private static func bytes(_ reply: ReadReply) -> Int {
        reply.answers.reduce(0) { sum, answer in
            if case .present(let body) = answer { sum + body.count } else { sum }
        }
    }

    private func count(_ reply: AddReply, _ request: NodeRequest) {
        guard reply.refusal == nil, case .add(let add) = request else { return }
        copied.entries += 1
        copied.bytes += UInt64(add.body.count)
    }

    // MARK: - Actions

    private func carryOut() {
        let batch = actions
        actions.removeAll(keepingCapacity: batch.count <= 1024)
        for action in batch where !isDone {
            switch action {
            case .send(let request, let node):
                nodes.insert(node)
                if case .read = request { readWhenFree(request, node) } else { send(request, node) }
            case .metadata(let request): ask(request)
            case .repaired: finish(.success(copied))
            case .failed(let failure):
                finish(.failure(.failed(machine.ledger, failure, causes: connections.causes(nodes))))
            }
        }
        connections.flush()
    }

    private func send(_ request: NodeRequest, _ node: LogNodeID) {
        let caller = NIOLoopBound<any LogNodeCaller>(self, eventLoop: eventLoop)
        let deadline = NIODeadline.now() + connections.options.requestTimeout
        connections.send(request, to: node, deadline: deadline, for: caller)
    }

    /// The time limit of a read begins when it is sent.
    private func readWhenFree(_ request: NodeRequest, _ node: LogNodeID) {
        let run = bound()
        pace.whenFree {
            run.eventLoop.execute {
                if run.value.isDone { return }
                run.value.send(request, node)
                run.value.connections.flush()
            }
        }
    }

    private func ask(_ request: LedgerMetadataRequest) {
        let run = bound()
        Task { [service] in
            let result = await service.ask(request)
            run.eventLoop.execute { run.value.answered(result) }
        }
    }

    private func answered(_ result: LedgerMetadataResult) {
        if isDone { return }
        // The machine asks again at once; a store that is away gets a pause.
        guard result != .unavailable || retryTask != nil else {
            retryTask = eventLoop.assumeIsolated().scheduleTask(in: connections.options.retryInterval) {
                self.answered(result)
                self.retryTask = nil
            }
            return
        }
        machine.receive(result, into: &actions)
        carryOut()
    }

    private func finish(_ result: Result<CopiedEntries, LedgerError>) {
        isDone = true
        retryTask?.cancel()
        end(result)
    }
}
