// What the coordinator and its worker processes say to each other.
//
// Down, once, on the worker's stdin: the assignment, one line of JSON. The coordinator then keeps the pipe open; when it
// closes, the coordinator is gone and the worker ends. Up, on the worker's stdout: one report a line, fields separated by
// tabs (no value that is reported contains a tab or a newline).
//
//     ready       restore-µs
//     progress    offset
//     checkpoint  number  offset  µs  store  handle  store  handle
//     figures     JSON of `WorkerFigures`
//     row         table  cell  cell …
//     done

internal import Foundation

package struct WorkerAssignment: Codable, Equatable, Sendable {
    package var server: String
    package var input: String
    package var flightsMax: Int
    package var worker: Int
    package var parallelism: Int
    package var epoch: UInt64
    package var checkpointEvery: Int
    package var verifies: Bool
    /// Deliveries that the restored state has already seen.
    package var offset: Int
    /// Snapshot handles by store; empty to start with empty state.
    package var restoring: [String: [String]]

    package init(
        server: String, input: String, flightsMax: Int, worker: Int, parallelism: Int, epoch: UInt64,
        checkpointEvery: Int, verifies: Bool, offset: Int, restoring: [String: [String]]
    ) {
        self.server = server
        self.input = input
        self.flightsMax = flightsMax
        self.worker = worker
        self.parallelism = parallelism
        self.epoch = epoch
        self.checkpointEvery = checkpointEvery
        self.verifies = verifies
        self.offset = offset
        self.restoring = restoring
    }
}

extension WorkerAssignment {
    /// One line.
    func json() throws -> String { String(decoding: try JSONEncoder().encode(self), as: UTF8.self) }
}

package enum WorkerReport: Equatable, Sendable {
    case ready(restoreMicroseconds: Int)
    case progress(offset: Int)
    case checkpoint(number: Int, offset: Int, microseconds: Int, handles: [String: String])
    case figures(WorkerFigures)
    case row(table: String, cells: [String])
    case done

    package var line: String {
        switch self {
        case .ready(let microseconds): return "ready\t\(microseconds)"
        case .progress(let offset): return "progress\t\(offset)"
        case .checkpoint(let number, let offset, let microseconds, let handles):
            let parts = handles.sorted { $0.key < $1.key }.flatMap { [$0.key, $0.value] }
            return (["checkpoint", "\(number)", "\(offset)", "\(microseconds)"] + parts).joined(separator: "\t")
        case .figures(let figures): return "figures\t\(figures.json)"
        case .row(let table, let cells): return "row\t\(table)\t" + cells.joined(separator: "\t")
        case .done: return "done"
        }
    }

    /// Nil when the line is not a report.
    package init?(line: String) {
        let fields = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
        switch (fields[0], fields.count) {
        case ("row", 3...):
            self = .row(table: fields[1], cells: Array(fields[2...]))
        case ("progress", 2):
            guard let offset = Int(fields[1]) else { return nil }
            self = .progress(offset: offset)
        case ("ready", 2):
            guard let microseconds = Int(fields[1]) else { return nil }
            self = .ready(restoreMicroseconds: microseconds)
        case ("checkpoint", 4...):
            guard let number = Int(fields[1]), let offset = Int(fields[2]), let microseconds = Int(fields[3]),
                fields.count.isMultiple(of: 2)
            else { return nil }
            var handles: [String: String] = [:]
            for index in stride(from: 4, to: fields.count, by: 2) { handles[fields[index]] = fields[index + 1] }
            self = .checkpoint(number: number, offset: offset, microseconds: microseconds, handles: handles)
        case ("figures", 2):
            guard let figures = WorkerFigures(json: fields[1]) else { return nil }
            self = .figures(figures)
        case ("done", 1):
            self = .done
        default:
            return nil
        }
    }
}
