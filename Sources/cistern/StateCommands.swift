// `cistern state …`: what stores have, in a data directory that no server has open, and what a running server does.

internal import ArgumentParser
internal import CisternDaemon
internal import CisternFileSystem
internal import CisternLSM
internal import CisternServer
internal import CisternTransport
internal import Foundation

struct StateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "state",
        abstract: "Look at stores, their states and entries, and at a running server.",
        subcommands: [
            StateListCommand.self, StateGetCommand.self, StateScanCommand.self, StateStatsCommand.self,
        ])
}

struct StateListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List stores and their states.")

    @Argument(help: "A data directory that no server has open.") var directory: String
    @Flag(help: "Print one JSON object.") var json = false

    func run() throws {
        do throws(EngineError) {
            let report = try StateReport(directory, fileSystem: PosixFileSystem())
            print(json ? report.json : report.text, terminator: "")
        } catch {
            throw ValidationError(sentence(error))
        }
    }
}

struct StateScanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scan", abstract: "Print the entries of a snapshot, one JSON object a line; as `cistern scan`.")

    @OptionGroup var options: ScanOptions

    func run() throws { try options.run(key: nil) }
}

struct StateGetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Print the entries of a snapshot whose key begins so.",
        discussion: "The key is hexadecimal, as `cistern state scan` prints it: what follows key group and state.")

    @OptionGroup var options: ScanOptions
    @Option(help: "First bytes of the key, hexadecimal.") var key: String

    func run() throws {
        let prefix = key.lowercased()
        guard prefix.utf8.count % 2 == 0, prefix.allSatisfy(\.isHexDigit) else {
            throw ValidationError("\"\(key)\" is not hexadecimal")
        }
        try options.run(key: prefix)
    }
}

/// What `cistern scan`, `cistern state scan` and `cistern state get` have in common.
struct ScanOptions: ParsableArguments {
    @Argument(help: "A data directory that no server has open.") var directory: String
    @Option(help: "Handle of a snapshot, as `cistern snapshot ls` lists it.") var snapshot: String
    @Option(help: "Only entries of this named state.") var state: String?
    @Option(help: "At most so many entries.") var limit = Int.max

    func run(key: String?) throws {
        do throws(EngineError) {
            let report = try SnapshotReport(directory, fileSystem: PosixFileSystem())
            defer { report.close() }
            _ = try report.scan(snapshot, state: state, keyPrefix: key, limit: limit) { print($0, terminator: "") }
        } catch {
            throw ValidationError(sentence(error))
        }
    }
}

struct StateStatsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats", abstract: "Print what a running server's admin port tells.",
        discussion: """
            The text is that of /metrics, the JSON that of /status.json. The token of a server with tokens_file is read from the \
            environment, CISTERN_ADMIN_TOKEN, because arguments are seen by everybody on the machine.
            """)

    @Argument(help: "The admin port: HOST:PORT or unix:/PATH.") var admin: String
    @Flag(help: "Print one JSON object.") var json = false
    @Flag(help: "Ask over TLS.") var tls = false
    @Option(
        help: "PEM file of who may sign the server's certificate, instead of the system's authorities; asks over TLS.")
    var tlsAuthorities: String?
    @Option(help: "PEM file of this client's certificate, for servers that ask for one; asks over TLS.")
    var tlsCertificate: String?
    @Option(help: "PEM file of the certificate's private key.") var tlsKey: String?

    func run() async throws {
        guard (tlsCertificate == nil) == (tlsKey == nil) else {
            throw ValidationError("a certificate needs its key, and a key its certificate: give both or none")
        }
        do {
            var context: ClientTLS?
            if tls || tlsAuthorities != nil || tlsCertificate != nil {
                context = try ClientTLS(
                    trustedCertificates: tlsAuthorities, certificate: tlsCertificate, key: tlsKey, serverName: nil)
            }
            let token = ProcessInfo.processInfo.environment["CISTERN_ADMIN_TOKEN"] ?? ""
            let path = json ? "/status.json" : "/metrics"
            print(try await AdminClient.get(path, from: admin, tls: context, token: token), terminator: "")
        } catch let error as AdminClientError {
            throw ValidationError(error.description)
        } catch let error as TLSError {
            throw ValidationError(error.description)
        }
    }
}
