// `cistern snapshot …`: snapshots in a snapshot store, and in a data directory that no server has open.

internal import ArgumentParser
internal import CisternDaemon
internal import CisternFileSystem
internal import CisternLSM
internal import CisternPrimitives
internal import CisternServer
internal import CisternSnapshotStore
internal import CisternSnapshotStoreS3
internal import Foundation

struct SnapshotCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "List, check, copy, fork and remove snapshots.",
        discussion: """
            SOURCE is a snapshot store (file:///PATH or s3://BUCKET/PREFIX, as in snapshot_store) or a data directory that no server has \
            open. A store may be read while servers use it. Credentials of S3 are in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
            AWS_SESSION_TOKEN, or in a file.
            """,
        subcommands: [
            SnapshotListCommand.self, SnapshotVerifyCommand.self, SnapshotExportCommand.self, SnapshotForkCommand.self,
            SnapshotRemoveCommand.self,
        ])
}

/// Where a bucket is and how it is asked; also in the environment, with the server's names.
struct S3Flags: ParsableArguments {
    @Option(help: "Where an S3 server is that is not AWS: https://HOST[:PORT].") var s3Endpoint: String?
    @Option(help: "The bucket's region; also AWS_REGION.") var s3Region: String?
    @Option(help: "Where the bucket's name stands: host, path or auto.") var s3Addressing: String?
    @Option(help: "A file of credentials, as AWS tools have it.") var s3CredentialsFile: String?
    @Option(help: "PEM file of who may sign the endpoint's certificate.") var s3Authorities: String?

    var settings: [(String, String?)] {
        [
            ("s3_endpoint", s3Endpoint), ("s3_region", s3Region), ("s3_addressing", s3Addressing),
            ("s3_credentials_file", s3CredentialsFile), ("s3_authorities", s3Authorities),
        ]
    }
}

/// The store that a command's argument names.
struct StoreFlags: ParsableArguments {
    @OptionGroup var s3: S3Flags
    @Flag(help: "Ask an S3 server on another machine without encryption.") var allowRemote = false

    /// nil for a directory.
    func store(_ text: String) throws -> StoreTools? {
        guard text.contains("://") else { return nil }
        guard let address = SnapshotStoreAddress(text) else {
            throw ValidationError("\(text) is no snapshot store: give \(SnapshotStoreAddress.forms)")
        }
        let flags = s3.settings + [("allow_remote", allowRemote ? "true" : nil)]
        do {
            let settings = try ConfigurationLoader.loadStoreSettings(
                flags: flags.map { (key: $0.0, value: $0.1) }, environment: ProcessInfo.processInfo.environment)
            if case .s3(let location) = address,
                let problem = settings.s3.problem(location, mayBePlain: settings.allowRemote)
            {
                throw ValidationError(problem)
            }
            return StoreTools(try address.open(PosixFileSystem(), settings.s3, SystemTime()))
        } catch let error as ConfigurationError {
            throw ValidationError(error.description)
        } catch let error as SnapshotStoreError {
            throw ValidationError("\(error)")
        }
    }

    func requiredStore(_ text: String) throws -> StoreTools {
        guard let store = try store(text) else {
            throw ValidationError("\(text) is no snapshot store: give \(SnapshotStoreAddress.forms)")
        }
        return store
    }
}

/// Runs a command's work with errors as sentences.
private func reporting<Value>(_ body: () async throws -> Value) async throws -> Value {
    do { return try await body() } catch {
        switch error {
        case let error as EngineError: throw ValidationError(sentence(error))
        case let error as SnapshotFetchError: throw ValidationError("\(error)")
        case let error as ServerStartError: throw ValidationError(error.description)
        default: throw error
        }
    }
}

struct SnapshotListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List snapshots.",
        discussion: "Exit status 1: a record or manifest cannot be read.")

    @Argument(help: "A snapshot store or a data directory.") var source: String
    @OptionGroup var access: StoreFlags
    @Flag(help: "Print one JSON object.") var json = false

    func run() async throws {
        guard let store = try access.store(source) else {
            return try SnapshotsCommand.list(source, json: json)
        }
        let (found, faults) = try await reporting { try store.list() }
        print(json ? StoreReport.json(found, faults) : StoreReport.text(found, faults), terminator: "")
        if !faults.isEmpty { throw ExitCode(1) }
    }
}

