// What servers agree on about a store, so that a tree means the same on each: its key groups, its states and its dictionaries, with
// their ids. Whoever gives an id writes it here first, and to its own catalog then.
//
//   catalog/STORE/states            the store and its states, in the format of a catalog file
//   catalog/STORE/dictionary-ID     u16 state ‖ bytes; an id is taken by whoever creates its key
//
// Specification: proto-spec/metadata-records.md.

internal import CisternDaemon
internal import CisternLogProtocol
internal import CisternMetadata
internal import CisternPrimitives
internal import CisternWire

struct SharedCatalog: Sendable {
    let replication: Replication

    /// A store as it is shared.
    private struct Shared {
        var store: CatalogStore
        var version: MetadataVersion
    }

    enum Outcome<Value: Sendable>: Sendable {
        /// What the change came to, and the store behind it, which the server's own catalog adopts now.
        case done(Value, CatalogStore?)
        case refused(CatalogRefusal)
        case failed(ReplicationError)
    }

    /// Makes a change of a store known to all, once it fits what they know. Not durable here.
    func change<Value: Sendable>(
        _ store: String, from local: CatalogState,
        _ change: @Sendable (inout CatalogState) throws(CatalogRefusal) -> Value
    ) async -> Outcome<Value> {
        for _ in 0..<Replication.attemptsMax {
            do throws(ReplicationError) {
                let shared = try await load(store)
                var next = local
                let value: Value
                do throws(CatalogRefusal) {
                    if let shared { try next.adopt(shared.store) }
                    value = try change(&next)
                } catch {
                    return .refused(error)
                }
                guard let changed = next.store(store) else { return .done(value, nil) }
                if try await publish(changed, over: shared) { return .done(value, changed) }
            } catch {
                return .failed(error)
            }
        }
        return .failed(
            .metadata(
                MetadataError(
                    .compareAndSwap, replication.services.keys.catalog(ofStore: store),
                    .unavailable("other servers changed it each time, \(Replication.attemptsMax) times"))))
    }

    // MARK: Metadata

    private func load(_ store: String) async throws(ReplicationError) -> Shared? {
        let prefix = replication.services.keys.catalog(ofStore: store)
        let key = prefix + SharedCatalog.states
        guard let found = try await get(key) else { return nil }
        let decoded: CatalogState
        do throws(CorruptionError) {
            decoded = try CatalogFormat.decode(found.value.bytes, source: key)
        } catch {
            throw .metadata(MetadataError(.get, key, .damaged("\(error)")))
        }
        guard var known = decoded.store(store) else {
            throw .metadata(MetadataError(.get, key, .damaged("it is not of store \"\(store)\"")))
        }
        known.dictionaries = []
        // Ids count from 1, and each was created behind the one before.
        while true {
            let id = UInt32(known.dictionaries.count + 1)
            let key = prefix + SharedCatalog.dictionary(id)
            guard let bytes = try await get(key)?.value.bytes else { break }
            guard bytes.count >= 2 else {
                throw .metadata(MetadataError(.get, key, .damaged("a dictionary of \(bytes.count) bytes")))
            }
            known.dictionaries.append(
                CatalogDictionary(
                    id: id, stateID: UInt16(bytes[0]) | UInt16(bytes[1]) << 8, bytes: Array(bytes[2...])))
        }
        return Shared(store: known, version: found.version)
    }

    private func get(_ key: String) async throws(ReplicationError) -> Versioned<CatalogRecord>? {
        try await replication.asking { () throws(MetadataError) in
            try await replication.records.get(CatalogRecord.self, key)
        }
    }

    /// False when somebody was faster: load again.
    private func publish(_ store: CatalogStore, over shared: Shared?) async throws(ReplicationError) -> Bool {
        let prefix = replication.services.keys.catalog(ofStore: store.name)
        // Dictionaries name states, so states come first.
        if shared.map({ !hasSameStates($0.store, store) }) ?? true {
            var single = CatalogState(serverID: [UInt8](repeating: 0, count: CatalogState.serverIDBytes))
            var states = store
            states.dictionaries = []
            single.stores = [states]
            let record = CatalogRecord(bytes: CatalogFormat.encode(single))
            guard try await put(record, prefix + SharedCatalog.states, over: shared?.version) else { return false }
        }
        for dictionary in store.dictionaries.dropFirst(shared?.store.dictionaries.count ?? 0) {
            let state = [UInt8(truncatingIfNeeded: dictionary.stateID), UInt8(dictionary.stateID >> 8)]
            let record = CatalogRecord(bytes: state + dictionary.bytes)
            guard try await put(record, prefix + SharedCatalog.dictionary(dictionary.id), over: nil) else {
                return false
            }
        }
        return true
    }

    private func put(
        _ record: CatalogRecord, _ key: String, over version: MetadataVersion?
    ) async throws(ReplicationError) -> Bool {
        do throws(MetadataError) {
            if let version {
                _ = try await replication.records.compareAndSwap(key, expected: version, new: record)
            } else {
                _ = try await replication.records.create(key, record)
            }
            return true
        } catch {
            switch error.reason {
            case .exists, .conflict, .missing: return false
            case .unavailable:
                // It may be there: whoever loads again sees.
                await replication.pause()
                return false
            default: throw .metadata(error)
            }
        }
    }

    private func hasSameStates(_ left: CatalogStore, _ right: CatalogStore) -> Bool {
        left.keyGroupCount == right.keyGroupCount && left.states.count == right.states.count
            && zip(left.states, right.states).allSatisfy {
                $0.id == $1.id && $0.name == $1.name && $0.kind == $1.kind
            }
    }

    private static let states = "states"

    private static func dictionary(_ id: UInt32) -> String {
        let digits = String(id, radix: 16)
        return "dictionary-" + String(repeating: "0", count: 8 - digits.count) + digits
    }
}

extension ServerCore {
    /// A durable change of a store in the catalog, which other servers know when it is made. One that changes nothing is answered
    /// without leaving the caller's thread.
    /// - Parameter refreshes: what other servers have changed is looked for in any case.
    func change<Value: Sendable>(
        _ store: String, attempt: String, refreshes: Bool = false,
        _ change: @escaping @Sendable (inout CatalogState) throws(CatalogRefusal) -> Value
    ) async -> Result<Value, Refusal> {
        if !(refreshes && replication != nil), let known = catalog.unchanged(by: change) { return .success(known) }
        var shared: CatalogStore?
        if let replication {
            switch await SharedCatalog(replication: replication).change(store, from: catalog.current, change) {
            case .done(_, let store): shared = store
            case .refused(let refusal): return .failure(Refusal(CatalogError.refused(refusal), attempt: attempt))
            case .failed(let error): return .failure(Refusal(error, attempt: attempt))
            }
        }
        let result = await lane.run { [catalog, shared] () -> Result<Value, CatalogError> in
            do throws(CatalogError) {
                return .success(
                    try catalog.change { state throws(CatalogRefusal) in
                        if let shared { try state.adopt(shared) }
                        return try change(&state)
                    })
            } catch {
                return .failure(error)
            }
        }
        guard let result else { return .failure(.draining(attempt)) }
        return result.mapError { Refusal($0, attempt: attempt) }
    }
}

extension Refusal {
    init(_ error: ReplicationError, attempt: String) {
        switch error {
        case .lost(let epoch): self = Refusal.fenced(attempt, by: epoch)
        case .metadata, .log:
            self.init(
                .internalError,
                "\(attempt): \(error); see that the metadata store and enough log nodes can be reached, then try again")
        }
    }
}
