// The stores that the conformance suite runs against, each with what it takes to leave something half-written in it.

import CisternFileSystem
import CisternPrimitives
import CisternSnapshotStore
import CisternSnapshotStoreS3
import CisternTestKit
import S3Double
import Testing

enum StoreKind: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case directory
    case s3
    /// S3 with a prefix, and every object larger than 1,000 bytes in parts.
    case s3InParts
    /// S3 without conditions on writes and without ranges.
    case s3Plain
    /// An S3 server that others have written, where there is a `moto_server` in PATH.
    case moto

    static var available: [StoreKind] { MotoProcess.program == nil ? allCases.filter { $0 != .moto } : allCases }

    var testDescription: String { rawValue }
}

struct StoreSubject {
    let store: any SnapshotStore
    /// Leaves under this name what a write that was cut short leaves.
    let leaveHalfWritten: (String) throws -> Void
    /// How much is left so.
    let halfWritten: () throws -> Int

    static func with(_ kind: StoreKind, _ body: (StoreSubject) throws -> Void) throws {
        switch kind {
        case .directory:
            let disk = MemoryFileSystem()
            try body(
                StoreSubject(
                    store: DirectorySnapshotStore("/store", fileSystem: disk),
                    leaveHalfWritten: { name in disk.setContents("/store/\(name).tmp", [1]) },
                    halfWritten: { disk.paths.count { $0.hasSuffix(".tmp") } }))
        case .s3, .s3InParts, .s3Plain:
            let double = try S3Double()
            let prefix = kind == .s3InParts ? "some/where%" : ""
            if kind == .s3Plain {
                double.forgetConditions()
                double.forgetRanges()
            }
            let store = try double.store(prefix: prefix) { if kind == .s3InParts { $0.limits.partBytes = 1000 } }
            try body(
                StoreSubject(
                    store: store, leaveHalfWritten: { double.plantUpload(prefix.isEmpty ? $0 : "\(prefix)/\($0)") },
                    halfWritten: { double.uploadCount }))
        case .moto:
            try MotoProcess.with { moto in
                // Its parts have 5 MiB at least.
                let store = try moto.store()
                try body(StoreSubject(store: store, leaveHalfWritten: { try moto.plantUpload($0) }, halfWritten: { 0 }))
            }
        }
    }
}
