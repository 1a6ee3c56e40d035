// When a checkpoint counts, and which snapshots may go.

import FlightsExample
import Testing

@Suite struct CheckpointLedgerTests {
    @Test func aCheckpointIsCompleteWhenAllWorkersReportedIt() {
        var ledger = CheckpointLedger(parallelism: 2)
        #expect(ledger.report(worker: 0, number: 1, offset: 100, handles: ["a": "a1/0"]) == nil)
        #expect(ledger.latest == nil)
        // The same worker again does not stand for the other.
        #expect(ledger.report(worker: 0, number: 1, offset: 100, handles: ["a": "a1/0"]) == nil)
        #expect(ledger.report(worker: 1, number: 1, offset: 100, handles: ["a": "a1/1"]) == [:])
        #expect(ledger.latest?.number == 1)
        #expect(ledger.latest?.offset == 100)
        #expect(ledger.latest?.handles == ["a": ["a1/0", "a1/1"]])
        #expect(ledger.completedCount == 1)
    }

    @Test func aCompleteCheckpointSubsumesTheOlderOne() {
        var ledger = CheckpointLedger(parallelism: 1)
        _ = ledger.report(worker: 0, number: 1, offset: 100, handles: ["a": "a1", "b": "b1"])
        let superfluous = ledger.report(worker: 0, number: 2, offset: 200, handles: ["a": "a2", "b": "b2"])
        #expect(superfluous == ["a": ["a1"], "b": ["b1"]])
        #expect(ledger.latest?.number == 2)
    }

    @Test func aFastWorkersLaterPartsAreKeptWhileTheSlowOneCatchesUp() {
        var ledger = CheckpointLedger(parallelism: 2)
        #expect(ledger.report(worker: 0, number: 1, offset: 100, handles: ["a": "a1/0"]) == nil)
        #expect(ledger.report(worker: 0, number: 2, offset: 200, handles: ["a": "a2/0"]) == nil)
        #expect(ledger.report(worker: 1, number: 1, offset: 100, handles: ["a": "a1/1"]) == [:])
        #expect(ledger.latest?.number == 1)
        #expect(
            ledger.report(worker: 1, number: 2, offset: 200, handles: ["a": "a2/1"]) == ["a": ["a1/0", "a1/1"]])
        #expect(ledger.latest?.handles == ["a": ["a2/0", "a2/1"]])
    }

    @Test func aRestartForgetsWhatTheAttemptDidNotComplete() {
        var ledger = CheckpointLedger(parallelism: 2)
        _ = ledger.report(worker: 0, number: 1, offset: 100, handles: ["a": "a1/0"])
        _ = ledger.report(worker: 1, number: 1, offset: 100, handles: ["a": "a1/1"])
        _ = ledger.report(worker: 1, number: 2, offset: 200, handles: ["a": "a2/1"])
        ledger.restart(parallelism: 3)
        #expect(ledger.latest?.number == 1)
        // The next attempt needs three parts, and the ended one's do not count.
        #expect(ledger.report(worker: 0, number: 2, offset: 200, handles: ["a": "b2/0"]) == nil)
        #expect(ledger.report(worker: 1, number: 2, offset: 200, handles: ["a": "b2/1"]) == nil)
        #expect(
            ledger.report(worker: 2, number: 2, offset: 200, handles: ["a": "b2/2"]) == ["a": ["a1/0", "a1/1"]])
        #expect(ledger.completedCount == 2)
    }
}
