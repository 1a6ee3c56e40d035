// One run of `cistern example flights`: the built program, as a user would start it.

import CisternTestKit
import FlightsExample
import Foundation

struct FlightsRun: Sendable {
    /// The whole file in a release build; a slice in a debug build, where it would take minutes.
    static var flights: Int {
        #if DEBUG
            4_000
        #else
            336_776
        #endif
    }
    /// Where a part shows it as well.
    static var someFlights: Int { min(flights, 60_000) }
    static var checkpointEvery: Int {
        #if DEBUG
            500
        #else
            25_000
        #endif
    }

    let status: Int32
    let output: String
    /// The figures and lists of the JSON file.
    let numbers: [String: Int]
    let lists: [String: [Int]]
    /// Rows of each table, cells joined by tabs, sorted.
    let tables: [String: [String]]

    /// Runs the job on the first `flights` and reads its JSON.
    static func run(_ arguments: [String], flights: Int = flights) async throws -> FlightsRun {
        try await onOwnThread { try FlightsRun(arguments, flights: flights) }
    }

    private init(_ arguments: [String], flights: Int) throws {
        let json = FileManager.default.temporaryDirectory.appendingPathComponent("run-\(UUID().uuidString).json")
        defer { try? FileManager.default.removeItem(at: json) }
        let program = try Program.run(
            [
                "example", "flights", "--plain", "--flights", "\(flights)", "--checkpoint-every",
                "\(Self.checkpointEvery)", "--json", json.path,
            ] + arguments)
        status = program.status
        output = program.output
        guard status == 0 else {
            (numbers, lists, tables) = ([:], [:], [:])
            return
        }
        let parsed = try JSONSerialization.jsonObject(with: Data(contentsOf: json))
        guard let object = parsed as? [String: Any], let tables = object["tables"] as? [String: [String: Any]] else {
            throw EndToEndError("the JSON file has no tables")
        }
        numbers = object.compactMapValues { $0 as? Int }
        lists = object.compactMapValues { $0 as? [Int] }
        self.tables = tables.mapValues { table in
            let rows = table["rows"] as? [[Any]] ?? []
            return rows.map { $0.map(Self.text).joined(separator: "\t") }.sorted()
        }
    }

    private static func text(_ cell: Any) -> String {
        if let text = cell as? String { return text }
        if let number = cell as? Int { return String(number) }
        return ""
    }
}

/// The `cistern` program of this build.
enum Program {
    /// Runs it to its end; stdout and stderr together.
    static func run(_ arguments: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: CisternBinary.path)
        process.arguments = arguments
        process.currentDirectoryURL = Repository.root
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = try pipe.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }
}
