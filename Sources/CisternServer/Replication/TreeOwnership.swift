// What a server has of one tree whose log is replicated: the tree's record in metadata and its log, as long as nobody else takes
// them. Changes of the record come one after the other.
//
//   snapshot uploaded ─► the base moves to it ─► the log is cut before it ─► snapshots that only the tree needed are released

internal import CisternChangelog
internal import CisternLSM
internal import CisternLogProtocol
internal import CisternMetadata
internal import CisternPrimitives
internal import Logging
internal import Synchronization

enum ReplicationError: Error, Sendable, CustomStringConvertible {
    /// Another server has the tree, with this epoch.
    case lost(epoch: UInt64)
    case metadata(MetadataError)
    case log(ChangelogError)

    var description: String {
        switch self {
        case .lost(let epoch): "another server has taken the tree over, for a writer of epoch \(epoch)"
        case .metadata(let error): "\(error)"
        case .log(let error): "\(error)"
        }
    }
}

actor TreeOwnership {
    nonisolated let id: String
    nonisolated let store: String
    nonisolated let changelog: Changelog
    nonisolated let replica: TreeReplica
    private let replication: Replication
    private(set) var record: Versioned<TreeRecord>
    private var lastUpdate: Task<Void, Never>?
    /// The snapshot that becomes the base when it is uploaded, and the newest one behind it.
    private var candidate: SnapshotPlace?
    private var next: SnapshotPlace?
    private var isClosed = false

    private struct SnapshotPlace {
        let handle: String
        let position: LogPosition
    }

    init(
        _ id: String, store: String, record: Versioned<TreeRecord>, changelog: Changelog, replication: Replication
    ) {
        self.id = id
        self.store = store
        self.record = record
        self.changelog = changelog
        self.replication = replication
        replica = TreeReplica(changelog)
    }

    /// Changes the record in metadata; done when this returns.
    func update(_ change: @escaping @Sendable (inout TreeRecord) -> Void) async -> Result<Void, ReplicationError> {
        let before = lastUpdate
        let task = Task {
            await before?.value
            return await self.perform(change)
        }
        lastUpdate = Task { _ = await task.value }
        return await task.value
    }

    private func perform(_ change: (inout TreeRecord) -> Void) async -> Result<Void, ReplicationError> {
        var attempts = 0
        while true {
            var new = record.value
            change(&new)
            if new == record.value { return .success(()) }
            do throws(MetadataError) {
                let version = try await replication.records.compareAndSwap(
                    replication.key(of: id, store), expected: record.version, new: new)
                record = Versioned(new, version: version)
                return .success(())
            } catch {
                attempts += 1
                if case .failure(let error) = await reread(after: error, attempts) { return .failure(error) }
            }
        }
    }

    /// After a swap that did not work, or may have: what is there now.
    private func reread(after error: MetadataError, _ attempts: Int) async -> Result<Void, ReplicationError> {
        guard attempts < Replication.attemptsMax else { return .failure(.metadata(error)) }
        switch error.reason {
        case .conflict: break
        case .missing: return .failure(.lost(epoch: record.value.epoch))
        case .unavailable: await replication.pause()
        default: return .failure(.metadata(error))
        }
        switch await look() {
        case .success(let found): record = found
        // The swap is tried again as it was.
        case .failure(.metadata(let error)) where error.isUnavailable: break
        case .failure(let error): return .failure(error)
        }
        return .success(())
    }

    /// The record as it is in metadata, while the tree is this server's.
    func look() async -> Result<Versioned<TreeRecord>, ReplicationError> {
        do throws(MetadataError) {
            guard let found = try await replication.records.get(TreeRecord.self, replication.key(of: id, store)) else {
                return .failure(.lost(epoch: record.value.epoch))
            }
            let isMine =
                found.value.server == record.value.server && found.value.generation == record.value.generation
            return isMine ? .success(found) : .failure(.lost(epoch: found.value.epoch))
        } catch {
            return .failure(.metadata(error))
        }
    }

    // MARK: Snapshots

    /// A snapshot is on the server's disk. Returns when the log says so, so that it can be made again elsewhere.
    nonisolated func note(
        _ snapshot: ReplicatedSnapshot, completion: @escaping @Sendable (Result<Void, EngineError>) -> Void
    ) {
        replica.append(.snapshot(snapshot), through: nil) { [self] result in
            if case .success = result {
                Task { await self.follow(snapshot.handle, at: snapshot.progress.position) }
            }
            completion(result)
        }
    }

    /// The base moves to the snapshot when it is in the snapshot store. While one is on its way, the newest waits.
    func follow(_ handle: String, at position: LogPosition) {
        guard !isClosed, position >= basePosition else { return }
        let place = SnapshotPlace(handle: handle, position: position)
        guard candidate == nil else {
            next = place
            return
        }
        candidate = place
        replication.whenUploaded(handle) { isThere in
            Task { await self.settled(place, isThere: isThere) }
        }
    }

    private var basePosition: LogPosition {
        LogPosition(epoch: record.value.base.epoch, sequence: record.value.base.sequence)
    }

    private func settled(_ place: SnapshotPlace, isThere: Bool) async {
        if isThere { await moveBase(to: place) }
        candidate = nil
        if let newest = next {
            next = nil
            follow(newest.handle, at: newest.position)
        }
    }

    private func moveBase(to place: SnapshotPlace) async {
        let result = await update { record in
            record.base = TreeRecord.Base(
                epoch: place.position.epoch, sequence: place.position.sequence, handles: [place.handle])
        }
        guard case .success = result else { return }
        if let point = replica.place(behind: place.position) {
            // A log that cannot be cut is longer than it has to be; the next snapshot cuts more.
            do throws(ChangelogError) { try await changelog.truncate(to: point) } catch { return }
        }
        await releaseHeld()
    }

    /// Which of these may go now. The others are the tree's until it needs them no more.
    func release(_ handles: [String]) async -> [String] {
        let needed = Set(record.value.base.handles + (candidate.map { [$0.handle] } ?? []))
        let held = handles.filter { needed.contains($0) && !record.value.held.contains($0) }
        if !held.isEmpty {
            let result = await update { record in
                let room = max(0, TreeRecord.handlesMax - record.held.count)
                record.held += held.prefix(room)
            }
            // Without it they stay where they are, for ever at the worst: better than to take them from who has the tree now.
            if case .failure(let error) = result {
                replication.logger.warning(
                    "snapshots that a tree needs may stay after it needs them no more",
                    metadata: ["handles": "\(held)", "error": "\(error)"])
            }
        }
        return handles.filter { !needed.contains($0) }
    }

    private func releaseHeld() async {
        let needed = Set(record.value.base.handles + (candidate.map { [$0.handle] } ?? []))
        let free = record.value.held.filter { !needed.contains($0) }
        guard !free.isEmpty else { return }
        // Gone first: a handle that is not in the record any more is nobody's.
        await replication.release(free)
        _ = await update { record in record.held.removeAll { free.contains($0) } }
    }

    /// The tree is closed. A takeover finds a log that is closed too.
    func close() async {
        isClosed = true
        next = nil
        do throws(ChangelogError) {
            try await changelog.close()
        } catch {
            // A takeover recovers the log; that costs time and nothing else.
            return
        }
    }
}
