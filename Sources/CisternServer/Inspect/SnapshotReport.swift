// Snapshots of a directory that no server has open, for people and for programs: a list, and entries one JSON object a line.

internal import CisternDaemon
package import CisternFileSystem
package import CisternLSM
internal import CisternPrimitives

package struct SnapshotReport {
    private let directory: String
    private let fileSystem: any FileSystem
    private let snapshots: OfflineSnapshots
    /// Keeps a server from being started on the directory while it is read.
    private let lock: (any DirectoryLock)?

    /// - Throws: `file` with reason `.locked` while a process has the directory open.
    package init(_ directory: String, fileSystem: any FileSystem) throws(EngineError) {
        self.directory = directory
        self.fileSystem = fileSystem
        lock = try DirectoryReport.lockIfUsed(directory, fileSystem)
        snapshots = try OfflineSnapshots(directory, fileSystem: fileSystem)
    }

    package func close() { lock?.release() }

    package var faults: [VerificationFault] { snapshots.faults }

    package var text: String {
        var out = ""
        for info in snapshots.infos {
            out +=
                "\(info.handle)  \(info.tree), epoch \(info.progress.epoch) sequence \(info.progress.sequence), "
                + "\(info.fileCount) files, \(info.bytes) bytes, of these \(info.logBytes) in the log\n"
        }
        for fault in faults { out += "DAMAGED \(fault.path) at byte \(fault.offset): \(fault.detail)\n" }
        return out.isEmpty ? "no snapshots\n" : out
    }

    package var json: String {
        let items = snapshots.infos.map { info in
            "{\"handle\":\(JSONText.quoted(info.handle)),\"store\":\(JSONText.quoted(info.identity.store)),"
                + "\"checkpoint\":\(info.checkpoint),\"first_group\":\(info.identity.keyGroups.first),"
                + "\"last_group\":\(info.identity.keyGroups.last),\"tree\":\(info.tree.number),"
                + "\"epoch\":\(info.progress.epoch),\"sequence\":\(info.progress.sequence),"
                + "\"watermark\":\(info.progress.watermark),\"created_ms\":\(info.createdMilliseconds),"
                + "\"files\":\(info.fileCount),\"bytes\":\(info.bytes),\"log_bytes\":\(info.logBytes)}"
        }
        let damaged = faults.map { "{\"file\":\(JSONText.quoted($0.path)),\"detail\":\(JSONText.quoted($0.detail))}" }
        return "{\"snapshots\":\(JSONText.array(items)),\"faults\":\(JSONText.array(damaged))}\n"
    }

    /// Prints what was alive when the snapshot was taken.
    /// - Parameters:
    ///   - state: only of this named state.
    ///   - keyPrefix: only of keys that begin so behind key group and state, hexadecimal.
    ///   - limit: so many entries at most.
    /// - Returns: the number of entries.
    package func scan(
        _ handle: String, state: String?, keyPrefix: String? = nil, limit: Int, emit: (String) -> Void
    ) throws(EngineError) -> Int {
        let view = try snapshots.open(handle)
        let names = try stateNames(view.info.identity.store)
        var wanted: UInt16?
        if let state {
            guard let found = names.first(where: { $0.value == state })?.key else {
                throw .unsupported(
                    detail: "store \"\(view.info.identity.store)\" has no state \"\(state)\"; it has "
                        + names.values.sorted().joined(separator: ", "))
            }
            wanted = found
        }
        var count = 0
        try view.scan(clock: view.clock) { entry in
            let key = unsafe Array(entry.key)
            let id = key.count >= 4 ? UInt16(key[2]) << 8 | UInt16(key[3]) : 0
            if let wanted, wanted != id { return true }
            if let keyPrefix, !hexadecimal(key.dropFirst(4)).hasPrefix(keyPrefix) { return true }
            if count >= limit { return false }
            count += 1
            emit(SnapshotReport.line(key, unsafe Array(entry.value), entry.expiry, state: names[id], id: id))
            return true
        }
        return count
    }

    private static func line(_ key: [UInt8], _ value: [UInt8], _ expiry: Expiry, state: String?, id: UInt16) -> String {
        var expires = "null"
        if expiry != .never {
            expires = "{\"clock\":\"\(expiry.isEventTime ? "event" : "processing")\",\"ms\":\(expiry.milliseconds)}"
        }
        let group = UInt16(key[0]) << 8 | UInt16(key[1])
        return "{\"group\":\(group),\"state\":\(state.map { JSONText.quoted($0) } ?? "null"),\"state_id\":\(id),"
            + "\"key\":\"\(hexadecimal(Array(key.dropFirst(4))))\",\"value\":\"\(hexadecimal(value))\",\"expires\":\(expires)}\n"
    }

    /// Names of states by id; none when the directory has no catalog.
    private func stateNames(_ store: String) throws(EngineError) -> [UInt16: String] {
        guard let state = try Catalog.readForTools(directory, fileSystem)?.store(store) else { return [:] }
        return Dictionary(state.states.map { ($0.id, $0.name) }) { first, _ in first }
    }
}
