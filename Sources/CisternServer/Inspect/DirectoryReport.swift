// A whole data directory for people: what the engine and the server have in it, and everything that is wrong.

internal import CisternDaemon
package import CisternFileSystem
package import CisternLSM
internal import CisternPrimitives

package struct DirectoryReport: Sendable {
    package let verification: DirectoryVerification

    package var isSound: Bool { verification.faults.isEmpty }

    /// Nobody may have the directory open: files come and go under a running server, and what is missing then is not damage.
    /// - Throws: `file` with reason `.locked` when a process has it open; as `DirectoryVerification.run`.
    package static func run(
        _ directory: String, deep: Bool, fileSystem: any FileSystem
    ) throws(EngineError) -> DirectoryReport {
        let lock = try lockIfUsed(directory, fileSystem)
        defer { lock?.release() }
        var verification = try DirectoryVerification.run(directory, deep: deep, fileSystem: fileSystem)
        let catalog = directory + "/" + Catalog.fileName
        do throws(EngineError) {
            if try isThere(catalog, fileSystem) {
                let found = try FileInspection.inspect(catalog, fileSystem: fileSystem)
                if let damage = found.damage {
                    verification.faults.append(
                        VerificationFault(path: damage.source, offset: damage.offset, detail: damage.detail))
                }
            }
        } catch {
            verification.faults.append(VerificationFault(path: catalog, offset: 0, detail: "\(error)"))
        }
        return DirectoryReport(verification: verification)
    }

    /// A directory without the lock file was never opened, or is a copy; it must not get one by being looked at.
    static func lockIfUsed(
        _ directory: String, _ fileSystem: any FileSystem
    ) throws(EngineError) -> (any DirectoryLock)? {
        let path = directory + "/" + EngineFile.lockName
        guard try isThere(path, fileSystem) else { return nil }
        do throws(FileError) { return try fileSystem.lock(path) } catch { throw .file(error) }
    }

    private static func isThere(_ path: String, _ fileSystem: any FileSystem) throws(EngineError) -> Bool {
        do throws(FileError) { return try fileSystem.exists(path) } catch { throw .file(error) }
    }
}

extension DirectoryReport {
    package var text: String {
        let found = verification
        var out =
            "\(found.directory): \(found.trees) trees, \(found.snapshots) snapshots, \(found.tables) tables with "
            + "\(found.entries) entries in \(found.tableBytes) bytes, \(found.valueFiles) value files of "
            + "\(found.valueBytes) bytes, \(found.segments) log segments of \(found.logBytes) bytes\n"
        for remark in found.remarks { out += "  \(remark)\n" }
        for fault in found.faults { out += "DAMAGED \(fault.path) at byte \(fault.offset): \(fault.detail)\n" }
        if isSound {
            out +=
                found.isDeep
                ? "every block, entry, value and reference is sound\n"
                : "every reference is sound; blocks of tables were not read (--deep does)\n"
        }
        return out
    }

    package var json: String {
        let found = verification
        let faults = found.faults.map {
            "{\"file\":\(JSONText.quoted($0.path)),\"offset\":\($0.offset),\"detail\":\(JSONText.quoted($0.detail))}"
        }
        return "{\"directory\":\(JSONText.quoted(found.directory)),\"deep\":\(found.isDeep),\"ok\":\(isSound),"
            + "\"trees\":\(found.trees),\"snapshots\":\(found.snapshots),\"tables\":\(found.tables),"
            + "\"value_files\":\(found.valueFiles),\"segments\":\(found.segments),\"table_bytes\":\(found.tableBytes),"
            + "\"value_bytes\":\(found.valueBytes),\"log_bytes\":\(found.logBytes),"
            + "\"entries\":\(found.entries),\"faults\":\(JSONText.array(faults)),"
            + "\"remarks\":\(JSONText.array(found.remarks.map { JSONText.quoted($0) }))}\n"
    }
}
