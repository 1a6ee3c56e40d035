// The one program: `cistern SUBCOMMAND`.

internal import ArgumentParser
internal import CisternDaemon
internal import CisternServer
internal import FlightsExample

@main
struct CisternCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cistern",
        abstract: "Remote keyed state for stream processors.",
        version: "cistern \(ServerVersion.number)",
        subcommands: [
            ServeCommand.self,
            LogNodeCommand.self,
            LedgerCommand.self,
            InspectCommand.self,
            VerifyCommand.self,
            SnapshotsCommand.self,
            ScanCommand.self,
            SnapshotCommand.self,
            StateCommand.self,
            UpgradeCommand.self,
            TokenCommand.self,
            DevClusterCommand.self,
            ExampleCommand.self,
        ])
}

struct ExampleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "example",
        abstract: "Run an example job.",
        subcommands: [FlightsCommand.self, FlightsWorkerCommand.self])
}
