// Where the snapshots of a test go: a directory of its disk, or a bucket.

import CisternFileSystem
import CisternPrimitives
import CisternServer
import CisternSnapshotStore
import CisternSnapshotStoreS3
import CisternTestKit
import S3Double
import Testing

enum BackupKind: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case directory
    case s3

    var testDescription: String { rawValue }
}

struct Backup: Sendable {
    let files: MemoryFileSystem
    /// nil: the directory /backup of the files.
    let double: S3Double?

    private static let prefix = "of/tests"

    init(_ kind: BackupKind, _ files: MemoryFileSystem) throws {
        self.files = files
        double = kind == .s3 ? try S3Double() : nil
    }

    func configure(_ configuration: inout ServerConfiguration) {
        guard let double else {
            configuration.snapshotStore = "file:///backup"
            return
        }
        configuration.snapshotStore = "s3://\(S3Double.bucket)/\(Backup.prefix)"
        configuration.s3.endpoint = double.endpoint
        configuration.s3.region = S3Double.region
        configuration.s3.environmentCredentials = S3Double.credentials
    }

    func start(_ directory: String) async throws -> ServerHarness {
        try await ServerHarness.start(files, directory: directory) {
            configure(&$0)
            $0.admin = "127.0.0.1:0"
        }
    }

    var store: any SnapshotStore {
        get throws {
            if let double { return try double.store(prefix: Backup.prefix) }
            return DirectorySnapshotStore("/backup", fileSystem: files)
        }
    }

    /// Names of everything that is there, half-written things among them.
    var everything: [String] {
        guard let double else {
            return files.paths.filter { $0.hasPrefix("/backup/") }.map { String($0.dropFirst("/backup/".count)) }
        }
        return double.keys.map { String($0.dropFirst(Backup.prefix.count + 1)) }
            + Array(repeating: "unfinished upload", count: double.uploadCount)
    }

    func leaveHalfWritten(_ name: String) {
        if let double {
            double.plantUpload("\(Backup.prefix)/\(name)")
        } else {
            files.setContents("/backup/\(name).tmp", [1])
        }
    }

    func bytes(_ name: String) -> [UInt8]? {
        double.map { $0.bytes("\(Backup.prefix)/\(name)") } ?? files.contents("/backup/\(name)")
    }

    func setBytes(_ name: String, _ bytes: [UInt8]) {
        if let double {
            double.setBytes("\(Backup.prefix)/\(name)", bytes)
        } else {
            files.setContents("/backup/\(name)", bytes)
        }
    }
}
