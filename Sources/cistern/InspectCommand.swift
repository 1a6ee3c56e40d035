// `cistern inspect FILE`: what is in a file that Cistern wrote, byte range by byte range, with every checksum checked.

internal import ArgumentParser
internal import CisternServer
internal import Foundation

struct InspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Print a file that Cistern wrote, byte range by byte range, and check it.",
        discussion: "Exit status 0: every checksum matches. 1: the file is damaged; the first damaged byte is named.")

    @Argument(help: "A file of a data directory.") var file: String
    @Flag(help: "Print one JSON object.") var json = false

    func run() throws {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw ValidationError("cannot read \(file): it is missing or not readable")
        }
        let report = FileInspection.inspect([UInt8](data), path: file)
        print(json ? report.json : report.text, terminator: "")
        if report.damage != nil { throw ExitCode(1) }
    }
}
