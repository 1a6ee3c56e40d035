// `cistern ledger`: what is left of log nodes that are gone.

internal import ArgumentParser
internal import CisternLogServer

struct LedgerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ledger",
        abstract: "Have ledgers of a lost log node repaired, and see what is being repaired.",
        subcommands: [LedgerRepairCommand.self, LedgerRepairsCommand.self])
}

/// Where the metadata of the log nodes is.
struct LedgerMetadataFlags: ParsableArguments {
    @Option(help: "A member of the etcd cluster with the metadata, HOST:PORT; may be given several times.")
    var etcd: [String] = []
    @Option(help: "Which cluster in etcd.") var cluster: String?
    @Option(help: "PEM file of who may sign etcd's certificates; then etcd is spoken to over TLS.")
    var etcdAuthorities: String?
    @Option(help: "PEM file of the certificate that is shown to etcd.") var etcdCertificate: String?
    @Option(help: "PEM file of its private key.") var etcdKey: String?

    func tool() throws -> RepairTool {
        var settings = RepairToolSettings()
        settings.etcd = etcd
        settings.cluster = cluster ?? settings.cluster
        settings.etcdAuthorities = etcdAuthorities ?? ""
        settings.etcdCertificate = etcdCertificate ?? ""
        settings.etcdKey = etcdKey ?? ""
        return try RepairTool(settings)
    }
}

struct LedgerRepairCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repair",
        abstract: "Say that a log node does not come back: its ledgers are copied to others now.",
        discussion: "Log nodes do this by themselves when a node is not registered for repair_grace.")

    @Argument(help: "The node's number.") var node: UInt64
    @OptionGroup var metadata: LedgerMetadataFlags

    func run() async throws {
        let tool = try metadata.tool()
        defer { tool.close() }
        print(try await tool.order(node: node))
    }
}

struct LedgerRepairsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repairs",
        abstract: "List ledgers that are to be repaired, and those that are lost.")

    @OptionGroup var metadata: LedgerMetadataFlags

    func run() async throws {
        let tool = try metadata.tool()
        defer { tool.close() }
        for line in try await tool.lines() { print(line) }
    }
}
