import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct LedgerMetadataTests {
    let new = metadata((3, 3, 2), nodes(1, 2, 3))

    @Test func anEnsembleChangeAddsAFragmentOrRewritesTheLastOne() throws {
        let changed = try new.changingEnsemble(to: nodes(1, 4, 3), from: entry(5))
        #expect(changed.fragments.map(\.firstEntry) == [entry(0), entry(5)])
        let again = try changed.changingEnsemble(to: nodes(5, 4, 3), from: entry(5))
        #expect(again.fragments == [new.fragments[0], Fragment(firstEntry: entry(5), ensemble: nodes(5, 4, 3))])
        #expect(throws: LedgerMetadataError.fragmentBegins(entry(4), before: entry(5))) {
            try again.changingEnsemble(to: nodes(1, 2, 3), from: entry(4))
        }
        #expect(again.fragment(of: entry(4)).ensemble == nodes(1, 2, 3))
        #expect(again.nodes(of: entry(5)) == nodes(3, 5, 4))
    }

    @Test func onlyAnOpenLedgerIsItsWriters() throws {
        let recovered = try new.startingRecovery()
        #expect(throws: LedgerMetadataError.self) { try recovered.changingEnsemble(to: nodes(1, 2, 4), from: entry(0)) }
        #expect(throws: LedgerMetadataError.self) { try recovered.closing(at: entry(3)) }
        #expect(try recovered.startingRecovery() == recovered)
        let closed = try recovered.closingRecovery(at: entry(3), changes: [])
        #expect(closed.closedLastEntry == entry(3))
        #expect(throws: LedgerMetadataError.self) { try closed.startingRecovery() }
        #expect(throws: LedgerMetadataError.self) { try closed.closingRecovery(at: entry(4), changes: []) }
    }

    @Test func noCloseCutsOffAnEarlierFragment() throws {
        let changed = try new.changingEnsemble(to: nodes(1, 4, 3), from: entry(5))
        #expect(throws: LedgerMetadataError.lastEntry(entry(3), lastFragment: entry(5))) {
            try changed.closing(at: entry(3))
        }
        #expect(try changed.closing(at: entry(4)).lastEntry(ofFragment: 1) == entry(4))
    }

    @Test func repairSwapsNodesOnlyWhereNoAddCanCome() throws {
        let changed = try new.changingEnsemble(to: nodes(1, 4, 3), from: entry(5))
        let repaired = try changed.replacing(node(2), with: node(9), inFragment: 0)
        #expect(repaired.fragments[0].ensemble == nodes(1, 9, 3))
        #expect(throws: LedgerMetadataError.fragmentIsWritable(1)) {
            try changed.replacing(node(4), with: node(9), inFragment: 1)
        }
        #expect(throws: LedgerMetadataError.ensemble(nodes(1, 1, 3))) {
            try changed.replacing(node(2), with: node(1), inFragment: 0)
        }
        _ = try changed.closing(at: entry(8)).replacing(node(4), with: node(9), inFragment: 1)
    }

    @Test func storedShapesAreChecked() throws {
        let sizes = new.sizes
        let fragment = Fragment(firstEntry: entry(0), ensemble: nodes(1, 2, 3))
        #expect(throws: LedgerMetadataError.self) { try LedgerMetadata(sizes: sizes, fragments: [], state: .open) }
        #expect(throws: LedgerMetadataError.self) {
            try LedgerMetadata(sizes: sizes, fragments: [fragment, fragment], state: .open)
        }
        #expect(throws: LedgerMetadataError.self) {
            try LedgerMetadata(
                sizes: sizes, fragments: [Fragment(firstEntry: entry(0), ensemble: nodes(1, 2, 2))], state: .open)
        }
        #expect(try LedgerMetadata(sizes: sizes, fragments: [fragment], state: .open) == new)
    }

    @Test func aLogsListOnlyGrowsAtItsEndAndIsTrimmedAtItsFront() throws {
        var log = try LogMetadata().takenOver(by: 1, writing: LedgerID(3))
        log = try log.rolled(to: LedgerID(5)).rolled(to: LedgerID(6))
        #expect(throws: LogMetadataError.ledger(LedgerID(6), last: LedgerID(6))) { try log.rolled(to: LedgerID(6)) }
        #expect(throws: LogMetadataError.attempt(1, owner: 1)) { try log.takenOver(by: 1, writing: LedgerID(7)) }
        let trimmed = try log.trimmed(to: LogSequenceNumber(ledger: LedgerID(5), entry: entry(2)))
        #expect(trimmed.removed == [LedgerID(3)])
        #expect(trimmed.metadata.ledgers == [LedgerID(5), LedgerID(6)])
        #expect(throws: LogMetadataError.self) {
            try trimmed.metadata.trimmed(to: LogSequenceNumber(ledger: LedgerID(5), entry: entry(1)))
        }
        let all = try log.trimmed(to: LogSequenceNumber(ledger: LedgerID(9), entry: entry(0)))
        #expect(all.metadata.ledgers == [LedgerID(6)], "the last ledger stays: it is written to")
    }
}
