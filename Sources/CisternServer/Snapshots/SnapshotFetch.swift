// Brings snapshots from a snapshot store into a data directory, for a restore on a server that does not have them.
//
//   manifest found ─► pieces read, checked and laid into DIR/import in the layout of a data directory ─► Engine.importSnapshot ─►
//   DIR/import emptied
//
// Where the snapshot stays in the store for as long as it is needed, placeholders are laid instead of tables: the restore takes as
// long as it takes to read what every table begins and ends with, and `Hydration` brings the rest.
//
// One snapshot after the other, on one lane: when several workers of a job ask for the same ones, the first brings them. A crash
// leaves what is in DIR/import, which the next start removes.

package import CisternFileSystem
package import CisternLSM
package import CisternPrimitives
package import CisternSnapshotStore
internal import Synchronization

package enum SnapshotFetchError: Error, Sendable, CustomStringConvertible {
    case store(SnapshotStoreError)
    case unknown(handle: String, location: String)
    /// The store has it, and not as it should be.
    case damaged(object: String, location: String, detail: String)
    case engine(EngineError)

    package var description: String {
        switch self {
        case .store(let error): "\(error)"
        case .unknown(let handle, let location): "there is no snapshot \"\(handle)\" in \(location)"
        case .damaged(let object, let location, let detail):
            "\(object) in \(location) is damaged: \(detail); restore from another snapshot"
        case .engine(let error): "\(error)"
        }
    }
}

/// A call of the store, whose error is one of fetching.
func inStore<Value>(_ body: () throws(SnapshotStoreError) -> Value) throws(SnapshotFetchError) -> Value {
    do throws(SnapshotStoreError) { return try body() } catch { throw .store(error) }
}

/// A snapshot that has been brought.
package struct FetchedSnapshot: Sendable {
    package let info: SnapshotInfo
    /// 0 when the snapshot was here already.
    package let fetchedBytes: UInt64
}

/// A manifest and whose it is.
package struct FoundManifest: Sendable {
    package let namespace: String
    package let manifest: StoredSnapshot
    package let record: SnapshotRecord
}

