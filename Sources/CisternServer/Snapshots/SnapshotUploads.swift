// Brings the snapshots of a data directory into a snapshot store, in the background, and takes them out again with their release.
//
//   taken ────► waiting ─► export held ─► piece, piece, … ─► manifest: complete
//   released ─► whatever is under way is given up ─► manifest deleted ─► pieces that no manifest names deleted
//   start ────► manifests listed and compared with the directory: what is only there goes, what is only here is uploaded
//
// The namespace is the server's own, so what is in it is known after the start. One step of work is one object, and after each
// the next is chosen anew: a crash between any two leaves pieces without a manifest, or a manifest without a snapshot, and the
// next start removes both.
//
// Threading: calls from any thread. Steps run on one lane, one at a time; nothing waits while the state is locked.

package import CisternFileSystem
package import CisternLSM
package import CisternPrimitives
package import CisternSnapshotStore
internal import Synchronization

/// What the uploads have come to.
package struct UploadStatus: Equatable, Sendable {
    /// Snapshots that are not complete in the store.
    package var pending = 0
    /// What is left of the one under way.
    package var pendingBytes: UInt64 = 0
    /// Complete in the store.
    package var complete = 0
    /// Since the start.
    package var uploads: UInt64 = 0
    package var uploadedBytes: UInt64 = 0
    package var failures: UInt64 = 0
    /// Wall clock; 0: none since the start.
    package var lastCompleteMilliseconds: UInt64 = 0
    /// Why the last step failed; nil when it did not.
    package var error: String?
    /// The start's comparison is done.
    package var isReady = false
}

