// `cistern verify PATH`: a data directory, or one file of it, checked offline.

internal import ArgumentParser
internal import CisternFileSystem
internal import CisternLSM
internal import CisternServer

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check a data directory that no server has open, or one file.",
        discussion: """
            Reads every manifest, snapshot record and log, and checks that what they refer to is there and is what they say. With \
            --deep every block and entry of every table, too. A single file is always read to its end. Nothing is changed.

            Exit status 0: sound. 1: damaged; every fault is named with file and byte.
            """)

    @Argument(help: "A data directory, or a file of one.") var path: String
    @Flag(help: "Read every block and entry of every table.") var deep = false
    @Flag(help: "Print one JSON object.") var json = false

    func run() throws {
        let fileSystem = PosixFileSystem()
        let isSound: Bool
        do throws(EngineError) {
            if isDirectory(fileSystem) {
                let report = try DirectoryReport.run(path, deep: deep, fileSystem: fileSystem)
                print(json ? report.json : report.text, terminator: "")
                isSound = report.isSound
            } else {
                let report = try FileInspection.inspect(path, fileSystem: fileSystem)
                print(json ? report.json : report.text, terminator: "")
                isSound = report.damage == nil
            }
        } catch {
            throw ValidationError(sentence(error))
        }
        if !isSound { throw ExitCode(1) }
    }

    private func isDirectory(_ fileSystem: PosixFileSystem) -> Bool {
        do throws(FileError) {
            _ = try fileSystem.list(path)
            return true
        } catch { return false }
    }
}

/// An error for whoever typed the command.
func sentence(_ error: EngineError) -> String {
    switch error {
    case .file(let failure): "\(failure)"
    case .unsupported(let detail), .invalidEntry(let detail), .logLost(let detail): detail
    case .corruption(let damage): "\(damage)"
    default: "\(error)"
    }
}
