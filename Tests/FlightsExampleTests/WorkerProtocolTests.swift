// The lines between coordinator and worker.

import FlightsExample
import Testing

@Suite struct WorkerProtocolTests {
    @Test func everyReportComesBackFromItsLine() {
        var figures = WorkerFigures()
        figures.writeOperations = 12
        figures.absentReads = 7
        let reports: [WorkerReport] = [
            .ready(restoreMicroseconds: 1234),
            .progress(offset: 25_000),
            .checkpoint(
                number: 3, offset: 75_000, microseconds: 900, handles: ["one": "one/3/0-63-x", "two": "two/3"]),
            .checkpoint(number: 3, offset: 75_000, microseconds: 900, handles: [:]),
            .figures(figures),
            .row(table: "aircraft", cells: ["N1", "", "-3"]),
            .row(table: "visits", cells: [""]),
            .done,
        ]
        for report in reports {
            #expect(!report.line.contains("\n"))
            #expect(WorkerReport(line: report.line) == report)
        }
    }

    @Test(arguments: [
        "", "hello", "progress", "progress\tx", "checkpoint\t1\t2", "checkpoint\t1\t2\t3\tstore", "figures\t{",
        "done\t1",
        "ready\t", "row\ttable",
    ])
    func aLineThatIsNoReportIsRefused(line: String) {
        #expect(WorkerReport(line: line) == nil)
    }

    @Test func sizesAreOfTheLastAttemptAndCountersOfAll() {
        var sum = WorkerFigures()
        var one = WorkerFigures()
        one.writeOperations = 10
        one.keyIndexKeys = 5
        sum.add(one, isLastAttempt: false)
        sum.add(one, isLastAttempt: true)
        #expect(sum.writeOperations == 20)
        #expect(sum.keyIndexKeys == 5)
    }
}
