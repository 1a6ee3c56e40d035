import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct LogOwnerTests {
    private typealias Action = LogOwner.Action

    private func ledger(_ id: UInt64) -> LedgerID { LedgerID(id) }

    private func owner(_ ids: [UInt64] = [1]) -> LogOwner {
        let list = try! LogMetadata(ledgers: ids.map(LedgerID.init), trimPoint: nil, attempt: 3)
        return LogOwner(attempt: 3, list: Versioned(list, version: 5), ledger: LedgerID(ids.last!))
    }

    private func run(_ owner: inout LogOwner, _ event: (inout LogOwner, inout [Action]) -> Void) -> [Action] {
        var actions: [Action] = []
        event(&owner, &actions)
        return actions
    }

    private func roll(_ owner: inout LogOwner, to id: UInt64, version: UInt64) {
        _ = run(&owner) { $0.roll(into: &$1) }
        _ = run(&owner) { $0.created(LedgerID(id), into: &$1) }
        _ = run(&owner) { $0.receive(.written(version), into: &$1) }
    }

    @Test func aNewLedgerIsInTheListBeforeItIsWritten() {
        var owner = owner()
        #expect(run(&owner) { $0.roll(into: &$1) } == [.createLedger])
        #expect(run(&owner) { $0.roll(into: &$1) } == [], "one roll at a time")
        let swap = run(&owner) { $0.created(LedgerID(2), into: &$1) }
        let list = try! owner.list.value.rolled(to: ledger(2))
        #expect(swap == [.metadata(.compareAndSwap(expected: 5, new: list))])
        #expect(owner.ledger == ledger(1))
        #expect(run(&owner) { $0.receive(.written(6), into: &$1) } == [.rolled(from: ledger(1), to: ledger(2))])
        #expect(owner.ledger == ledger(2) && !owner.isRolling)
    }

    @Test func noThirdLedgerComesWhileTheLastButOneIsOpen() {
        var owner = owner()
        roll(&owner, to: 2, version: 6)
        #expect(run(&owner) { $0.roll(into: &$1) } == [.createLedger])
        #expect(run(&owner) { $0.created(LedgerID(3), into: &$1) } == [], "ledger 1 is open")
        let swap = run(&owner) { $0.closed(LedgerID(1), into: &$1) }
        #expect(swap.count == 1)
        #expect(run(&owner) { $0.receive(.written(7), into: &$1) } == [.rolled(from: ledger(2), to: ledger(3))])
    }

    @Test func aSwapThatWasNotAnsweredIsLookedUp() {
        var owner = owner()
        _ = run(&owner) { $0.roll(into: &$1) }
        _ = run(&owner) { $0.created(LedgerID(2), into: &$1) }
        #expect(run(&owner) { $0.receive(.unavailable, into: &$1) } == [])
        #expect(run(&owner) { $0.retry(into: &$1) } == [.metadata(.get)])
        // It had taken place.
        let there = Versioned(try! owner.list.value.rolled(to: ledger(2)), version: 6)
        #expect(run(&owner) { $0.receive(.found(there), into: &$1) } == [.rolled(from: ledger(1), to: ledger(2))])
        // And one that had not.
        var other = self.owner()
        _ = run(&other) { $0.roll(into: &$1) }
        _ = run(&other) { $0.created(LedgerID(2), into: &$1) }
        _ = run(&other) { $0.receive(.conflict, into: &$1) }
        let again = run(&other) { $0.receive(.found(Versioned($0.list.value, version: 9)), into: &$1) }
        #expect(again == [.metadata(.compareAndSwap(expected: 9, new: try! other.list.value.rolled(to: ledger(2))))])
    }

    @Test func aNewerAttemptTakesTheLogAway() {
        var owner = owner()
        _ = run(&owner) { $0.roll(into: &$1) }
        _ = run(&owner) { $0.created(LedgerID(2), into: &$1) }
        _ = run(&owner) { $0.receive(.conflict, into: &$1) }
        let taken = try! owner.list.value.takenOver(by: 4, writing: ledger(3))
        #expect(
            run(&owner) { $0.receive(.found(Versioned(taken, version: 6)), into: &$1) }
                == [.lost(to: 4, unused: ledger(2))])
        #expect(run(&owner) { $0.roll(into: &$1) } == [])
        #expect(run(&owner) { $0.retry(into: &$1) } == [])
    }

    /// Otherwise every loss of a log in the middle of a roll would leave a ledger that nobody looks for.
    @Test func aLedgerThatComesToNothingIsGivenBack() {
        // Created after the log was lost.
        var late = owner()
        _ = run(&late) { $0.roll(into: &$1) }
        _ = run(&late) { $0.abandon(into: &$1) }
        #expect(run(&late) { $0.created(LedgerID(2), into: &$1) } == [.discard(ledger(2))])
        #expect(run(&late) { $0.abandon(into: &$1) } == [])
        // Created, and waiting for the one before to be closed, which fails.
        var waiting = owner()
        roll(&waiting, to: 2, version: 6)
        _ = run(&waiting) { $0.roll(into: &$1) }
        _ = run(&waiting) { $0.created(LedgerID(3), into: &$1) }
        #expect(run(&waiting) { $0.abandon(into: &$1) } == [.discard(ledger(3))])
        #expect(run(&waiting) { $0.closed(LedgerID(1), into: &$1) } == [])
        // On its way into the list: it may be there, so it is not given back before the answer says that it is not.
        var swapping = owner()
        _ = run(&swapping) { $0.roll(into: &$1) }
        _ = run(&swapping) { $0.created(LedgerID(2), into: &$1) }
        #expect(run(&swapping) { $0.abandon(into: &$1) } == [])
        _ = run(&swapping) { $0.receive(.conflict, into: &$1) }
        let taken = try! swapping.list.value.takenOver(by: 4, writing: ledger(3))
        #expect(
            run(&swapping) { $0.receive(.found(Versioned(taken, version: 6)), into: &$1) }
                == [.lost(to: 4, unused: ledger(2))])
    }

    @Test func whatIsTrimmedIsDeletedAfterTheListIsWithoutIt() {
        var owner = owner([1, 2, 3])
        let point = LogSequenceNumber(ledger: ledger(3), entry: EntryID(4))
        let swap = run(&owner) { $0.trim(to: point, into: &$1) }
        #expect(
            swap == [.metadata(.compareAndSwap(expected: 5, new: try! owner.list.value.trimmed(to: point).metadata))])
        #expect(
            run(&owner) { $0.receive(.written(6), into: &$1) }
                == [.trimmed(to: point, delete: [ledger(1), ledger(2)])])
        #expect(owner.list.value.ledgers == [ledger(3)])
        let earlier = LogSequenceNumber(ledger: ledger(3), entry: EntryID(1))
        #expect(run(&owner) { $0.trim(to: earlier, into: &$1) } == [], "the point does not move back")
    }

    @Test func aLedgerThatIsBeingClosedIsNotTrimmed() {
        var owner = owner()
        roll(&owner, to: 2, version: 6)
        let point = LogSequenceNumber(ledger: ledger(2), entry: EntryID(0))
        #expect(run(&owner) { $0.trim(to: point, into: &$1) } == [])
        #expect(run(&owner) { $0.closed(LedgerID(1), into: &$1) }.count == 1)
        #expect(
            run(&owner) { $0.receive(.written(7), into: &$1) } == [.trimmed(to: point, delete: [ledger(1)])])
    }

    @Test func aLedgerThatCouldNotBeCreatedIsAskedForAgain() {
        var owner = owner()
        _ = run(&owner) { $0.roll(into: &$1) }
        owner.creationFailed()
        #expect(run(&owner) { $0.retry(into: &$1) } == [.createLedger])
    }
}