package final class SnapshotUploads: Sendable {
    private struct Upload: Sendable {
        let export: SnapshotExport
        /// Of files that are whole.
        var done: [StoredFile] = []
        /// Of the file under way.
        var pieces: [StoredPiece] = []
        /// The fronts that were there when the upload began.
        let fronts: [[StoredPiece]]
        var pendingBytes: UInt64

        var handle: String { export.record.handle }
        var current: SnapshotFile? { done.count < export.files.count ? export.files[done.count] : nil }
        /// All that is held for it.
        var held: [StoredPiece] {
            done.flatMap(\.pieces) + pieces + fronts.dropFirst(done.count + (current == nil ? 0 : 1)).joined()
        }
    }

    private struct State: Sendable {
        var ledger = UploadLedger()
        var waiting: [String] = []
        /// Whose export was asked for.
        var beginning: String?
        var active: Upload?
        /// Objects to delete, in this order.
        var garbage: [String] = []
        var status = UploadStatus()
        var isScheduled = false
        var failuresInARow = 0
        var isStopped = false
        var waiters: [String: [@Sendable (Bool) -> Void]] = [:]
    }

    private enum Step: Sendable {
        case reconcile
        case delete([String])
        case begin(String)
        case piece(SnapshotFile, path: String, StoredPiece, at: UInt64)
        case manifest(Upload)
    }

    private let store: any SnapshotStore
    private let namespace: String
    private let engine: Engine
    private let fileSystem: any FileSystem
    private let lane: any BackgroundLane
    private let time: any TimeSource
    private let catalog: @Sendable (String) -> [UInt8]
    /// Makes names of pieces that no earlier process has used.
    private let nonce: String
    private let pieceNumber = Atomic<UInt64>(0)
    private let pieceBytesMax: UInt64
    private let state = Mutex(State())

    private static let deletionsMax = 64
    private static let retryFirstMilliseconds: UInt64 = 100
    private static let retryLastMilliseconds: UInt64 = 30_000

    /// - Parameters:
    ///   - namespace: the id of the data directory's server.
    ///   - lane: this object's alone; it stops it.
    ///   - nonce: not used before in this namespace.
    ///   - catalog: the catalog file's bytes for a store.
    package init(
        store: any SnapshotStore, namespace: String, engine: Engine, fileSystem: any FileSystem,
        lane: any BackgroundLane,
        time: any TimeSource, nonce: UInt64, pieceBytesMax: UInt64 = StoredPiece.bytesMax,
        catalog: @escaping @Sendable (String) -> [UInt8]
    ) {
        precondition(StoreLayout.isNamespace(namespace), "\(namespace) is no namespace of a snapshot store")
        self.store = store
        self.namespace = namespace
        self.engine = engine
        self.fileSystem = fileSystem
        self.lane = lane
        self.time = time
        self.nonce = String(nonce, radix: 16)
        self.pieceBytesMax = min(pieceBytesMax, StoredPiece.bytesMax)
        self.catalog = catalog
        schedule()
    }

    package var status: UploadStatus {
        state.withLock { state in
            var status = state.status
            status.pending = state.waiting.count + (state.beginning == nil ? 0 : 1) + (state.active == nil ? 0 : 1)
            status.pendingBytes = state.active?.pendingBytes ?? 0
            status.complete = state.ledger.handles.count
            return status
        }
    }

    /// True when the snapshot can be had from the store, whatever becomes of this machine.
    package func isComplete(_ handle: String) -> Bool { state.withLock { $0.ledger.isStored(handle) } }

    /// A snapshot is on the directory's disk.
    package func taken(_ handle: String) {
        state.withLock { state in
            let isKnown =
                state.ledger.isStored(handle) || state.waiting.contains(handle) || state.beginning == handle
                || state.active?.handle == handle
            if !isKnown { state.waiting.append(handle) }
        }
        schedule()
    }

    /// Tells when the snapshot is complete in the store, at once if it is.
    /// - Parameter completion: on any thread. False: it was released first, or the server stops.
    package func whenComplete(_ handle: String, completion: @escaping @Sendable (Bool) -> Void) {
        let known = state.withLock { state -> Bool? in
            if state.ledger.isStored(handle) { return true }
            if state.isStopped { return false }
            state.waiters[handle, default: []].append(completion)
            return nil
        }
        if let known { return completion(known) }
        // Released before, so nothing will tell.
        if engine.snapshotRecord(handle) == nil {
            let waiters = state.withLock { $0.waiters.removeValue(forKey: handle) ?? [] }
            for waiter in waiters { waiter(false) }
        }
    }

    /// Snapshots are gone from the directory's disk, durably.
    package func released(_ handles: [String]) {
        let waiters = state.withLock { state in
            for handle in handles { forget(handle, &state) }
            return handles.flatMap { state.waiters.removeValue(forKey: $0) ?? [] }
        }
        for waiter in waiters { waiter(false) }
        schedule()
    }

    /// Waits for the step under way. What is left is done after the next start.
    package func stop() {
        let waiters = state.withLock { state in
            state.isStopped = true
            // Files are let go of while the engine is there.
            state.active = nil
            defer { state.waiters = [:] }
            return state.waiters.values.flatMap(\.self)
        }
        for waiter in waiters { waiter(false) }
        lane.stop()
    }

    private func forget(_ handle: String, _ state: inout State) {
        state.waiting.removeAll { $0 == handle }
        if state.beginning == handle { state.beginning = nil }
        let manifest = StoreLayout.manifest(handle, in: namespace)
        if let active = state.active, active.handle == handle {
            state.active = nil
            // Its manifest may be being put at this moment, and then it is deleted behind that.
            state.garbage.append(manifest)
            discard(state.ledger.release(active.held), &state)
        }
        if let dead = state.ledger.remove(handle) {
            state.garbage.append(manifest)
            discard(dead, &state)
        }
    }

    private func discard(_ pieces: [String], _ state: inout State) {
        state.garbage += pieces.map { StoreLayout.piece($0, in: namespace) }
    }

    // MARK: Steps

    private func schedule(afterMilliseconds delay: UInt64 = 0) {
        let isNew = state.withLock { state in
            if state.isScheduled || state.isStopped { return false }
            state.isScheduled = true
            return true
        }
        guard isNew else { return }
        if delay == 0 {
            lane.submit { [self] in run() }
        } else {
            lane.submit(afterMilliseconds: delay) { [self] in run() }
        }
    }

    private func run() {
        guard let step = state.withLock({ $0.isStopped ? nil : next(&$0) }) else {
            state.withLock { $0.isScheduled = false }
            // Something may have come between the two.
            if state.withLock({ !$0.isStopped && hasWork($0) }) { schedule() }
            return
        }
        var failure: String?
        do throws(SnapshotStoreError) {
            try perform(step)
        } catch {
            failure = "\(error)"
        }
        let delay = state.withLock { state -> UInt64 in
            state.isScheduled = false
            state.status.error = failure
            guard failure != nil else {
                state.failuresInARow = 0
                return 0
            }
            state.status.failures += 1
            state.failuresInARow += 1
            let doublings = min(state.failuresInARow - 1, 9)
            return min(
                SnapshotUploads.retryFirstMilliseconds << UInt64(doublings), SnapshotUploads.retryLastMilliseconds)
        }
        schedule(afterMilliseconds: delay)
    }

    private func hasWork(_ state: State) -> Bool {
        !state.status.isReady || !state.garbage.isEmpty || state.active != nil
            || state.beginning == nil && !state.waiting.isEmpty
    }

    private func next(_ state: inout State) -> Step? {
        if !state.status.isReady { return .reconcile }
        // First, so that a manifest which is put again is not deleted by what it replaces.
        if !state.garbage.isEmpty { return .delete(Array(state.garbage.prefix(SnapshotUploads.deletionsMax))) }
        if state.active != nil { return continueUpload(&state) }
        if state.beginning == nil, !state.waiting.isEmpty {
            let handle = state.waiting.removeFirst()
            state.beginning = handle
            return .begin(handle)
        }
        return nil
    }

    /// The next piece, named and held; the manifest when there is none.
    private func continueUpload(_ state: inout State) -> Step? {
        guard var upload = state.active else { return nil }
        while let file = upload.current {
            let offset = upload.pieces.reduce(0) { $0 + $1.bytes }
            if offset < file.bytes {
                state.active = upload
                let number = pieceNumber.add(1, ordering: .relaxed).newValue
                let name = "\(SnapshotUploads.letter(file.kind))\(file.number).\(nonce).\(String(number, radix: 16))"
                let bytes = min(file.bytes - offset, pieceBytesMax)
                return .piece(
                    file, path: upload.export.path(of: file), StoredPiece(name: name, bytes: bytes, checksum: 0),
                    at: offset)
            }
            upload.done.append(
                StoredFile(
                    kind: file.kind.rawValue, tree: file.tree, number: file.number, bytes: file.bytes,
                    pieces: upload.pieces))
            upload.pieces = upload.done.count < upload.fronts.count ? upload.fronts[upload.done.count] : []
        }
        state.active = upload
        return .manifest(upload)
    }

    private static func letter(_ kind: SnapshotFile.Kind) -> String {
        switch kind {
        case .table: "t"
        case .values: "v"
        case .log: "l"
        }
    }

    private func perform(_ step: Step) throws(SnapshotStoreError) {
        switch step {
        case .reconcile: try reconcile()
        case .delete(let names):
            try store.delete(names)
            state.withLock { $0.garbage.removeFirst(names.count) }
        case .begin(let handle): begin(handle)
        case .piece(let file, let path, let piece, let offset): try put(piece, of: file, path, at: offset)
        case .manifest(let upload): try putManifest(upload)
        }
    }

    private func begin(_ handle: String) {
        engine.exportSnapshot(handle) { [self] result in
            state.withLock { state in
                guard state.beginning == handle, !state.isStopped else { return }
                state.beginning = nil
                // Unknown: it was released meanwhile.
                guard case .success(let export) = result else { return }
                let fronts = export.files.map { state.ledger.front(of: $0) }
                for (file, front) in zip(export.files, fronts) {
                    state.ledger.hold(front, of: UploadLedger.FileKey(file))
                }
                let bytes = zip(export.files, fronts).reduce(UInt64(0)) { sum, pair in
                    sum + pair.0.bytes - pair.1.reduce(0) { $0 + $1.bytes }
                }
                state.active = Upload(export: export, pieces: fronts.first ?? [], fronts: fronts, pendingBytes: bytes)
            }
            schedule()
        }
    }

    private func put(
        _ template: StoredPiece, of file: SnapshotFile, _ path: String, at offset: UInt64
    ) throws(SnapshotStoreError) {
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try fileSystem.openRead(path).readBytes(offset..<(offset + template.bytes))
        } catch {
            if state.withLock({ $0.active == nil }) { return }
            throw SnapshotStoreError(
                operation: "read for", name: template.name, location: store.location, reason: "\(error)",
                isTransient: true)
        }
        let piece = StoredPiece(name: template.name, bytes: template.bytes, checksum: CRC32C.checksum(bytes))
        let isWanted = state.withLock { state -> Bool in
            guard var upload = state.active, upload.current == file else { return false }
            state.ledger.hold(piece, behind: upload.pieces, of: UploadLedger.FileKey(file))
            upload.pieces.append(piece)
            state.active = upload
            return true
        }
        guard isWanted else { return }
        do throws(SnapshotStoreError) {
            _ = try store.put(StoreLayout.piece(piece.name, in: namespace), bytes)
        } catch {
            // Whether it is there is not known: another name for the next attempt.
            state.withLock { state in
                guard var upload = state.active, upload.pieces.last == piece else { return }
                upload.pieces.removeLast()
                state.active = upload
                discard(state.ledger.release([piece]), &state)
            }
            throw error
        }
        state.withLock { state in
            state.status.uploadedBytes += piece.bytes
            guard state.active?.pieces.last == piece else { return }
            state.active?.pendingBytes -= piece.bytes
        }
    }

    private func putManifest(_ upload: Upload) throws(SnapshotStoreError) {
        let record = upload.export.record
        let manifest = StoredSnapshot(
            handle: record.handle, record: SnapshotFormat.encode(record), catalog: catalog(record.identity.store),
            files: upload.done)
        let name = StoreLayout.manifest(record.handle, in: namespace)
        let bytes = manifest.encode()
        if try !store.put(name, bytes) {
            // An attempt that failed has put it, or it is one that the start could not read. The second kind must not pass for
            // complete, and of both the snapshot that is here is what the name stands for.
            try store.delete([name])
            guard try store.put(name, bytes) else {
                throw SnapshotStoreError(
                    operation: "put", name: name, location: store.location,
                    reason: "it is there again after it was deleted; see that no other server has the id \(namespace)",
                    isTransient: true)
            }
        }
        let now = time.wallMilliseconds
        let waiters = state.withLock { state -> [@Sendable (Bool) -> Void] in
            guard state.active?.handle == record.handle else { return [] }
            state.active = nil
            state.ledger.add(record.handle, upload.done)
            state.status.uploads += 1
            state.status.lastCompleteMilliseconds = now
            return state.waiters.removeValue(forKey: record.handle) ?? []
        }
        for waiter in waiters { waiter(true) }
    }

    // MARK: The start

    private func reconcile() throws(SnapshotStoreError) {
        let prefixes = [StoreLayout.snapshots(of: namespace), StoreLayout.files(of: namespace)]
        for prefix in prefixes { try store.removeLeftovers(prefix) }
        let pieces = try store.list(prefixes[1])
        let sizes = Dictionary(pieces.map { ($0.name, $0.bytes) }) { first, _ in first }
        // A record here that cannot be read may be that of any snapshot there.
        let keepsUnknown = engine.damagedParts.contains { $0.tree == nil }
        var ledger = UploadLedger()
        var garbage: [String] = []
        var isSure = true
        for object in try store.list(prefixes[0]) {
            guard let bytes = try store.get(object.name, limit: StoredSnapshot.bytesMax) else { continue }
            let manifest: StoredSnapshot
            do throws(StoredSnapshotDamage) {
                manifest = try StoredSnapshot.decode(bytes)
            } catch {
                // It may be of a newer program, and so may be pieces that nothing else names.
                isSure = false
                continue
            }
            let isHere = engine.snapshotRecord(manifest.handle).map { SnapshotFormat.encode($0) == manifest.record }
            let isWhole = manifest.files.lazy.flatMap(\.pieces).allSatisfy {
                sizes[StoreLayout.piece($0.name, in: namespace)] == $0.bytes
            }
            if isHere == true && isWhole || isHere == nil && keepsUnknown {
                for file in manifest.files {
                    ledger.hold(file.pieces, of: UploadLedger.FileKey(file), isShared: isHere == true)
                }
                ledger.add(manifest.handle, manifest.files)
            } else {
                garbage.append(object.name)
            }
        }
        if isSure {
            let needed = Set(ledger.pieceNames.map { StoreLayout.piece($0, in: namespace) })
            garbage += pieces.map(\.name).filter { !needed.contains($0) }
        }
        let here = engine.snapshotHandles
        let waiters = state.withLock { [ledger, garbage] state in
            state.ledger = ledger
            state.garbage += garbage
            let missing = here.filter { !ledger.isStored($0) && !state.waiting.contains($0) }
            state.waiting = missing + state.waiting.filter { !ledger.isStored($0) }
            state.status.isReady = true
            return ledger.handles.flatMap { state.waiters.removeValue(forKey: $0) ?? [] }
        }
        for waiter in waiters { waiter(true) }
        // Released while the listing was read, when nobody here knew of it.
        let gone = ledger.handles.filter { !keepsUnknown && engine.snapshotRecord($0) == nil }
        if !gone.isEmpty { released(Array(gone)) }
    }
}
