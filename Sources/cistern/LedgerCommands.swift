// `cistern ledger`: ledgers as they are on log nodes, and what is left of nodes that are gone.

internal import ArgumentParser
internal import CisternLogServer
internal import CisternPrimitives
internal import Foundation

struct LedgerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ledger",
        abstract: "Look at ledgers on log nodes, check, close and remove them, and have those of a lost node repaired.",
        subcommands: [
            LedgerListCommand.self, LedgerShowCommand.self, LedgerReadCommand.self, LedgerVerifyCommand.self,
            LedgerRecoverCommand.self, LedgerRemoveCommand.self, LedgerRepairCommand.self, LedgerRepairsCommand.self,
        ])
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

    var settings: LedgerToolSettings {
        var settings = LedgerToolSettings()
        settings.etcd = etcd
        settings.cluster = cluster ?? settings.cluster
        settings.etcdAuthorities = etcdAuthorities ?? ""
        settings.etcdCertificate = etcdCertificate ?? ""
        settings.etcdKey = etcdKey ?? ""
        return settings
    }

    func tool() throws -> RepairTool { try RepairTool(settings) }
}

/// And how the nodes are spoken to.
struct LedgerFlags: ParsableArguments {
    @OptionGroup var metadata: LedgerMetadataFlags
    @Option(help: "PEM file of who may sign log nodes' certificates; then they are spoken to over TLS.")
    var logAuthorities: String?
    @Option(help: "PEM file of the certificate that is shown to log nodes.") var logCertificate: String?
    @Option(help: "PEM file of its private key.") var logKey: String?
    @Option(help: "File with the token that is shown to log nodes.") var logTokenFile: String?

    /// Closed when `body` ends.
    func with(_ body: (LedgerTool) async throws -> Void) async throws {
        var settings = metadata.settings
        settings.logAuthorities = logAuthorities ?? ""
        settings.logCertificate = logCertificate ?? ""
        settings.logKey = logKey ?? ""
        settings.logTokenFile = logTokenFile ?? ""
        let tool = try LedgerTool(settings)
        do {
            try await body(tool)
        } catch {
            await tool.close()
            throw error
        }
        await tool.close()
    }
}

struct LedgerListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List ledgers: state, quorums, nodes, and the log that has each.")

    @Option(help: "Only those of which this node has entries.") var node: UInt64?
    @Option(help: "Only those of this log.") var log: String?
    @Flag(help: "Only those that no log has.") var unlisted = false
    @Flag(help: "Only those that are not closed.") var unclosed = false
    @Flag(help: "One JSON object a line.") var json = false
    @OptionGroup var flags: LedgerFlags

    func run() async throws {
        try await flags.with { tool in
            if !json { print(LedgerListing.title) }
            for listing in try await tool.list() where isWanted(listing) {
                print(json ? listing.json : listing.line)
            }
        }
    }

    private func isWanted(_ listing: LedgerListing) -> Bool {
        if let node, !listing.isOn(node: node) { return false }
        if let log, listing.log != log { return false }
        if unlisted && listing.log != nil { return false }
        return !(unclosed && listing.isClosed)
    }
}

struct LedgerShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show a ledger's fragments, and what its nodes know of it.")

    @Argument(help: "The ledger's number.") var ledger: UInt64
    @Flag(help: "One JSON object.") var json = false
    @OptionGroup var flags: LedgerFlags

    func run() async throws {
        try await flags.with { tool in
            let listing = try await tool.find(ledger)
            let nodes = await tool.nodes(of: listing)
            if json { return print(listing.json(nodes)) }
            for line in listing.lines(nodes) { print(line) }
        }
    }
}

