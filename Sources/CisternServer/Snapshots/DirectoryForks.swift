// Snapshots of a data directory that no server has open, for operators: forked, brought from a store, released.

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
        let info: SnapshotInfo
        var states: [CatalogStore]
        if let record = engine.snapshotRecord(handle) {
            states = catalog.store(named: record.identity.store).map { [$0] } ?? []
            info = try await withCheckedContinuation { continuation in
                engine.forkSnapshot(handle, as: name) { continuation.resume(returning: $0) }
            }.get()
        } else {
            guard let store else {
                throw SnapshotFetchError.unknown(handle: handle, location: engine.options.directory)
            }
            let fetch = SnapshotFetch(
                store: store, engine: engine, fileSystem: fileSystem, lane: SerialThread(name: "cistern-fetch"))
            defer { fetch.stop() }
            let found = try await withCheckedContinuation { continuation in
                fetch.find(handle) { continuation.resume(returning: $0) }
            }.get()
            states = try CatalogFormat.decode(found.manifest.catalog, source: handle).stores
            info = try await withCheckedContinuation { continuation in
                fetch.bring(handle, as: name) { continuation.resume(returning: $0) }
            }.get().info
        }
        for state in states {
            var renamed = CatalogStore(name: name, keyGroupCount: state.keyGroupCount)
            renamed.states = state.states
            renamed.dictionaries = state.dictionaries
            do throws(CatalogError) {
                _ = try catalog.change { (all: inout CatalogState) throws(CatalogRefusal) in try all.adopt(renamed) }
            } catch {
                _ = await release([info.handle])
                let reason = if case .refused(let refusal) = error { refusal.sentence } else { "\(error)" }
                throw ServerStartError(description: "cannot fork \(handle) as \(name): \(reason)")
            }
        }
        return info.handle
    }

    /// How many were known.
    package func release(_ handles: [String]) async -> Int {
        await withCheckedContinuation { continuation in
            engine.releaseSnapshots(handles) { continuation.resume(returning: $0) }
        }
    }
}
