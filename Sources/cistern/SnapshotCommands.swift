// `cistern snapshots DIR` and `cistern scan DIR --snapshot H`: states of the past, offline.

internal import ArgumentParser
internal import CisternFileSystem
internal import CisternLSM
internal import CisternServer

struct SnapshotsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshots",
        abstract: "List the snapshots in a data directory that no server has open.",
        discussion: "Oldest first. Exit status 1: a record cannot be read.")

    @Argument(help: "A data directory.") var directory: String
    @Flag(help: "Print one JSON object.") var json = false

    func run() throws { try SnapshotsCommand.list(directory, json: json) }

    static func list(_ directory: String, json: Bool) throws {
        let report: SnapshotReport
        do throws(EngineError) {
            report = try SnapshotReport(directory, fileSystem: PosixFileSystem())
        } catch {
            throw ValidationError(sentence(error))
        }
        defer { report.close() }
        print(json ? report.json : report.text, terminator: "")
        if !report.faults.isEmpty { throw ExitCode(1) }
    }
}

struct ScanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scan",
        abstract: "Print the entries of a snapshot, one JSON object a line.",
        discussion: """
            Shows what was alive when the snapshot was taken, in key order. Keys and values are hexadecimal, as the client wrote \
            them; a key is shown without its key group and state. No server may have the directory open. Nothing is changed.
            """)

    @OptionGroup var options: ScanOptions

    func run() throws { try options.run(key: nil) }
}
