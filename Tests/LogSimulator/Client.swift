// A process of the client side: an attempt of a job, a repairer, a reader. It can be stopped for a while (SIGSTOP), and then
// finds all that arrived meanwhile at once; it can be killed.

import CisternLogProtocol
import CisternPrimitives

final class Client {
    let name: String
    private unowned let world: World
    private(set) var isAlive = true
    private var stoppedUntil = 0

    /// Ticks after which a request that was not answered counts as failed.
    static let timeout = 30

    init(_ name: String, world: World) {
        self.name = name
        self.world = world
    }

    func kill() { isAlive = false }
    func stop(for ticks: Int) { stoppedUntil = world.scheduler.now + ticks }
    func resume() { stoppedUntil = 0 }

    /// Runs `event` in this process, when it runs.
    func deliver(_ event: @escaping () -> Void) {
        guard isAlive else { return }
        guard stoppedUntil > world.scheduler.now else { return event() }
        world.scheduler.after(stoppedUntil - world.scheduler.now) { [self] in deliver(event) }
    }

    func after(_ delay: Int, _ work: @escaping () -> Void) {
        world.scheduler.after(delay) { [self] in deliver(work) }
    }

    /// Sends a request; `onReply` runs for each copy of an answer, `onSilence` once when there was none in time.
    func send(
        _ request: NodeRequest, to node: LogNodeID, onReply: @escaping (NodeReply) -> Void,
        onSilence: @escaping () -> Void
    ) {
        var isAnswered = false
        world.network.send(request, from: self, to: node) { reply in
            isAnswered = true
            onReply(reply)
        }
        switch request {
        case .writeLAC, .delete: return
        case .add, .read, .readLAC: break
        }
        after(Client.timeout) { if !isAnswered { onSilence() } }
    }

    func ask(_ request: LedgerMetadataRequest, then answer: @escaping (LedgerMetadataResult) -> Void) {
        world.trace("\(name) -> metadata \(request.short)")
        world.metadata.ask(for: self, unavailable: .unavailable, { [world] in world.metadata.ask(request) }) {
            [world, name] in
            world.trace("metadata -> \(name) \($0.short)")
            answer($0)
        }
    }

    func ask(_ request: LogMetadataRequest, then answer: @escaping (LogMetadataResult) -> Void) {
        world.metadata.ask(
            for: self, unavailable: .unavailable, { [world] in world.metadata.ask(request) }, then: answer)
    }
}

extension LedgerMetadata {
    var short: String {
        fragments.map { "\($0.firstEntry)@\($0.ensemble)" }.joined(separator: " ") + " \(state)"
    }
}

extension LedgerMetadataRequest {
    var short: String {
        switch self {
        case .get(let ledger): "get \(ledger)"
        case .compareAndSwap(let ledger, let version, let new): "swap \(ledger) v\(version): \(new.short)"
        }
    }
}

extension LedgerMetadataResult {
    var short: String {
        switch self {
        case .found(let found): "v\(found.version): \(found.value.short)"
        default: "\(self)"
        }
    }
}
