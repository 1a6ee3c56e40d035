// `cistern upgrade DIR`: lets a data directory take what this program writes and older ones cannot read.

internal import ArgumentParser
internal import CisternFileSystem
internal import CisternLSM

struct UpgradeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "upgrade",
        abstract: "Raise a data directory to the newest format.",
        discussion: """
            A program goes on writing the format that a directory has, so that the program before it can take over again. After \
            this, older programs refuse the directory. No server may have it open. Nothing is rewritten at once.
            """)

    @Argument(help: "The data directory.") var directory: String

    func run() throws {
        do throws(EngineError) {
            let (from, to) = try DirectoryUpgrade.run(directory, fileSystem: PosixFileSystem())
            print(from == to ? "\(directory) has format \(to) already" : "\(directory): format \(from) → \(to)")
        } catch {
            switch error {
            case .file(let failure): throw ValidationError("\(failure)")
            case .unsupported(let detail): throw ValidationError(detail)
            default: throw ValidationError("\(error)")
            }
        }
    }
}
