// The metadata store of a simulation: linearizable, and as silent at times as a real one. A request that is not answered may
// have been carried out, may not have been, or is carried out later.

import CisternLogProtocol
import CisternPrimitives

final class SimulatedMetadata {
    private unowned let world: World
    private(set) var ledgers: [LedgerID: Versioned<LedgerMetadata>] = [:]
    private(set) var log = Versioned(LogMetadata(), version: 0)
    private(set) var highestLedger = LedgerID(0)

    init(world: World) { self.world = world }

    /// The store as it is now, for the oracle and the end of a run.
    func ask(_ request: LedgerMetadataRequest) -> LedgerMetadataResult {
        switch request {
        case .get(let ledger):
            guard let found = ledgers[ledger] else { return .missing }
            return .found(found)
        case .compareAndSwap(let ledger, let expected, let new):
            guard let old = ledgers[ledger] else { return .missing }
            guard old.version == expected else { return .conflict }
            ledgers[ledger] = Versioned(new, version: expected + 1)
            world.oracle.metadataChanged(ledger, from: old.value, to: new)
            return .written(expected + 1)
        }
    }

    func ask(_ request: LogMetadataRequest) -> LogMetadataResult {
        switch request {
        case .get: return .found(log)
        case .compareAndSwap(let expected, let new):
            guard expected == log.version else { return .conflict }
            log = Versioned(new, version: expected + 1)
            return .written(log.version)
        }
    }

    func create(sizes: QuorumSizes, ensemble: [LogNodeID]) -> LedgerID {
        highestLedger = LedgerID(highestLedger.rawValue + 1)
        guard let new = try? LedgerMetadata(sizes: sizes, ensemble: ensemble) else {
            preconditionFailure("ensemble \(ensemble) for \(sizes)")
        }
        ledgers[highestLedger] = Versioned(new, version: 1)
        world.trace("metadata: created \(highestLedger) on \(ensemble)")
        return highestLedger
    }

    func delete(_ ledger: LedgerID) {
        world.trace("metadata: deleted \(ledger)")
        ledgers[ledger] = nil
    }

    func exists(_ ledger: LedgerID) -> Bool { ledgers[ledger] != nil }

    /// Carries out `request` some time from now and answers through `client`; `unavailable` when the answer is lost.
    func ask<Result>(
        for client: Client, unavailable: Result, _ request: @escaping () -> Result,
        then answer: @escaping (Result) -> Void
    ) {
        let faults = world.faults
        let travel = world.delay()
        guard world.chance(faults.metadataLoss) else {
            world.scheduler.after(travel) { [world] in
                let result = request()
                world.scheduler.after(world.delay()) { client.deliver { answer(result) } }
            }
            return
        }
        switch world.pick(3) {
        case 0: break  // never carried out
        case 1: world.scheduler.after(travel) { _ = request() }
        default: world.scheduler.after(travel + 20 + world.pick(80)) { _ = request() }
        }
        world.scheduler.after(travel + 15) { client.deliver { answer(unavailable) } }
    }
}
