// Pages over all entries under a prefix of store keys, as the worker would see them: the server's page with the writes that
// are not acknowledged yet laid over it.

internal import CisternPrimitives

final class StateScan {
    struct Item {
        var key: [UInt8]
        /// The serializer's bytes; empty when only keys were asked for.
        var value: ArraySlice<UInt8>
        var expiry: Expiry
    }

    let prefix: [UInt8]
    private let session: KeyedStateSession
    private let record: StateRecord
    private let pageSize: Int
    private let keysOnly: Bool
    private let end: [UInt8]
    /// Where the next page starts; nil behind the last.
    private var start: [UInt8]?

    init(_ session: KeyedStateSession, _ record: StateRecord, prefix: [UInt8], pageSize: Int, keysOnly: Bool) {
        self.session = session
        self.record = record
        self.prefix = prefix
        self.pageSize = pageSize
        self.keysOnly = keysOnly
        start = prefix
        end = StateKey.end(ofPrefix: prefix)
    }

    /// The next page in key order; nil behind the last.
    func next() async throws(ClientError) -> [Item]? {
        guard let start else { return nil }
        try session.ensureOpen()
        let request = ScanRequest(
            start: start, end: end, entriesMax: UInt32(pageSize), keysOnly: keysOnly, watermark: session.watermark)
        session.counters.scanRPCs += 1
        let page = try await session.call("scan state \(record.name)") {
            (remote: any RemoteTree) async throws(RemoteError) -> EntryPage in
            try await remote.scan(request)
        }
        // The overlay is taken before anything else can suspend: batches acknowledged from here on may not be in the page.
        let overlay = pendingWrites(from: start, to: page.next.isEmpty ? nil : page.next)
        self.start = page.next.isEmpty ? nil : page.next
        return try await merge(page, overlay)
    }

    private struct Pending {
        var kind: EntryKind
        var value: ArraySlice<UInt8>
        var expiry: Expiry
    }

    /// Writes under the prefix within the page's keys, the newest of each key. Looks at every write under way: they are few
    /// thousand, and nothing orders them.
    private func pendingWrites(from start: [UInt8], to end: [UInt8]?) -> [[UInt8]: Pending] {
        var pending: [[UInt8]: Pending] = [:]
        for table in session.sender.inFlight.map(\.table) + [session.active] {
            for position in 0..<table.count where table.hasPrefix(prefix, at: position) {
                let key = table.key(at: position)
                if key.lexicographicallyPrecedes(start) { continue }
                if let end, !key.lexicographicallyPrecedes(end) { continue }
                let entry = table.entries[position]
                pending[key] = Pending(
                    kind: entry.kind, value: ArraySlice(Array(table.value(at: position))), expiry: entry.expiry)
            }
        }
        return pending
    }

    private func merge(_ page: EntryPage, _ overlay: [[UInt8]: Pending]) async throws(ClientError) -> [Item] {
        var overlay = overlay
        var items: [Item] = []
        items.reserveCapacity(page.count + overlay.count)
        for position in 0..<page.count {
            let key = page.key(position)
            if let pending = overlay.removeValue(forKey: key) {
                add(key, pending, to: &items)
            } else if !session.isExpired(page.expiry(position)) {
                let value = keysOnly ? [] : try await session.open(record, page.value(position))
                items.append(Item(key: key, value: value[...], expiry: page.expiry(position)))
            }
        }
        if overlay.isEmpty { return items }
        for (key, pending) in overlay { add(key, pending, to: &items) }
        items.sort { $0.key.lexicographicallyPrecedes($1.key) }
        return items
    }

    private func add(_ key: [UInt8], _ pending: Pending, to items: inout [Item]) {
        invariant(pending.kind != .append, "lists are scanned with nothing under way")
        guard pending.kind == .put, !session.isExpired(pending.expiry) else { return }
        items.append(Item(key: key, value: keysOnly ? [] : pending.value, expiry: pending.expiry))
    }
}

// MARK: Everything in the session's range

extension KeyedStateSession {
    private static let forEachPageSize = 4096

    /// Calls `body` for every value of a state in the session's key groups: by key group, then by key. Flushes first and
    /// pages through the server: for results and exports, not for each record.
    public func forEach<Value>(
        _ state: ValueState<Value>, _ body: (_ key: [UInt8], _ namespace: [UInt8], _ value: Value) throws -> Void
    ) async throws {
        try await forEachEntry(state.record) { key, bytes in
            try body(key.key, key.namespace, try decode(bytes, state.serializer, state.record))
        }
    }

    /// The same for every list, with the elements that have not expired.
    public func forEach<Element>(
        _ state: ListState<Element>,
        _ body: (_ key: [UInt8], _ namespace: [UInt8], _ elements: [Element]) throws -> Void
    ) async throws {
        try await forEachEntry(state.record) { key, bytes in
            try body(key.key, key.namespace, try state.decode(bytes, group: key.keyGroup))
        }
    }

    /// The same for every entry of every map.
    public func forEach<Key, Value>(
        _ state: MapState<Key, Value>,
        _ body: (_ key: [UInt8], _ namespace: [UInt8], _ userKey: Key, _ value: Value) throws -> Void
    ) async throws {
        try await forEachEntry(state.record) { key, bytes in
            let userKey = try decode(key.userKey[...], state.keySerializer, state.record)
            try body(key.key, key.namespace, userKey, try decode(bytes, state.serializer, state.record))
        }
    }

    /// The same for every combined value.
    public func forEach<Value>(
        _ state: ReducingState<Value>, _ body: (_ key: [UInt8], _ namespace: [UInt8], _ value: Value) throws -> Void
    ) async throws {
        try await forEach(state.state, body)
    }

    /// The same for every accumulator's result.
    public func forEach<Input, Accumulator, Output>(
        _ state: AggregatingState<Input, Accumulator, Output>,
        _ body: (_ key: [UInt8], _ namespace: [UInt8], _ result: Output) throws -> Void
    ) async throws {
        try await forEach(state.state) { key, namespace, accumulator in
            try body(key, namespace, state.aggregate.result(accumulator))
        }
    }

    private func forEachEntry(
        _ record: StateRecord, _ body: (StateKey, ArraySlice<UInt8>) throws -> Void
    ) async throws {
        try await flush()
        for group in request.keyGroups.first...request.keyGroups.last {
            let scan = StateScan(
                self, record, prefix: StateKey.prefix(keyGroup: group, stateID: record.id),
                pageSize: Self.forEachPageSize, keysOnly: false)
            while let page = try await scan.next() {
                for item in page {
                    guard let key = StateKey.decode(item.key) else {
                        throw Self.damaged(record, "a key of \(item.key.count) bytes is not a store key")
                    }
                    try body(key, item.value)
                }
            }
        }
    }
}