package final class SnapshotFetch: Sendable {
    package static let directoryName = "import"

    private let store: any SnapshotStore
    private let engine: Engine
    private let fileSystem: any FileSystem
    private let hydration: Hydration?
    private let lane: any BackgroundLane
    private let root: String
    private let nextNumber = Atomic<UInt64>(1)
    private let queue = Mutex(Queue())

    private struct Queue: Sendable {
        var requests: [Request] = []
        var isStopped = false
    }

    /// - Parameters:
    ///   - fileSystem: the engine's.
    ///   - hydration: that of the file system; nil: everything is brought at once.
    ///   - lane: this object's alone; it stops it.
    package init(
        store: any SnapshotStore, engine: Engine, fileSystem: any FileSystem, hydration: Hydration? = nil,
        lane: any BackgroundLane
    ) {
        self.store = store
        self.engine = engine
        self.fileSystem = fileSystem
        self.hydration = hydration
        self.lane = lane
        root = engine.options.directory + "/" + SnapshotFetch.directoryName
        lane.submit { [self] in removeStaged(root) }
    }

    /// The manifest of a handle, for its catalog, which belongs here before the snapshot does.
    /// - Parameter completion: on the lane.
    package func find(
        _ handle: String, completion: @escaping @Sendable (Result<FoundManifest, SnapshotFetchError>) -> Void
    ) {
        ask(Request(handle: handle, work: .find(completion)))
    }

    /// Makes a snapshot of the store one of the data directory.
    /// - Parameters:
    ///   - name: the store of stream state it is to be of, for a fork; nil: the one it is of.
    ///   - completion: on a background thread, when it is durable here.
    package func bring(
        _ handle: String, as name: String? = nil,
        completion: @escaping @Sendable (Result<FetchedSnapshot, SnapshotFetchError>) -> Void
    ) {
        ask(Request(handle: handle, work: .bring(nil, name: name, behind: false, completion)))
    }

    /// The same for a manifest that was found.
    /// - Parameter behind: tables may come later, because nobody takes the snapshot out of the store as long as they do not.
    package func bring(
        _ found: FoundManifest, behind: Bool = false,
        completion: @escaping @Sendable (Result<FetchedSnapshot, SnapshotFetchError>) -> Void
    ) {
        ask(Request(handle: found.manifest.handle, work: .bring(found, name: nil, behind: behind, completion)))
    }

    private struct Request: Sendable {
        enum Work: Sendable {
            case find(@Sendable (Result<FoundManifest, SnapshotFetchError>) -> Void)
            case bring(
                FoundManifest?, name: String?, behind: Bool,
                @Sendable (Result<FetchedSnapshot, SnapshotFetchError>) -> Void)
        }

        let handle: String
        let work: Work

        func fail(_ error: SnapshotFetchError) {
            switch work {
            case .find(let completion): completion(.failure(error))
            case .bring(_, _, _, let completion): completion(.failure(error))
            }
        }
    }

    private func ask(_ request: Request) {
        // nil: stopped.
        let isFirst = queue.withLock { queue -> Bool? in
            if queue.isStopped { return nil }
            queue.requests.append(request)
            return queue.requests.count == 1
        }
        guard let isFirst else { return request.fail(.engine(.closed(tree: request.handle))) }
        if isFirst { lane.submit { [self] in runFirst() } }
    }

    /// The first one stays there until it is answered.
    private func runFirst() {
        guard let request = queue.withLock({ $0.requests.first }) else { return }
        switch request.work {
        case .find(let completion):
            do throws(SnapshotFetchError) {
                let found = try SnapshotFetch.find(request.handle, in: store)
                finish { completion(.success(found)) }
            } catch {
                finish { completion(.failure(error)) }
            }
        case .bring(let found, let name, let behind, let completion):
            runBring(request.handle, found, name, behind: behind) { [self] result in finish { completion(result) } }
        }
    }

    private func runBring(
        _ handle: String, _ found: FoundManifest?, _ name: String?, behind: Bool,
        completion: @escaping @Sendable (Result<FetchedSnapshot, SnapshotFetchError>) -> Void
    ) {
        if name == nil, let known = engine.snapshotRecord(handle) {
            return completion(.success(FetchedSnapshot(info: known.info, fetchedBytes: 0)))
        }
        let place = root + "/\(nextNumber.add(1, ordering: .relaxed).oldValue)"
        do throws(SnapshotFetchError) {
            let found = if let found { found } else { try SnapshotFetch.find(handle, in: store) }
            try lay(found, in: place, behind: behind)
            engine.importSnapshot(found.record, from: place, as: name) { [self] result in
                lane.submit { [self] in
                    removeStaged(place)
                    if behind { hydration?.wake(afterMilliseconds: SnapshotFetch.hydrationDelayMilliseconds) }
                    let fetched = result.map { FetchedSnapshot(info: $0, fetchedBytes: found.manifest.bytes) }
                    completion(fetched.mapError { .engine($0) })
                }
            }
        } catch {
            removeStaged(place)
            completion(.failure(error))
        }
    }

    private func finish(_ answer: () -> Void) {
        let isLast = queue.withLock { queue in
            queue.requests.removeFirst()
            return queue.requests.isEmpty
        }
        answer()
        if !isLast { lane.submit { [self] in runFirst() } }
    }

    /// What was asked for and not answered is answered with an error.
    package func stop() {
        lane.stop()
        let left = queue.withLock { queue in
            queue.isStopped = true
            defer { queue.requests = [] }
            return queue.requests
        }
        for request in left { request.fail(.engine(.closed(tree: request.handle))) }
    }

    /// The manifest of a handle, whoever's it is: the first that is whole. Blocks.
    package static func find(
        _ handle: String, in store: any SnapshotStore
    ) throws(SnapshotFetchError) -> FoundManifest {
        let objects = try inStore { () throws(SnapshotStoreError) in try store.list(StoreLayout.snapshots) }
        var damage: SnapshotFetchError?
        for object in objects {
            guard let namespace = StoreLayout.namespace(ofManifest: object.name),
                object.name == StoreLayout.manifest(handle, in: namespace),
                let bytes = try inStore({ () throws(SnapshotStoreError) in
                    try store.get(object.name, limit: StoredSnapshot.bytesMax)
                })
            else { continue }
            switch read(bytes, object.name, namespace, store.location) {
            case .success(let found): if found.manifest.handle == handle { return found }
            case .failure(let error): damage = damage ?? error
            }
        }
        if let damage { throw damage }
        throw .unknown(handle: handle, location: store.location)
    }

    /// Reads a manifest and the record in it, which must name the same files.
    package static func read(
        _ bytes: [UInt8], _ name: String, _ namespace: String, _ location: String
    ) -> Result<FoundManifest, SnapshotFetchError> {
        func damaged(_ detail: String) -> Result<FoundManifest, SnapshotFetchError> {
            .failure(.damaged(object: name, location: location, detail: detail))
        }
        let manifest: StoredSnapshot
        do throws(StoredSnapshotDamage) {
            manifest = try StoredSnapshot.decode(bytes)
        } catch {
            return damaged("byte \(error.offset): \(error.detail)")
        }
        do throws(EngineError) {
            let record = try SnapshotFormat.decode(manifest.record, path: name)
            let named = manifest.files.map { UploadLedger.FileKey($0) }
            guard Set(named) == Set(record.files.map { UploadLedger.FileKey($0) }), record.handle == manifest.handle,
                Set(named).count == named.count
            else { return damaged("the manifest does not name the files of the snapshot it has") }
            return .success(FoundManifest(namespace: namespace, manifest: manifest, record: record))
        } catch {
            return damaged("\(error)")
        }
    }

    /// A piece's bytes, checked. Blocks.
    package static func piece(
        _ piece: StoredPiece, of namespace: String, in store: any SnapshotStore
    ) throws(SnapshotFetchError) -> [UInt8] {
        let name = StoreLayout.piece(piece.name, in: namespace)
        let bytes = try inStore { () throws(SnapshotStoreError) in
            try store.get(name, limit: Int(StoredPiece.bytesMax))
        }
        guard let bytes else {
            throw .damaged(object: name, location: store.location, detail: "the object is missing")
        }
        guard bytes.count == Int(piece.bytes) else {
            throw .damaged(
                object: name, location: store.location,
                detail: "it has \(bytes.count) bytes, and the manifest says \(piece.bytes)")
        }
        let sum = CRC32C.checksum(bytes)
        guard sum == piece.checksum else {
            throw .damaged(
                object: name, location: store.location,
                detail: "its checksum is \(sum), and the manifest says \(piece.checksum)")
        }
        return bytes
    }

    // MARK: Files

    /// Until then the attach that needs the snapshot has the disk for itself, most of the time.
    private static let hydrationDelayMilliseconds: UInt64 = 1000

    private func lay(_ found: FoundManifest, in place: String, behind: Bool) throws(SnapshotFetchError) {
        // Tables with value files are written anew by the import, which reads all of them.
        let plain = Set(
            found.record.levels.joined().filter { $0.summary.values.isEmpty }.map(\.number))
        for file in found.manifest.files {
            guard let kind = SnapshotFile.Kind(rawValue: file.kind) else {
                throw .damaged(
                    object: StoreLayout.manifest(found.manifest.handle, in: found.namespace), location: store.location,
                    detail: "a file is of kind \(file.kind), which this program does not know")
            }
            let target = SnapshotFile(kind: kind, tree: file.tree, number: file.number, bytes: file.bytes)
            if behind, kind == .table, plain.contains(file.number), let hydration {
                try staging { () throws(FileError) in
                    try fileSystem.createDirectory(target.directory(place))
                    try hydration.fileSystem.place(
                        Placeholder(namespace: found.namespace, file: file), at: target.path(place))
                }
                continue
            }
            let output = try staging { () throws(FileError) in
                try fileSystem.createDirectory(target.directory(place))
                return try fileSystem.createAppend(target.path(place))
            }
            defer { output.close() }
            for piece in file.pieces {
                let bytes = try SnapshotFetch.piece(piece, of: found.namespace, in: store)
                try staging { () throws(FileError) in
                    try output.append(bytes)
                    output.startWriteback()
                }
            }
            // Durable before a record refers to it.
            try staging { () throws(FileError) in try output.sync() }
        }
    }

    private func staging<Value>(_ body: () throws(FileError) -> Value) throws(SnapshotFetchError) -> Value {
        do throws(FileError) { return try body() } catch { throw .engine(.file(error)) }
    }

    /// Removes a directory with everything in it. What cannot be removed is, at the next start.
    private func removeStaged(_ directory: String) {
        do throws(FileError) {
            guard try fileSystem.exists(directory) else { return }
            for name in try fileSystem.list(directory) {
                let path = directory + "/" + name
                // A directory that is not empty cannot be removed, and a file can.
                do throws(FileError) { try fileSystem.remove(path) } catch { removeStaged(path) }
            }
            try fileSystem.remove(directory)
        } catch {
            return
        }
    }
}
