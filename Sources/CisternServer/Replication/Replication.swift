// Trees that outlive their server's disk: each has a record in metadata, a base in the snapshot store, and a log on log nodes.
//
//   record ─► whose it is, epoch, writer, base          base + what the log has behind it = all that was acknowledged
//
// The newest record of a key group wins: a restore writes its own, with a higher epoch, before it removes those it replaces. A server
// that wants a tree counts the record's generation up, takes the log over, which fences whoever wrote it, and then reads it.

package import CisternChangelog
package import CisternLSM
internal import CisternLogProtocol
package import CisternMetadata
internal import CisternPrimitives
package import Logging
internal import Synchronization

/// What a server needs to replicate.
package struct ReplicationServices: Sendable {
    package let metadata: any MetadataStore
    package let keys: MetadataKeys
    package let logs: LedgerStore
    package let client: LedgerClient
    package let options: ChangelogOptions

    package init(
        metadata: any MetadataStore, keys: MetadataKeys, logs: LedgerStore, client: LedgerClient,
        options: ChangelogOptions
    ) {
        self.metadata = metadata
        self.keys = keys
        self.logs = logs
        self.client = client
        self.options = options
    }
}

package final class Replication: Sendable {
    /// A record as it was found.
    struct Found: Sendable {
        let id: String
        let entry: Versioned<TreeRecord>

        var claim: TreeRecord { entry.value }
    }

    /// How often metadata is asked again when it gives no answer, or another one was faster.
    static let attemptsMax = 20

    let records: RecordStore
    let services: ReplicationServices
    let engine: Engine
    let remote: RemoteSnapshots
    /// The id of the data directory.
    let server: [UInt8]
    let logger: Logger
    let counters = ReplicationCounters()

    package init(
        _ services: ReplicationServices, engine: Engine, remote: RemoteSnapshots, server: [UInt8], logger: Logger
    ) {
        self.services = services
        self.engine = engine
        self.remote = remote
        self.server = server
        self.logger = logger
        records = RecordStore(services.metadata)
        Replication.removeRemade(engine)
    }

    func key(of id: String, _ store: String) -> String { services.keys.tree(id, ofStore: store) }

    func logName(_ id: String) -> String { "tree-" + id }

    func pause() async { try? await Task.sleep(for: services.options.retryInterval) }

    /// Asks metadata again while it gives no answer.
    func asking<Value>(_ body: () async throws(MetadataError) -> Value) async throws(ReplicationError) -> Value {
        var attempts = 0
        while true {
            do throws(MetadataError) {
                return try await body()
            } catch {
                attempts += 1
                guard error.isUnavailable, attempts < Replication.attemptsMax else { throw .metadata(error) }
                await pause()
            }
        }
    }

    // MARK: Records

    /// The trees of a store. A record that a newer one overlaps is what an interruption left: it goes, with its log.
    func trees(ofStore store: String) async throws(ReplicationError) -> [Found] {
        let prefix = services.keys.trees(ofStore: store)
        var found: [Found] = []
        var after: String?
        repeat {
            let page = try await asking { () throws(MetadataError) in
                try await records.list(TreeRecord.self, prefix: prefix, after: after)
            }
            found += page.records.map { Found(id: String($0.key.dropFirst(prefix.count)), entry: $0.found) }
            after = page.next
        } while after != nil
        let newest = found.sorted(by: Replication.isNewer)
        var kept: [Found] = []
        for next in newest {
            if kept.contains(where: { $0.claim.keyGroups.overlaps(next.claim.keyGroups) }) {
                try await remove(next, ofStore: store)
            } else {
                kept.append(next)
            }
        }
        return kept
    }

    /// Of two that overlap the one with the higher epoch counts; of two with the same the one that was there first.
    private static func isNewer(_ left: Found, _ right: Found) -> Bool {
        (right.claim.epoch, left.entry.version) < (left.claim.epoch, right.entry.version)
    }

    /// Removes a tree's record and then its log. A record that has changed stays.
    func remove(_ found: Found, ofStore store: String) async throws(ReplicationError) {
        do throws(MetadataError) {
            try await records.store.delete(key(of: found.id, store), expected: found.entry.version)
        } catch {
            switch error.reason {
            case .missing: break
            case .conflict: return
            default: throw .metadata(error)
            }
        }
        try await asking { () throws(MetadataError) in try await services.logs.deleteLog(logName(found.id)) }
    }

    // MARK: Taking

    /// A tree that is new. Its record is there, before there is anything else of it, and newer than those of `replaced`.
    /// - Parameter held: those of the handles that were released before.
    func begin(
        _ identity: TreeIdentity, epoch: UInt64, writer: String, from handles: [String], held: [String],
        replacing replaced: [Found]
    ) async throws(ReplicationError) -> TreeOwnership {
        var random = SystemRandomNumberGenerator()
        let id = hexadecimal((0..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) })
        let changelog = try await takeOverLog(id, attempt: 1)
        let record = TreeRecord(
            keyGroups: identity.keyGroups, keyGroupCount: UInt32(identity.keyGroupCount), epoch: epoch, writer: writer,
            server: server, tree: 0, generation: 1,
            base: TreeRecord.Base(epoch: epoch, sequence: 0, handles: handles), held: held)
        let version = try await create(record, id, identity.store)
        // Another server may have done the same at this moment. Both look, and the later one gives way.
        let known = Set(replaced.map(\.id))
        let mine = Found(id: id, entry: Versioned(record, version: version))
        for other in try await trees(ofStore: identity.store) where !known.contains(other.id) {
            guard other.id != id, other.claim.keyGroups.overlaps(identity.keyGroups) else { continue }
            try await remove(mine, ofStore: identity.store)
            throw .lost(epoch: other.claim.epoch)
        }
        return TreeOwnership(
            id, store: identity.store, record: mine.entry, changelog: changelog, replication: self)
    }

    private func create(
        _ record: TreeRecord, _ id: String, _ store: String
    ) async throws(ReplicationError) -> MetadataVersion {
        try await asking { () throws(MetadataError) in
            do throws(MetadataError) {
                return try await records.create(key(of: id, store), record)
            } catch {
                // An answer that was lost.
                guard case .exists = error.reason,
                    let found = try await records.get(TreeRecord.self, key(of: id, store)), found.value == record
                else { throw error }
                return found.version
            }
        }
    }

    /// Takes a tree that is there, from whoever has it: an older owner cannot acknowledge any more when this returns.
    /// - Parameter tree: the number it has here; 0 when it is still to be made.
    func take(
        _ found: Found, ofStore store: String, epoch: UInt64, writer: String, tree: UInt64
    ) async throws(ReplicationError) -> TreeOwnership {
        var record = found.entry.value
        record.server = server
        record.generation += 1
        record.epoch = max(record.epoch, epoch)
        record.writer = writer
        record.tree = tree
        let version = try await swap(found, to: record, store)
        let changelog = try await takeOverLog(found.id, attempt: record.generation)
        return TreeOwnership(
            found.id, store: store, record: Versioned(record, version: version), changelog: changelog,
            replication: self)
    }

    private func swap(
        _ found: Found, to record: TreeRecord, _ store: String
    ) async throws(ReplicationError) -> MetadataVersion {
        try await asking { () throws(MetadataError) in
            do throws(MetadataError) {
                return try await records.compareAndSwap(
                    key(of: found.id, store), expected: found.entry.version, new: record)
            } catch {
                guard case .conflict = error.reason,
                    let now = try await records.get(TreeRecord.self, key(of: found.id, store)), now.value == record
                else { throw error }
                return now.version
            }
        }
    }

    private func takeOverLog(_ id: String, attempt: UInt64) async throws(ReplicationError) -> Changelog {
        do throws(ChangelogError) {
            return try await Changelog.takeOver(
                logName(id), attempt: attempt, client: services.client, metadata: services.logs,
                options: services.options)
        } catch {
            throw .log(error)
        }
    }

    // MARK: Snapshots

    /// Returns when the snapshot can be had from the snapshot store, whoever has put it there; false when it was released first.
    func isStored(_ handle: String) async -> Bool {
        if remote.uploads.isComplete(handle) { return true }
        if case .success = await remote.find(handle) { return true }
        return await withCheckedContinuation { continuation in
            whenUploaded(handle) { continuation.resume(returning: $0) }
        }
    }

    func whenUploaded(_ handle: String, completion: @escaping @Sendable (Bool) -> Void) {
        remote.uploads.whenComplete(handle, completion: completion)
    }

    /// Releases snapshots that a tree held.
    func release(_ handles: [String]) async {
        if handles.isEmpty { return }
        _ = await withCheckedContinuation { continuation in
            engine.releaseSnapshots(handles) { continuation.resume(returning: $0) }
        }
        remote.uploads.released(handles)
    }
}
