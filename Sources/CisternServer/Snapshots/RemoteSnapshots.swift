// A server's snapshot store: what is uploaded to it and what is brought from it.

package import CisternFileSystem
package import CisternLSM
package import CisternPrimitives
package import CisternSnapshotStore
package import CisternSnapshotStoreS3
internal import CisternWire

package final class RemoteSnapshots: Sendable {
    package let store: any SnapshotStore
    package let uploads: SnapshotUploads
    package let fetch: SnapshotFetch
    package let hydration: Hydration

    /// - Parameter fileSystem: the engine's.
    package init(
        _ fileSystem: HydratingFileSystem, engine: Engine, catalog: Catalog, hydrationBytesPerSecond: UInt64,
        time: any TimeSource
    ) {
        store = fileSystem.store
        hydration = Hydration(
            fileSystem, lane: SerialThread(name: "cistern-hydrate"), bytesPerSecond: hydrationBytesPerSecond)
        var random = SystemRandomNumberGenerator()
        uploads = SnapshotUploads(
            store: store, namespace: catalog.serverID, engine: engine, fileSystem: fileSystem,
            lane: SerialThread(name: "cistern-upload"), time: time, nonce: random.next()
        ) { [catalog] name in
            let current = catalog.current
            var single = CatalogState(serverID: current.serverID)
            single.stores = current.stores.filter { $0.name == name }
            return CatalogFormat.encode(single)
        }
        fetch = SnapshotFetch(
            store: store, engine: engine, fileSystem: fileSystem, hydration: hydration,
            lane: SerialThread(name: "cistern-fetch"))
        // What the process before has left.
        hydration.wake()
    }

    /// Waits for what runs. Before the engine is closed.
    package func stop() {
        // What runs is not worth waiting for a store that does not answer: the next start mends what is cut short.
        store.close()
        uploads.stop()
        fetch.stop()
        hydration.stop()
    }

    func find(_ handle: String) async -> Result<FoundManifest, SnapshotFetchError> {
        await withCheckedContinuation { continuation in
            fetch.find(handle) { continuation.resume(returning: $0) }
        }
    }

    func bring(_ found: FoundManifest, behind: Bool) async -> Result<FetchedSnapshot, SnapshotFetchError> {
        await withCheckedContinuation { continuation in
            fetch.bring(found, behind: behind) { continuation.resume(returning: $0) }
        }
    }
}

/// Where a setting says that snapshots go.
package enum SnapshotStoreAddress: Equatable, Sendable {
    case directory(String)
    case s3(S3Location)

    package static let forms = "file:///PATH or s3://BUCKET/PREFIX, without / at its end"

    /// nil when it is none.
    package init?(_ text: String) {
        if let location = S3Location(text) {
            self = .s3(location)
            return
        }
        guard text.hasPrefix("file:///"), text.utf8.count > 8, !text.hasSuffix("/") else { return nil }
        self = .directory(String(text.dropFirst(7)))
    }

    /// Nothing is asked of it yet.
    /// - Throws: when the settings are not enough, as `S3Settings.problem` says, or name files that cannot be used.
    package func open(
        _ fileSystem: any FileSystem, _ settings: S3Settings, _ time: any TimeSource
    ) throws(SnapshotStoreError) -> any SnapshotStore {
        switch self {
        case .directory(let path): return DirectorySnapshotStore(path, fileSystem: fileSystem)
        case .s3(let location):
            guard let options = settings.options(location), let credentials = settings.credentials(fileSystem, time)
            else {
                throw SnapshotStoreError(
                    operation: "open", name: "the store", location: "\(location)",
                    reason: settings.problem(location, mayBePlain: true) ?? "settings are missing", isTransient: false)
            }
            return try S3SnapshotStore(options, credentials: credentials, time: time)
        }
    }
}

extension ServerCore {
    /// Makes snapshots that are only in the store ones of this server, with the states and dictionaries they need.
    /// Handles of another store are left to whoever looks for them here: the writer may have no right to that store.
    /// - Parameters:
    ///   - uploads: they go to this server's place in the store too.
    ///   - unknown: what becomes of those that the store does not have; nil: they are refused.
    func bring(
        _ handles: [String], of store: String, attempt: String, uploads: Bool = true,
        unknown: (([String]) async -> Refusal?)? = nil
    ) async -> Refusal? {
        guard let remote else { return nil }
        var missing: [String] = []
        for handle in handles where handle.hasPrefix(store + "/") && engine.snapshotRecord(handle) == nil {
            let found: FoundManifest
            switch await remote.find(handle) {
            case .success(let manifest): found = manifest
            case .failure(.unknown) where unknown != nil:
                missing.append(handle)
                continue
            case .failure(let error): return Refusal(error, attempt: attempt)
            }
            // Its states first, durably: whoever finds the snapshot here, another worker or the next start, takes their ids for
            // granted. Without them states would get ids anew, and read each other's entries.
            let adopted = await adopt(
                found.manifest.catalog, of: handle, location: remote.store.location, attempt: attempt)
            if case .failure(let refusal) = adopted { return refusal }
            // Records in metadata keep a snapshot in the store that a tree is made from; without them its owner may release it.
            let brought = await remote.bring(found, behind: replication != nil)
            if case .failure(let error) = brought { return Refusal(error, attempt: attempt) }
            if uploads { remote.uploads.taken(handle) }
        }
        guard !missing.isEmpty, let unknown else { return nil }
        if let refusal = await unknown(missing) { return refusal }
        for handle in missing where engine.snapshotRecord(handle) != nil { remote.uploads.taken(handle) }
        return nil
    }

    private func adopt(
        _ bytes: [UInt8], of handle: String, location: String, attempt: String
    ) async -> Result<Void, Refusal> {
        do throws(CorruptionError) {
            let brought = try CatalogFormat.decode(bytes, source: "the catalog with snapshot \(handle) in \(location)")
            for store in brought.stores {
                let result = await change(store.name, attempt: attempt) { state throws(CatalogRefusal) in
                    try state.adopt(store)
                }
                if case .failure(let refusal) = result { return .failure(refusal) }
            }
            return .success(())
        } catch {
            return .failure(Refusal(CatalogError.corruption(error), attempt: attempt))
        }
    }
}

extension Refusal {
    init(_ error: SnapshotFetchError, attempt: String) {
        switch error {
        case .engine(let error): self.init(error, attempt: attempt)
        case .unknown: self.init(.noSuchSnapshot, "\(attempt): \(error), nor in the data directory; it was released")
        case .damaged: self.init(.corruption, "\(attempt): \(error)")
        case .store:
            self.init(
                .internalError, "\(attempt): \(error); see that the snapshot store can be reached, then try again")
        }
    }
}
