import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct LogNodeTests {
    @Test func anAddIsAnsweredWhenItIsDurable() {
        var node = TestNode()
        node.holdsSyncs = true
        #expect(node.add(0) == .none)
        #expect(node.read(0)?.answers == [.absent])
        node.sync()
        #expect(node.read(0)?.answers == [.present([1])])
        #expect(node.replies.values.contains(.add(AddReply(ledger: ledger, entry: entry(0), refusal: nil))))
    }

    @Test func aFenceIsAnsweredAfterTheAddsThatCameBeforeIt() {
        var node = TestNode()
        node.holdsSyncs = true
        #expect(node.add(0) == .none)
        #expect(node.read(0, fence: true) == nil)
        #expect(node.add(1) == .some(.fenced), "a fence holds from the moment it is accepted")
        node.sync()
        let reads = node.replies.values.compactMap { reply in if case .read(let read) = reply { read } else { nil } }
        #expect(reads.map(\.answers) == [[.present([1])]])
        #expect(reads.map(\.isFenced) == [true])
    }

    @Test func aFenceSurvivesARestartOfANodeThatNeverSawTheLedger() {
        var node = TestNode()
        #expect(node.lac(fence: true)?.isFenced == true)
        node.restart()
        #expect(node.add(0) == .some(.fenced))
        #expect(node.add(0, recovery: true) == .some(nil))
    }

    @Test func aFenceThatIsNotDurableIsGoneAfterACrash() {
        var node = TestNode()
        node.holdsSyncs = true
        #expect(node.lac(fence: true) == nil, "so it was not answered")
        node.restart()
        node.holdsSyncs = false
        #expect(node.add(0) == .some(nil))
    }

    @Test func theFirstValueOfAnEntryStays() {
        var node = TestNode()
        #expect(node.add(0, [1]) == .some(nil))
        #expect(node.add(0, [1]) == .some(nil))
        #expect(node.add(0, [2]) == .some(.conflict))
        #expect(node.read(0)?.answers == [.present([1])])
        #expect(node.journal.count == 1)
    }

    @Test func theSameAddTwiceIsAnsweredTwiceWhenTheFirstIsDurable() {
        var node = TestNode()
        node.holdsSyncs = true
        _ = node.add(0)
        _ = node.add(0)
        #expect(node.replies.isEmpty)
        node.sync()
        #expect(node.replies.count == 2)
    }

    @Test func theLastAddConfirmedOnlyRises() {
        var node = TestNode()
        _ = node.add(0, lac: -1)
        _ = node.add(5, lac: 4)
        _ = node.add(1, lac: 0)
        #expect(node.lac()?.lac == entry(4))
        node.run { $0.receive(.writeLAC(ledger, lac: entry(5)), token: 1, into: &$1) }
        node.run { $0.receive(.writeLAC(ledger, lac: entry(2)), token: 2, into: &$1) }
        node.restart()
        #expect(node.lac()?.lac == entry(5))
    }

    @Test func whoWaitsForNewsGetsIt() {
        var node = TestNode()
        _ = node.add(0)
        let wait = NodeRequest.readLAC(ReadLACRequest(ledger: ledger, fence: false, newerThan: entry(-1)))
        node.run { $0.receive(wait, token: 77, into: &$1) }
        node.run { $0.receive(wait, token: 78, into: &$1) }
        node.run { $0.stopWaiting(78, ledger: ledger, into: &$1) }
        #expect(node.replies[77] == nil)
        #expect(node.replies[78] == .lac(ReadLACReply(ledger: ledger, lac: .none, isFenced: false)))
        _ = node.add(1, lac: 0)
        #expect(node.replies[77] == .lac(ReadLACReply(ledger: ledger, lac: entry(0), isFenced: false)))
    }

    @Test func whoWaitsForNewsIsToldOfTheFenceWhenItIsDurable() {
        var node = TestNode()
        _ = node.add(0)
        let wait = NodeRequest.readLAC(ReadLACRequest(ledger: ledger, fence: false, newerThan: entry(0)))
        node.run { $0.receive(wait, token: 77, into: &$1) }
        node.holdsSyncs = true
        node.run { $0.receive(.readLAC(ReadLACRequest(ledger: ledger, fence: true)), token: 78, into: &$1) }
        // One that comes while the fence is on its way to the disk.
        node.run { $0.receive(wait, token: 79, into: &$1) }
        #expect(node.replies[77] == nil && node.replies[78] == nil && node.replies[79] == nil)
        node.sync()
        let fenced = NodeReply.lac(ReadLACReply(ledger: ledger, lac: .none, isFenced: true))
        #expect(node.replies[77] == fenced && node.replies[78] == fenced && node.replies[79] == fenced)
    }

    @Test func whoWaitsForNewsIsToldThatTheLedgerIsDeleted() {
        var node = TestNode()
        _ = node.add(0)
        let wait = NodeRequest.readLAC(ReadLACRequest(ledger: ledger, fence: false, newerThan: entry(0)))
        node.run { $0.receive(wait, token: 77, into: &$1) }
        for _ in 0..<2 { node.run { $0.ledgerChecked(ledger, exists: false, into: &$1) } }
        #expect(
            node.replies[77] == .lac(ReadLACReply(ledger: ledger, lac: .none, isFenced: false, refusal: .deleted)))
    }

    @Test func damageMeansLimboUntilTheLedgerIsRepaired() {
        var node = TestNode()
        _ = node.add(0)
        node.restart(verified: false, highestLedger: ledger)
        #expect(node.read(0, count: 2)?.answers == [.present([1]), .unknown])
        #expect(node.add(1) == .some(.limbo))
        #expect(node.add(1, recovery: true) == .some(nil))
        node.restart()
        #expect(node.read(2)?.answers == [.unknown], "limbo survives a restart")
        node.run { $0.ledgerRepaired(ledger, incarnation: 3, into: &$1) }
        #expect(node.read(2)?.answers == [.absent])
        node.restart()
        #expect(node.read(2)?.answers == [.absent])
    }

    @Test func aRepairedLedgerIsFencedWhateverWasLost() {
        var node = TestNode()
        _ = node.lac(fence: true)
        node.journal = []
        node.durable = 0
        node.restart(verified: false, highestLedger: ledger)
        #expect(node.add(0) == .some(.limbo))
        node.run { $0.ledgerRepaired(ledger, incarnation: 2, into: &$1) }
        #expect(node.add(0) == .some(.fenced))
        node.restart()
        #expect(node.add(0) == .some(.fenced))
        #expect(node.lac()?.isFenced == true)
    }

    @Test func repairsOfBeforeARestartDoNotEndALimbo() {
        var node = TestNode()
        node.restart(verified: false, highestLedger: ledger)
        node.restart(verified: false, highestLedger: ledger)
        node.run { $0.ledgerRepaired(ledger, incarnation: 2, into: &$1) }
        #expect(node.machine.isInLimbo(ledger))
        #expect(node.read(0)?.answers == [.unknown])
        node.run { $0.ledgerRepaired(ledger, incarnation: 3, into: &$1) }
        #expect(node.read(0)?.answers == [.absent])
    }

    @Test func whatTheDiskDoesNotGiveBackIsUnknownUntilItIsStoredAgain() {
        var node = TestNode()
        for id in 0..<3 { _ = node.add(Int64(id), [UInt8(id)]) }
        node.machine.entriesDamaged(ledger, [entry(1), entry(7)])
        #expect(node.read(0, count: 4)?.answers == [.present([0]), .unknown, .present([2]), .absent])
        #expect(node.machine.damagedEntries(of: ledger).runs == [1...1])
        #expect(node.add(1, [1], recovery: true) == .some(nil))
        #expect(node.read(0, count: 3)?.answers == [.present([0]), .present([1]), .present([2])])
        #expect(node.machine.damagedEntries(of: ledger).isEmpty)
    }

    @Test func nothingIsAnsweredBeforeTheLimboIsDurable() {
        var node = TestNode()
        node.holdsSyncs = true
        node.restart(verified: false, highestLedger: ledger)
        #expect(node.read(0)?.refusal == .unavailable)
        #expect(node.add(0) == .some(.unavailable))
        node.sync()
        #expect(node.read(0)?.answers == [.unknown])
    }

    @Test func aReadThatFailsIsUnknown() {
        var node = TestNode()
        _ = node.add(0)
        node.failsReads = true
        #expect(node.read(0, count: 2)?.answers == [.unknown, .absent])
    }

    @Test func aLedgerIsDeletedWhenMetadataMissesItTwice() {
        var node = TestNode()
        _ = node.add(0)
        node.run { $0.receive(.delete(ledger), token: 1, into: &$1) }
        #expect(node.checks == [ledger], "a hint is not believed")
        node.run { $0.ledgerChecked(ledger, exists: nil, into: &$1) }
        #expect(node.add(1) == .some(nil))
        node.run { $0.ledgerChecked(ledger, exists: false, into: &$1) }
        #expect(node.add(2) == .some(.deleted))
        node.run { $0.ledgerChecked(ledger, exists: true, into: &$1) }
        #expect(node.add(2) == .some(nil))
        node.run { $0.ledgerChecked(ledger, exists: false, into: &$1) }
        node.run { $0.ledgerChecked(ledger, exists: false, into: &$1) }
        #expect(node.discarded == [ledger])
        node.restart()
        #expect(node.add(3) == .some(.deleted))
        #expect(node.add(3, recovery: true) == .some(.deleted))
        #expect(node.read(0)?.refusal == .deleted)
        #expect(node.lac(fence: true)?.refusal == .deleted)
    }

    @Test func whenTheJournalFailsNothingIsPromisedAndReadsGoOn() {
        var node = TestNode()
        _ = node.add(0)
        node.holdsSyncs = true
        _ = node.add(1)
        node.run { $0.journalFailed(into: &$1) }
        #expect(node.replies.values.contains(.add(AddReply(ledger: ledger, entry: entry(1), refusal: .unavailable))))
        #expect(node.add(2) == .some(.unavailable))
        #expect(node.lac(fence: true)?.refusal == .unavailable)
        #expect(node.read(0, count: 2)?.answers == [.present([1]), .absent])
    }

    @Test func aFullNodeRefusesWritersOnly() {
        var node = TestNode()
        node.machine.setReadOnly(true)
        #expect(node.add(0) == .some(.readOnly))
        #expect(node.add(0, recovery: true) == .some(nil))
        #expect(node.lac(fence: true)?.isFenced == true)
        node.machine.setReadOnly(false)
        #expect(node.add(1) == .some(.fenced))
    }

    @Test func segmentsGoWhenTheyAreBehindTheMarkAndEmpty() {
        var trim = JournalTrim(stores: 2, mark: 0)
        trim.sealed(segment: 0, ledgers: [ledger])
        trim.sealed(segment: 1, ledgers: [])
        trim.sealed(segment: 2, ledgers: [])
        #expect(trim.checkpointed(store: 0, before: 3) == nil, "the other store has nothing yet")
        #expect(trim.takeRemovable() == [])
        #expect(trim.checkpointed(store: 1, before: 2) == 2)
        #expect(trim.takeRemovable() == [1])
        #expect(trim.checkpointed(store: 1, before: 1) == nil, "a checkpoint that ends late moves nothing back")
        #expect(trim.mark == 2)
        trim.deleted(ledger)
        #expect(trim.takeRemovable() == [0])
        #expect(trim.checkpointed(store: 1, before: 9) == 3)
        #expect(trim.takeRemovable() == [2])
    }
}
