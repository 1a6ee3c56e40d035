// `cistern example flights`, and the hidden command of its worker processes.

package import ArgumentParser
internal import Foundation

package struct FlightsCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "flights",
        abstract: "Run a streaming job on the 336,776 flights that left New York in 2013.",
        discussion: """
            Starts a state server and worker processes that keep their keyed state in it, kills a worker half-way, restores \
            the last checkpoint at another parallelism, finishes, and prints the result tables and a page of figures.
            """)

    @Option(help: "The flights file; found in Examples/flights of the checkout when not given.") var input: String?
    @Option(
        help: """
            Use a running server, HOST:PORT or unix:/PATH, or several of a replicated cluster with commas between them, instead of \
            starting one.
            """)
    var server: String?
    @Option(help: "Data directory of the started server; temporary when not given.") var data: String?
    @Option(help: "Worker processes.") var parallelism = 2
    @Flag(inversion: .prefixedNo, help: "Kill a worker half-way and restore the last checkpoint.") var killWorker = true
    @Option(help: "Workers after the restore; one more than before when not given.") var rescaleTo: Int?
    @Flag(help: "Kill the server after a quarter of the way and start it again.") var killServer = false
    @Option(help: "Records between two checkpoints.") var checkpointEvery = 25_000
    @Flag(help: "Ask the server again about every key that the key index says is absent.") var verify = false
    @Option(help: "Read only so many flights of the file.") var flights: Int?
    @Option(help: "Rows printed of each table.") var rows = 8
    @Option(help: "Write figures and the full tables to this file.") var json: String?
    @Flag(help: "Plain lines even on a terminal.") var plain = false

    package init() {}

    package func validate() throws {
        guard (1...keyGroupCount).contains(parallelism) else {
            throw ValidationError("--parallelism must be between 1 and \(keyGroupCount), the number of key groups")
        }
        if let rescaleTo, !(1...keyGroupCount).contains(rescaleTo) {
            throw ValidationError("--rescale-to must be between 1 and \(keyGroupCount), the number of key groups")
        }
        if rescaleTo != nil, !killWorker {
            throw ValidationError(
                "--rescale-to says how many workers follow the kill; it cannot go with --no-kill-worker")
        }
        if server != nil, killServer || data != nil {
            throw ValidationError("--kill-server and --data are about the started server; they cannot go with --server")
        }
        guard checkpointEvery >= 1, flights ?? 1 >= 1, rows >= 1 else {
            throw ValidationError("--checkpoint-every, --flights and --rows must be at least 1")
        }
    }

    package func run() async throws {
        let options = FlightsOptions(
            input: try input ?? FlightsFile.locate(), flightsMax: flights ?? .max, server: server, dataDirectory: data,
            parallelism: parallelism, rescaleTo: killWorker ? rescaleTo ?? min(parallelism + 1, keyGroupCount) : nil,
            killsServer: killServer, checkpointEvery: checkpointEvery, verifies: verify, isPlain: plain,
            executable: FlightsFile.thisProgram)
        let (summary, tables) = try await FlightsCoordinator(options: options).run()
        print("")
        for table in tables.summaries(rowsMax: rows) { print(table.text) }
        print(summary.text, terminator: "")
        if let json {
            try Data(summary.json(tables).utf8).write(to: URL(fileURLWithPath: json))
            print("\nwritten to \(json)")
        }
        guard summary.figures.verifyDisagreements == 0 else {
            throw FlightsError.protocolViolation("the key index called keys absent that the server has: state was lost")
        }
    }
}

package struct FlightsWorkerCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "flights-worker", abstract: "A worker process of the flights job.", shouldDisplay: false)

    package init() {}

    package func run() async throws {
        InterruptSignals.restoreDefaults()
        try await FlightsWorker(assignment: FlightsWorker.readAssignment()).run()
    }
}

enum FlightsFile {
    private static let place = "Examples/flights/flights.csv.zst"

    static var thisProgram: String {
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
    }

    /// The file of the checkout: upwards from the current directory, then from the program.
    static func locate() throws -> String {
        let starts = [FileManager.default.currentDirectoryPath, thisProgram]
        for start in starts {
            var directory = URL(fileURLWithPath: start).standardizedFileURL
            while directory.path != "/" {
                let candidate = directory.appendingPathComponent(place).path
                if FileManager.default.fileExists(atPath: candidate) { return candidate }
                directory.deleteLastPathComponent()
            }
        }
        throw FlightSourceError.cannotOpen(
            path: place, reason: "it is neither above the current directory nor above the program")
    }
}