struct SnapshotVerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Read every piece of snapshots in a store.",
        discussion:
            "Exit status 0: sound. 1: damaged; every fault is named. `cistern verify` does it for a data directory.")

    @Argument(help: "A snapshot store.") var store: String
    @Argument(help: "Handles; all snapshots when there are none.") var handles: [String] = []
    @OptionGroup var access: StoreFlags
    @Flag(help: "Print one JSON object.") var json = false

    func run() async throws {
        let store = try access.requiredStore(store)
        let (found, faults) = try await reporting {
            var (found, faults) = try store.select(handles, namespace: nil)
            for snapshot in found {
                let wrong = try store.verify(snapshot)
                if !wrong.isEmpty {
                    found.removeAll { $0.namespace == snapshot.namespace && $0.manifest == snapshot.manifest }
                }
                faults += wrong
            }
            return (found, faults)
        }
        print(json ? StoreReport.json(found, faults) : StoreReport.text(found, faults), terminator: "")
        if !faults.isEmpty { throw ExitCode(1) }
    }
}

struct SnapshotExportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Copy snapshots in a store under a name, where no release reaches them.",
        discussion: "Name all snapshots of a checkpoint. A job is restored from the same handles.")

    @Argument(help: "A snapshot store.") var store: String
    @Argument(help: "Handles.") var handles: [String]
    @Option(help: "A name: 1 to 100 bytes of A-Z a-z 0-9 - _ .") var name: String
    @Option(help: "Another snapshot store to copy to.") var to: String?
    @OptionGroup var access: StoreFlags
    @Flag(help: "Print one JSON object.") var json = false

    func run() async throws {
        guard StoreLayout.isNamespace(name) else {
            throw ValidationError("\"\(name)\" cannot be a name: give 1 to 100 bytes of A-Z a-z 0-9 - _ .")
        }
        let source = try access.requiredStore(store)
        let target = try to.map(access.requiredStore) ?? source
        try await reporting {
            for handle in handles {
                // Any namespace that has it is as good as another.
                guard let snapshot = try source.select([handle], namespace: nil).found.first else { continue }
                try source.export(snapshot, to: target, name: name)
            }
        }
        print(json ? StoreReport.json(handles: handles) : "\(handles.count) snapshots are in \(name)\n", terminator: "")
    }
}

struct SnapshotForkCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fork", abstract: "Make snapshots those of another store name, for a test or a backfill.",
        discussion: """
            Prints the new handles; a job that attaches to the new name restoring them begins with that state, and the two go their own ways. \
            The data directory is one that no server has open; it is made when it is missing.
            """)

    @Argument(help: "The data directory that gets the fork.") var data: String
    @Argument(help: "Handles of a checkpoint.") var handles: [String]
    @Option(name: .customLong("as"), help: "The new store's name.") var name: String
    @Option(help: "A snapshot store to get them from when the data directory does not have them.") var from: String?
    @OptionGroup var access: StoreFlags
    @Flag(help: "Print one JSON object.") var json = false

    func run() async throws {
        let source = try from.map(access.requiredStore)
        let forks = try await reporting {
            let directory = try DirectoryForks(data, fileSystem: PosixFileSystem())
            defer { directory.close() }
            var forks: [String] = []
            for handle in handles { forks.append(try await directory.fork(handle, as: name, from: source?.store)) }
            return forks
        }
        print(json ? StoreReport.json(handles: forks) : forks.map { $0 + "\n" }.joined(), terminator: "")
    }
}

struct SnapshotRemoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove snapshots.",
        discussion: """
            From a snapshot store: of an export, or of a server that will not come back; a running server removes its own when the job \
            releases them, and puts back what it has. From a data directory: as a release.
            """)

    @Argument(help: "A snapshot store or a data directory.") var source: String
    @Argument(help: "Handles; from a store all of the namespace when there are none.") var handles: [String] = []
    @Option(help: "Of a store: the export's name, or the server's id, as ls shows it.") var namespace: String?
    @OptionGroup var access: StoreFlags
    @Flag(help: "Print one JSON object.") var json = false

    func run() async throws {
        let count = try await reporting { () async throws -> Int in
            guard let store = try access.store(source) else {
                if handles.isEmpty { throw ValidationError("name the handles to remove from \(source)") }
                let directory = try DirectoryForks(source, fileSystem: PosixFileSystem())
                defer { directory.close() }
                return await directory.release(handles)
            }
            guard let namespace else { throw ValidationError("give --namespace: `cistern snapshot ls` shows it") }
            return try store.remove(try store.select(handles, namespace: namespace).found, of: namespace)
        }
        print(json ? "{\"removed\":\(count)}\n" : "\(count) removed\n", terminator: "")
    }
}
