// The changelog service in real processes, with faults of every kind, and its history checked.

import CisternChangelog
import CisternLogProtocol
import CisternMetadata
import CisternPrimitives
import CisternTestKit
import Foundation
import NIOPosix
import Synchronization
import Testing

@Suite(
    .serialized, .timeLimit(.minutes(10)),
    .enabled(if: EtcdProcess.program != nil, "etcd is not in PATH: install etcd-server"))
struct LogHistoryTests {
    @Test func nothingThatWasAcknowledgedIsLostThroughKillsStopsCutsAndFullDisks() async throws {
        for seed in Seeds.seeds(count: 2) {
            Seeds.announce("nothingThatWasAcknowledgedIsLost", seed)
            try await LogNodeCluster.with(0) { cluster in
                try await LogFaultRun(cluster, seed: seed).run()
            }
        }
    }

    // MARK: The checker itself

    private func place(_ ledger: UInt64, _ entry: Int64) -> LogSequenceNumber {
        LogSequenceNumber(ledger: LedgerID(ledger), entry: EntryID(entry))
    }

    private func entry(_ ledger: UInt64, _ number: Int64, _ entry: HistoryEntry) -> LogEntry {
        LogEntry(place: place(ledger, number), body: entry.body)
    }

    /// Two entries of attempt 1 and one of attempt 2, all acknowledged.
    private var good: (history: LogHistory, found: [LogEntry]) {
        let (a, b, c) = (
            HistoryEntry(attempt: 1, number: 0), HistoryEntry(attempt: 1, number: 1),
            HistoryEntry(attempt: 2, number: 0)
        )
        var history = LogHistory()
        history.events = [
            .takeoverBegan(1), .takenOver(1, trimPoint: nil, []), .appending(a), .appended(a, place(1, 0)),
            .appending(b),
            .appended(b, place(1, 1)), .acknowledged(b), .takeoverBegan(2),
            .takenOver(2, trimPoint: nil, [entry(1, 0, a), entry(1, 1, b)]), .appending(c), .appended(c, place(2, 0)),
            .acknowledged(c),
        ]
        return (history, [entry(1, 0, a), entry(1, 1, b), entry(2, 0, c)])
    }

    @Test func theCheckerTakesAHistoryThatIsRight() {
        #expect(good.history.violations(found: good.found, trimPoint: nil) == [])
    }

    @Test func theCheckerFindsEachWayToBeWrong() {
        func expect(
            _ word: String, sourceLocation: SourceLocation = #_sourceLocation,
            _ change: (inout LogHistory, inout [LogEntry]) -> LogSequenceNumber?
        ) {
            var (history, found) = good
            let trimPoint = change(&history, &found)
            let problems = history.violations(found: found, trimPoint: trimPoint)
            #expect(
                problems.contains { $0.contains(word) }, "\(word): \(problems)", sourceLocation: sourceLocation)
        }
        expect("nothing is there in the end") { _, found in
            found.removeLast()
            return nil
        }
        expect("in the end it is 2/0") { _, found in
            found[1] = LogEntry(place: found[1].place, body: found[2].body)
            return nil
        }
        expect("is there twice") { _, found in
            found.append(LogEntry(place: place(2, 1), body: found[2].body))
            return nil
        }
        expect("comes behind") { _, found in
            found.swapAt(0, 1)
            return nil
        }
        expect("bytes that nobody appended") { _, found in
            found[0] = LogEntry(place: found[0].place, body: Array(found[0].body.dropLast()))
            return nil
        }
        expect("was never appended") { _, found in
            found.append(entry(2, 1, HistoryEntry(attempt: 2, number: 7)))
            return nil
        }
        expect("did not find it there") { history, _ in
            history.events[8] = .takenOver(2, trimPoint: nil, [])
            return nil
        }
        expect("and in the end it is not there") { history, found in
            let lost = HistoryEntry(attempt: 1, number: 2)
            history.events.insert(.appending(lost), at: 7)
            history.events[9] = .takenOver(2, trimPoint: nil, Array(found[..<2]) + [entry(1, 2, lost)])
            return nil
        }
        expect("after attempt 2 had the log") { history, found in
            let late = HistoryEntry(attempt: 1, number: 2)
            history.events += [.appending(late), .appended(late, place(1, 2)), .acknowledged(late)]
            found.insert(entry(1, 2, late), at: 2)
            return nil
        }
        expect("is there without the one before it") { history, found in
            // Neither was acknowledged.
            let (lost, late) = (HistoryEntry(attempt: 2, number: 1), HistoryEntry(attempt: 2, number: 2))
            history.events += [.appending(lost), .appending(late)]
            found.append(entry(2, 1, late))
            return nil
        }
        expect("was never told a place") { history, _ in
            let silent = HistoryEntry(attempt: 2, number: 1)
            history.events += [.appending(silent), .acknowledged(silent)]
            return nil
        }
        expect("where nobody cut it") { _, found in
            found.removeFirst()
            return place(1, 1)
        }
        expect("attempt 2 found: begins at") { history, found in
            history.events[8] = .takenOver(2, trimPoint: place(1, 1), [found[1]])
            return nil
        }
        expect("where it began already") { history, found in
            history.events.insert(.truncating(1, to: place(1, 1)), at: 7)
            history.events[9] = .takenOver(2, trimPoint: place(1, 1), [found[1]])
            return nil
        }
    }
}
