import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct LedgerRecoveryTests {
    let meta = metadata((3, 3, 2), nodes(1, 2, 3))

    private func lastEntry(_ action: RecoveryAction?) -> EntryID? {
        if case .closed(_, let last)? = action { last } else { nil }
    }

    @Test func anEmptyLedgerClosesAtNone() {
        var cluster = TestCluster(meta)
        #expect(lastEntry(cluster.recover()) == EntryID.none)
        #expect(cluster.stored.value.closedLastEntry == EntryID.none)
        #expect(lastEntry(cluster.recover()) == EntryID.none, "a second one finds it closed")
    }

    @Test func aThousandEntriesTakeOneRoundOfReads() {
        var cluster = TestCluster(meta)
        for id in 0..<Int64(1000) {
            for member: UInt64 in 1...3 { _ = cluster.members[node(member)]!.add(id, [UInt8(id & 255)]) }
        }
        #expect(lastEntry(cluster.recover()) == entry(999))
        // A fence and a batch read of each node. Two of them show an ack quorum; the third, which has not answered then, is written to.
        #expect(cluster.requests == 3 + 3 + 1000)
    }

    @Test func answersThatAreCutAreContinued() {
        var cluster = TestCluster(meta)
        for id in 0..<Int64(50) {
            for member: UInt64 in 1...3 { _ = cluster.members[node(member)]!.add(id, [1, 2, 3, 4]) }
        }
        #expect(lastEntry(cluster.recover(batch: 7, bytesMax: 9)) == entry(49))
    }

    @Test func anEntryOnOneNodeIsKeptAndWrittenBack() {
        var cluster = TestCluster(meta)
        for member: UInt64 in 1...3 { _ = cluster.members[node(member)]!.add(0) }
        _ = cluster.members[node(2)]!.add(1, [9])
        #expect(lastEntry(cluster.recover()) == entry(1))
        for member: UInt64 in 1...3 { #expect(cluster.members[node(member)]!.read(1)?.answers == [.present([9])]) }
    }

    @Test func oneNegativeIsNotEnough() {
        var cluster = TestCluster(meta)
        for member: UInt64 in 2...3 { _ = cluster.members[node(member)]!.add(0) }
        cluster.down = [node(2)]
        #expect(lastEntry(cluster.recover()) == entry(0))
    }

    @Test func withTooFewAnswersNothingIsDecided() {
        var cluster = TestCluster(meta)
        cluster.down = [node(2), node(3)]
        #expect(cluster.recover() == .failed(.notFenced))
        #expect(cluster.stored.value.state == .inRecovery)
        cluster.down = []
        for member: UInt64 in 2...3 { cluster.members[node(member)]!.restart(verified: false, highestLedger: ledger) }
        #expect(cluster.recover() == .failed(.undecided(entry(0))), "unknown is no negative")
        cluster.members[node(3)]!.run { $0.ledgerRepaired(ledger, incarnation: 2, into: &$1) }
        #expect(lastEntry(cluster.recover()) == EntryID.none)
    }

    @Test func recoveryFencesAllNodesThatAnswer() {
        var cluster = TestCluster(meta)
        _ = cluster.recover()
        for member: UInt64 in 1...3 { #expect(cluster.members[node(member)]!.add(0) == .some(.fenced)) }
    }

    @Test func aNodeThatFailsInWriteBackIsReplacedAndMetadataLearnsItWithTheClose() {
        var cluster = TestCluster(meta, spare: nodes(4))
        for member: UInt64 in 1...2 { _ = cluster.members[node(member)]!.add(0) }
        cluster.down = [node(3)]
        let result = cluster.recover(candidates: nodes(1, 2, 3, 4))
        #expect(lastEntry(result) == entry(0))
        #expect(cluster.stored.value.fragments == [Fragment(firstEntry: entry(0), ensemble: nodes(1, 2, 4))])
        #expect(cluster.stored.version == 3, "open, in recovery, closed")
        #expect(cluster.members[node(4)]!.read(0)?.answers == [.present([1])])
    }

    @Test func recoveryDoesNotLookBelowTheLastFragment() throws {
        // The nodes of the last fragment have never heard of the ledger.
        let changed = try meta.changingEnsemble(to: nodes(4, 5, 6), from: entry(3))
        var cluster = TestCluster(changed)
        for id in 0..<Int64(3) { for member: UInt64 in 1...3 { _ = cluster.members[node(member)]!.add(id) } }
        #expect(lastEntry(cluster.recover()) == entry(2))
    }

    @Test func stripedEntriesAreReadFromTheirWriteSets() {
        var cluster = TestCluster(metadata((5, 3, 2), nodes(1, 2, 3, 4, 5)))
        var writer = cluster.writer()
        _ = cluster.append(&writer, (0..<20).map { [UInt8($0)] })
        cluster.down = [node(4)]
        #expect(lastEntry(cluster.recover()) == entry(19))
    }

    @Test func theSecondRecoveryTakesTheResultOfTheFirst() {
        var cluster = TestCluster(meta)
        var late = LedgerRecovery(ledger: ledger, candidates: [])
        var actions: [RecoveryAction] = []
        late.start(into: &actions)
        late.receive(.found(cluster.stored), into: &actions)
        late.receive(.written(2), into: &actions)
        cluster.stored = Versioned(try! meta.startingRecovery(), version: 2)
        #expect(lastEntry(cluster.recover()) == EntryID.none)
        late.receive(.lac(ReadLACReply(ledger: ledger, lac: .none, isFenced: true)), from: node(1), into: &actions)
        late.receive(.lac(ReadLACReply(ledger: ledger, lac: .none, isFenced: true)), from: node(2), into: &actions)
        let found = ReadReply(ledger: ledger, first: entry(0), answers: [.absent], lac: .none, isFenced: true)
        late.receive(.read(found), from: node(1), into: &actions)
        late.receive(.read(found), from: node(2), into: &actions)
        late.receive(.conflict, into: &actions)
        #expect(actions.last == .metadata(.get(ledger)))
        late.receive(.found(cluster.stored), into: &actions)
        #expect(actions.last == .closed(cluster.stored, last: .none))
    }

    /// What a node has shown comes out of its journal, so it is not written again; and what one node has shown waits for a second
    /// answer, because it is on an ack quorum as a rule.
    @Test func anEntryIsWrittenToThoseThatHaveNotShownIt() {
        for (answer, targets) in [
            (EntryAnswer.present([1]), nodes(3)), (.absent, nodes(2, 3)), (.unknown, nodes(2, 3)),
        ] {
            var recovery = LedgerRecovery(ledger: ledger, candidates: [])
            var actions: [RecoveryAction] = []
            recovery.start(into: &actions)
            recovery.receive(.found(Versioned(meta, version: 1)), into: &actions)
            recovery.receive(.written(2), into: &actions)
            for member: UInt64 in 1...2 {
                recovery.receive(
                    .lac(ReadLACReply(ledger: ledger, lac: .none, isFenced: true)), from: node(member), into: &actions)
            }
            func written(_ answer: EntryAnswer, by member: UInt64) -> [LogNodeID] {
                actions = []
                let reply = ReadReply(
                    ledger: ledger, first: entry(0), answers: [answer], lac: .none, isFenced: true)
                recovery.receive(.read(reply), from: node(member), into: &actions)
                return actions.compactMap { if case .send(.add, let node) = $0 { node } else { nil } }
            }
            #expect(written(.present([1]), by: 1) == [])
            #expect(written(answer, by: 2) == targets)
        }
    }
}