struct LedgerReadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "read",
        abstract: "Read entries of a ledger. Nobody is fenced.",
        discussion: "Of a ledger that is not closed, those are read that its nodes know to be acknowledged.")

    @Argument(help: "The ledger's number.") var ledger: UInt64
    @Option(help: "The first entry.") var from: UInt32 = 0
    @Option(help: "The last entry; the last there is when it is not given.") var to: UInt32?
    @Flag(help: "Print bodies in hexadecimal.") var hex = false
    @Flag(help: "One JSON object a line, bodies in hexadecimal.") var json = false
    @Flag(help: "Write bodies as they are, one behind the other, and nothing else.") var raw = false
    @OptionGroup var flags: LedgerFlags

    func validate() throws {
        if [hex, json, raw].count(where: \.self) > 1 { throw ValidationError("give one of --hex, --json and --raw") }
        if let to, to < from { throw ValidationError("--to \(to) is before --from \(from)") }
    }

    func run() async throws {
        try await flags.with { tool in
            let listing = try await tool.find(ledger)
            let end = await tool.lastEntry(of: listing)
            let first = EntryID(Int64(from))
            let last = to.map { EntryID(Int64($0)) } ?? end
            guard last <= end, first <= end else {
                let what = end == .none ? "has no entry" : "ends with entry \(end.rawValue)"
                // Nothing was asked for of an empty ledger, and there is nothing.
                if end == .none, from == 0, to == nil { return }
                throw ValidationError("ledger \(ledger) \(what) that can be read: give other entries")
            }
            let form: LedgerEntryForm = json ? .json : hex ? .hex : .summary
            try await tool.read(listing, from: first, through: last) { entry, body in
                if raw {
                    try FileHandle.standardOutput.write(contentsOf: body)
                } else {
                    print(form.line(entry, body))
                }
            }
        }
    }
}

struct LedgerVerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Read every copy of every entry and compare them. Nobody is fenced.",
        discussion: "Exit status 1 when a copy is missing, cannot be read or differs, or a node gives no answer.")

    @Argument(help: "Numbers of ledgers.") var ledgers: [UInt64] = []
    @Flag(help: "All ledgers there are.") var all = false
    @Flag(help: "One JSON object for each ledger.") var json = false
    @OptionGroup var flags: LedgerFlags

    func validate() throws {
        if all == !ledgers.isEmpty { throw ValidationError("give numbers of ledgers, or --all") }
    }

    func run() async throws {
        var isWhole = true
        try await flags.with { tool in
            for listing in try await all ? tool.list() : find(tool) {
                let result = try await tool.verify(listing)
                isWhole = isWhole && result.isWhole
                for line in json ? [result.json] : result.lines { print(line) }
            }
        }
        if !isWhole { throw ExitCode(1) }
    }

    private func find(_ tool: LedgerTool) async throws -> [LedgerListing] {
        var found: [LedgerListing] = []
        for number in ledgers { found.append(try await tool.find(number)) }
        return found
    }
}

struct LedgerRecoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover",
        abstract: "Close a ledger for its writer, which is fenced: it acknowledges nothing any more.",
        discussion: """
            Everything that was acknowledged is in it afterwards. Whoever takes a log over does this by itself. A state server whose \
            tree writes to the ledger loses the tree; its worker attaches again.
            """)

    @Argument(help: "The ledger's number.") var ledger: UInt64
    @Flag(help: "Do it.") var yes = false
    @OptionGroup var flags: LedgerFlags

    func run() async throws {
        try await flags.with { tool in
            let listing = try await tool.find(ledger)
            guard yes || listing.isClosed else {
                throw ValidationError(
                    "ledger \(ledger)\(listing.log.map { " of log \($0)" } ?? "") is not closed: its writer, if there is one, would be "
                        + "fenced; give --yes")
            }
            let last = try await tool.recover(listing)
            let end = last == .none ? "it is empty" : "its last entry is \(last.rawValue)"
            print("ledger \(ledger) \(listing.isClosed ? "was closed already" : "is closed"): \(end)")
        }
    }
}

struct LedgerRemoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm",
        abstract: "Remove a closed ledger that no log has.",
        discussion: "Ledgers of logs go by themselves, when the log is truncated.")

    @Argument(help: "The ledger's number.") var ledger: UInt64
    @Flag(help: "Do it.") var yes = false
    @Flag(help: "Also when no log has a younger one: nobody takes a log over at this moment.") var force = false
    @OptionGroup var flags: LedgerFlags

    func run() async throws {
        try await flags.with { tool in
            guard yes else { throw ValidationError("ledger \(ledger) would be gone for ever; give --yes") }
            try await tool.remove(try await tool.find(ledger), force: force)
            print("ledger \(ledger) is removed; log nodes drop their copies when they look for it")
        }
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
