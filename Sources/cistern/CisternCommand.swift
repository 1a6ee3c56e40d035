// The one program: `cistern SUBCOMMAND`.

internal import ArgumentParser
internal import CisternServer

@main
struct CisternCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cistern",
        abstract: "Remote keyed state for stream processors.",
        version: "cistern \(ServerVersion.number)",
        subcommands: [
            ServeCommand.self,
            InspectCommand.self,
        ])
}
