// The flights job's tables as sqlite3 computes them from the CSV: Examples/flights/truth.sql, run once for all tests.

import FlightsExample
import Foundation

struct FlightsTruth: Sendable {
    /// Rows of each table, cells joined by tabs, sorted.
    let tables: [String: [String]]

    /// Of the flights that the tests read.
    static let shared = Task { try await onOwnThread { try FlightsTruth(flightsMax: FlightsRun.flights) } }

    private init(flightsMax: Int) throws {
        let examples = Repository.root.appendingPathComponent("Examples/flights")
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("truth-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let csv = try Self.unpack(examples.appendingPathComponent("flights.csv.zst").path, lines: flightsMax + 1)
        try Data(csv).write(to: directory.appendingPathComponent("flights.csv"))

        let sqlite = Process()
        sqlite.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        sqlite.arguments = ["sqlite3"]
        sqlite.currentDirectoryURL = directory
        sqlite.standardInput = try FileHandle(forReadingFrom: examples.appendingPathComponent("truth.sql"))
        try sqlite.run()
        sqlite.waitUntilExit()
        guard sqlite.terminationStatus == 0 else {
            throw EndToEndError("sqlite3 failed on truth.sql with status \(sqlite.terminationStatus); is it installed?")
        }
        var tables: [String: [String]] = [:]
        for table in TableSchema.all {
            let text = try String(contentsOf: directory.appendingPathComponent("\(table.name).tsv"), encoding: .utf8)
            tables[table.name] = text.split(separator: "\n").map(String.init).sorted()
        }
        self.tables = tables
    }

    /// The first `lines` lines of a compressed file.
    private static func unpack(_ path: String, lines: Int) throws -> [UInt8] {
        var file = try ZstdFile(path: path)
        var bytes: [UInt8] = []
        while try file.read(upTo: 1 << 20, into: &bytes) {}
        var seen = 0
        let end = bytes.firstIndex { byte in
            if byte == UInt8(ascii: "\n") { seen += 1 }
            return seen == lines
        }
        return end.map { Array(bytes[...$0]) } ?? bytes
    }
}

/// Runs what waits for a process on a thread of its own: the pool that all tests share has one thread a core, and a test
/// that blocks one of them stops the others' clocks.
func onOwnThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
    }
}

enum Repository {
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
}

struct EndToEndError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
