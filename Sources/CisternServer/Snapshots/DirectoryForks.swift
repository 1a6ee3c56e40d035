// Snapshots of a data directory that no server has open, for operators: forked, brought from a store, released.

internal import CisternDaemon
package import CisternFileSystem
internal import CisternLSM
internal import CisternPrimitives
package import CisternSnapshotStore

package final class DirectoryForks: Sendable {
    private let engine: Engine
    private let catalog: Catalog
    private let fileSystem: any FileSystem

    /// - Throws: `ServerStartError` when the directory cannot be opened; it is made when it is missing.
    package init(_ directory: String, fileSystem: any FileSystem) throws {
        self.fileSystem = fileSystem
        do {
            engine = try Engine.open(EngineOptions(directory: directory), fileSystem: fileSystem, time: SystemTime())
        } catch {
            throw ServerStartError(description: "cannot open the data directory \(directory): \(error)")
        }
        do {
            catalog = try Catalog(directory: directory, fileSystem: fileSystem, newServerID: randomServerID())
        } catch {
            engine.close()
            throw ServerStartError(description: "cannot read the catalog of \(directory): \(error)")
        }
    }

    package func close() { engine.close() }

    /// Makes a snapshot one of another store of stream state: from this directory, or from the snapshot store when only that has it.
    /// - Returns: the new handle.
    package func fork(_ handle: String, as name: String, from store: (any SnapshotStore)?) async throws -> String {
        if let record = engine.snapshotRecord(handle) {
            if let original = catalog.store(named: record.identity.store) { try adopt(original, as: name, for: handle) }
            return try await withCheckedContinuation { continuation in
                engine.forkSnapshot(handle, as: name) { continuation.resume(returning: $0) }
            }.get().handle
        }
        guard let store else {
            throw SnapshotFetchError.unknown(handle: handle, location: engine.options.directory)
        }
        let fetch = SnapshotFetch(
            store: store, engine: engine, fileSystem: fileSystem, lane: SerialThread(name: "cistern-fetch"))
        defer { fetch.stop() }
        let found = try await withCheckedContinuation { continuation in
            fetch.find(handle) { continuation.resume(returning: $0) }
        }.get()
        for original in try CatalogFormat.decode(found.manifest.catalog, source: handle).stores {
            try adopt(original, as: name, for: handle)
        }
        return try await withCheckedContinuation { continuation in
            fetch.bring(handle, as: name) { continuation.resume(returning: $0) }
        }.get().info.handle
    }

    /// Before the snapshot is here: without them its states would get other ids than its entries have.
    private func adopt(_ original: CatalogStore, as name: String, for handle: String) throws {
        var renamed = CatalogStore(name: name, keyGroupCount: original.keyGroupCount)
        renamed.states = original.states
        renamed.dictionaries = original.dictionaries
        do throws(CatalogError) {
            _ = try catalog.change { (all: inout CatalogState) throws(CatalogRefusal) in try all.adopt(renamed) }
        } catch {
            let reason = if case .refused(let refusal) = error { refusal.sentence } else { "\(error)" }
            throw ServerStartError(description: "cannot fork \(handle) as \(name): \(reason)")
        }
    }

    /// How many were known.
    package func release(_ handles: [String]) async -> Int {
        await withCheckedContinuation { continuation in
            engine.releaseSnapshots(handles) { continuation.resume(returning: $0) }
        }
    }
}
