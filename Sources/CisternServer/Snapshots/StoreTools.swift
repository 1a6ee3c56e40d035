// A snapshot store for operators: listed, checked, copied under a name, and cleared of what nobody will release any more.
//
// Blocks. Nothing here asks the server that a namespace belongs to, so what is removed must be an export, or of a server that will
// not come back.

internal import CisternDaemon
internal import CisternLSM
package import CisternSnapshotStore
internal import CisternPrimitives

package struct StoreTools {
    package let store: any SnapshotStore

    package init(_ store: any SnapshotStore) { self.store = store }

    /// Every manifest, by namespace and handle; those that cannot be read apart.
    package func list() throws(SnapshotFetchError) -> (found: [FoundManifest], faults: [SnapshotFetchError]) {
        var found: [FoundManifest] = []
        var faults: [SnapshotFetchError] = []
        for object in try inStore({ () throws(SnapshotStoreError) in try store.list(StoreLayout.snapshots) }) {
            guard let namespace = StoreLayout.namespace(ofManifest: object.name),
                let bytes = try inStore({ () throws(SnapshotStoreError) in
                    try store.get(object.name, limit: StoredSnapshot.bytesMax)
                })
            else { continue }
            switch SnapshotFetch.read(bytes, object.name, namespace, store.location) {
            case .success(let manifest): found.append(manifest)
            case .failure(let fault): faults.append(fault)
            }
        }
        return (found, faults)
    }

    /// The manifests of these handles, all when there are none.
    /// - Throws: `unknown` for a handle that is not there, in this namespace when one is given.
    package func select(
        _ handles: [String], namespace: String?
    ) throws(SnapshotFetchError) -> (found: [FoundManifest], faults: [SnapshotFetchError]) {
        let (all, faults) = try list()
        let inside = all.filter { namespace == nil || $0.namespace == namespace }
        if handles.isEmpty { return (inside, faults) }
        var found: [FoundManifest] = []
        for handle in handles {
            let matches = inside.filter { $0.manifest.handle == handle }
            if matches.isEmpty { throw .unknown(handle: handle, location: store.location) }
            found += matches
        }
        return (found, [])
    }

    /// Reads every piece of a snapshot.
    /// - Returns: what is wrong with it.
    package func verify(_ snapshot: FoundManifest) throws(SnapshotFetchError) -> [SnapshotFetchError] {
        var faults: [SnapshotFetchError] = []
        for piece in snapshot.manifest.files.flatMap(\.pieces) {
            do throws(SnapshotFetchError) {
                _ = try SnapshotFetch.piece(piece, of: snapshot.namespace, in: store)
            } catch {
                guard case .damaged = error else { throw error }
                faults.append(error)
            }
        }
        return faults
    }

    /// Copies a snapshot to a namespace of this name, where no release reaches it. Pieces that are there already stay.
    package func export(
        _ snapshot: FoundManifest, to target: StoreTools, name: String
    ) throws(SnapshotFetchError) {
        for piece in snapshot.manifest.files.flatMap(\.pieces) {
            let bytes = try SnapshotFetch.piece(piece, of: snapshot.namespace, in: store)
            _ = try inStore { () throws(SnapshotStoreError) in
                try target.store.put(StoreLayout.piece(piece.name, in: name), bytes)
            }
        }
        _ = try inStore { () throws(SnapshotStoreError) in
            try target.store.put(
                StoreLayout.manifest(snapshot.manifest.handle, in: name), snapshot.manifest.encode())
        }
    }

    /// Removes snapshots of one namespace, and the pieces that no other one there needs; with the last of them also what uploads that
    /// were cut short have left.
    /// - Returns: how many objects went.
    package func remove(_ snapshots: [FoundManifest], of namespace: String) throws(SnapshotFetchError) -> Int {
        let gone = snapshots.map { StoreLayout.manifest($0.manifest.handle, in: namespace) }
        // Before its pieces, so that none names what is not there.
        try inStore { () throws(SnapshotStoreError) in try store.delete(gone) }
        let (left, faults) = try list()
        // A manifest that cannot be read may need any of them.
        if !faults.isEmpty { return gone.count }
        let kept = left.filter { $0.namespace == namespace }
        let unneeded: [String]
        if kept.isEmpty {
            unneeded = try inStore { () throws(SnapshotStoreError) in
                try store.removeLeftovers(StoreLayout.snapshots(of: namespace))
                try store.removeLeftovers(StoreLayout.files(of: namespace))
                return try store.list(StoreLayout.files(of: namespace)).map(\.name)
            }
        } else {
            let needed = Set(kept.flatMap { $0.manifest.pieceNames })
            unneeded = Set(snapshots.flatMap { $0.manifest.pieceNames }).subtracting(needed).sorted()
                .map { StoreLayout.piece($0, in: namespace) }
        }
        try inStore { () throws(SnapshotStoreError) in try store.delete(unneeded) }
        return gone.count + unneeded.count
    }
}

extension FoundManifest {
    package var text: String {
        let info = record.info
        return "\(manifest.handle)  in \(namespace), epoch \(info.progress.epoch) sequence \(info.progress.sequence), "
            + "\(manifest.files.count) files, \(manifest.bytes) bytes\n"
    }

    package var json: String {
        let info = record.info
        return "{\"handle\":\(JSONText.quoted(manifest.handle)),\"namespace\":\(JSONText.quoted(namespace)),"
            + "\"store\":\(JSONText.quoted(info.identity.store)),\"checkpoint\":\(info.checkpoint),"
            + "\"first_group\":\(info.identity.keyGroups.first),\"last_group\":\(info.identity.keyGroups.last),"
            + "\"epoch\":\(info.progress.epoch),\"sequence\":\(info.progress.sequence),"
            + "\"created_ms\":\(info.createdMilliseconds),\"files\":\(manifest.files.count),\"bytes\":\(manifest.bytes)}"
    }
}

/// Texts for the commands.
package enum StoreReport {
    package static func text(_ found: [FoundManifest], _ faults: [SnapshotFetchError]) -> String {
        let lines = found.map(\.text) + faults.map { "DAMAGED \($0)\n" }
        return lines.isEmpty ? "no snapshots\n" : lines.joined()
    }

    package static func json(_ found: [FoundManifest], _ faults: [SnapshotFetchError]) -> String {
        "{\"snapshots\":\(JSONText.array(found.map(\.json))),\"faults\":\(JSONText.array(faults.map { JSONText.quoted("\($0)") }))}\n"
    }

    package static func json(handles: [String]) -> String {
        "{\"handles\":\(JSONText.array(handles.map { JSONText.quoted($0) }))}\n"
    }
}
