import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct LogTakeoverTests {
    private func list(_ ids: UInt64..., attempt: UInt64) -> Versioned<LogMetadata> {
        Versioned(try! LogMetadata(ledgers: ids.map(LedgerID.init), trimPoint: nil, attempt: attempt), version: 5)
    }

    @Test func theLastTwoLedgersAreClosedBeforeTheListIsSwapped() {
        var takeover = LogTakeover(attempt: 2)
        var actions: [LogTakeover.Action] = []
        takeover.start(into: &actions)
        actions = []
        takeover.receive(.found(list(1, 2, 3, attempt: 1)), into: &actions)
        #expect(actions == [.recover(LedgerID(2)), .recover(LedgerID(3))])
        actions = []
        takeover.recovered(LedgerID(3), last: entry(9), into: &actions)
        #expect(actions.isEmpty)
        takeover.recovered(LedgerID(2), last: entry(4), into: &actions)
        #expect(actions == [.createLedger])
        actions = []
        takeover.created(LedgerID(8), into: &actions)
        let new = try! list(1, 2, 3, attempt: 1).value.takenOver(by: 2, writing: LedgerID(8))
        #expect(actions == [.metadata(.compareAndSwap(expected: 5, new: new))])
        actions = []
        takeover.receive(.written(6), into: &actions)
        #expect(
            actions == [
                .owned(
                    Versioned(new, version: 6), ledger: LedgerID(8),
                    ends: [LedgerID(2): entry(4), LedgerID(3): entry(9)])
            ])
    }

    @Test func aLedgerThatTheOlderAttemptPutInMeanwhileIsClosedToo() {
        var takeover = LogTakeover(attempt: 2)
        var actions: [LogTakeover.Action] = []
        takeover.receive(.found(list(1, attempt: 1)), into: &actions)
        takeover.recovered(LedgerID(1), last: entry(0), into: &actions)
        takeover.created(LedgerID(8), into: &actions)
        takeover.receive(.conflict, into: &actions)
        #expect(actions.last == .metadata(.get))
        actions = []
        takeover.receive(.found(list(1, 9, attempt: 1)), into: &actions)
        #expect(actions == [.recover(LedgerID(9))])
        actions = []
        takeover.recovered(LedgerID(9), last: .none, into: &actions)
        #expect(actions == [.createLedger], "8 is older than 9")
    }

    @Test func anOlderAttemptCannotTakeALogBack() {
        var takeover = LogTakeover(attempt: 2)
        var actions: [LogTakeover.Action] = []
        takeover.receive(.found(list(1, attempt: 3)), into: &actions)
        #expect(actions == [.lost(to: 3, unused: nil)])
    }
}

@Suite struct RepairTests {
    let meta = metadata((3, 3, 2), nodes(1, 2, 3))

    @Test func whatIsWrittenToIsClosedFirstAndTheRestIsCopied() throws {
        let changed = try meta.changingEnsemble(to: nodes(1, 2, 4), from: entry(5))
        func plan(_ node: UInt64, _ loss: NodeLoss, closeOpen: Bool, _ meta: LedgerMetadata) -> [RepairTask] {
            RepairPlan.tasks(
                for: ledger, meta, node: LogNodeID(node), loss: loss, closeOpen: closeOpen, targets: nodes(1, 2, 9))
        }
        #expect(
            plan(3, .dead, closeOpen: false, changed) == [.copy(ledger, fragment: 0, node: node(3), target: node(9))])
        #expect(plan(4, .dead, closeOpen: false, changed) == [], "its writer replaces it")
        #expect(plan(4, .dead, closeOpen: true, changed) == [.recover(ledger)])
        #expect(plan(4, .limbo, closeOpen: false, changed) == [.recover(ledger)])
        let closed = try changed.closing(at: entry(8))
        #expect(
            plan(2, .limbo, closeOpen: false, closed) == [
                .copy(ledger, fragment: 0, node: node(2), target: node(2)),
                .copy(ledger, fragment: 1, node: node(2), target: node(2)),
            ])
        #expect(plan(7, .limbo, closeOpen: false, closed) == [.endLimbo(ledger)])
        let single = try metadata((1, 1, 1), nodes(1)).closing(at: entry(0))
        #expect(plan(1, .dead, closeOpen: true, single) == [.lost(ledger, fragment: 0)])
        let empty = try metadata((1, 1, 1), nodes(1)).closing(at: .none)
        #expect(plan(1, .limbo, closeOpen: true, empty) == [.endLimbo(ledger)])
    }

    @Test(arguments: [(3, 3, 2), (5, 3, 2)]) func aRepairCopiesThePartOfTheLostNode(sizes: (Int, Int, Int)) throws {
        var cluster = TestCluster(metadata(sizes, (1...UInt64(sizes.0)).map(LogNodeID.init)), spare: nodes(9))
        var writer = cluster.writer()
        _ = cluster.append(&writer, (0..<30).map { [UInt8($0)] })
        var closing: [WriterAction] = []
        writer.close(into: &closing)
        _ = cluster.run(&writer, &closing)
        let part = cluster.members[node(2)]!.machine.status(of: ledger)!.entries
        cluster.down = [node(2)]
        var repair = FragmentRepair(
            ledger: ledger, metadata: cluster.stored, fragment: 0, node: node(2), target: node(9), batch: 4)
        var actions: [FragmentRepair.Action] = []
        repair.start(into: &actions)
        var index = 0
        while index < actions.count {
            switch actions[index] {
            case .send(let request, let id):
                if let reply = cluster.ask(request, id) {
                    repair.receive(reply, from: id, into: &actions)
                } else {
                    repair.nodeFailed(id, into: &actions)
                }
            case .metadata(let request): repair.receive(cluster.ask(request), into: &actions)
            case .repaired, .failed: break
            }
            index += 1
        }
        #expect(actions.last == .repaired(ledger, fragment: 0))
        #expect(cluster.members[node(9)]!.machine.status(of: ledger)!.entries == part)
        #expect(cluster.stored.value.fragments[0].ensemble.contains(node(9)))
        #expect(!cluster.stored.value.fragments[0].ensemble.contains(node(2)))
    }
}
