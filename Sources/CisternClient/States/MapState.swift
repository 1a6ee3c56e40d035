// A map for each key and namespace, every entry a store key of its own: reading one entry does not read the others.

internal import CisternPrimitives

/// A map for each key and namespace. Made by `KeyedStateSession.mapState`; used by the session's task only.
///
/// With a time to live each entry has its own expiry.
public final class MapState<Key, Value> {
    let session: KeyedStateSession
    let record: StateRecord
    let keySerializer: StateSerializer<Key>
    let serializer: StateSerializer<Value>

    init(
        _ session: KeyedStateSession, _ record: StateRecord, _ keySerializer: StateSerializer<Key>,
        _ serializer: StateSerializer<Value>
    ) {
        self.session = session
        self.record = record
        self.keySerializer = keySerializer
        self.serializer = serializer
    }

    /// The value under a user key. Costs as `ValueState.value`.
    public func get(_ key: Key) async throws(ClientError) -> Value? {
        try prepare(key)
        guard let (bytes, expiry) = try await session.read(record) else { return nil }
        let value = try session.decode(bytes, serializer, record)
        if let extended = session.extendedLife(record, consume bytes, expiry) {
            try await session.extendLife(record, extended)
        }
        return value
    }

    /// True when there is a value under the user key. Costs as `get`, without decoding the value.
    public func contains(_ key: Key) async throws(ClientError) -> Bool {
        try prepare(key)
        guard let (bytes, expiry) = try await session.read(record) else { return false }
        if let extended = session.extendedLife(record, consume bytes, expiry) {
            try await session.extendLife(record, extended)
        }
        return true
    }

    /// Sets the value under a user key. Costs as `ValueState.update`.
    public func put(_ key: Key, _ value: Value) async throws(ClientError) {
        try prepare(key)
        session.valueScratch.removeAll(keepingCapacity: true)
        serializer.encode(value, &session.valueScratch)
        try await session.write(.put, record, expiry: session.expiry(record))
    }

    /// Removes the entry of a user key. Does not read.
    public func remove(_ key: Key) async throws(ClientError) {
        try prepare(key)
        session.valueScratch.removeAll(keepingCapacity: true)
        try await session.write(.delete, record, expiry: .never)
    }

    /// Removes every entry of the map: pages over its keys and removes each.
    public func clear() async throws(ClientError) {
        let pages = try makeScan(pageSize: Self.clearPageSize, keysOnly: true)
        while let page = try await pages.next() {
            for item in page {
                session.keyScratch = item.key
                try session.finishKey()
                session.valueScratch.removeAll(keepingCapacity: true)
                try await session.write(.delete, record, expiry: .never)
            }
        }
    }

    /// True when the map has no entry. One scan page unless the write buffer tells.
    public func isEmpty() async throws(ClientError) -> Bool {
        let pages = try makeScan(pageSize: 1, keysOnly: true)
        while let page = try await pages.next() {
            if !page.isEmpty { return false }
        }
        return true
    }

    /// Pages over the entries of the current key and namespace, in the order of the user keys' bytes. Entries may be put and
    /// removed meanwhile: a page shows what was there when it was fetched.
    /// - Parameter pageSize: entries asked for at a time, 1 … 65,536.
    public func entries(pageSize: Int = 1000) throws(ClientError) -> MapPages<Key, Value> {
        MapPages(self, try makeScan(pageSize: pageSize, keysOnly: false))
    }

    private static var clearPageSize: Int { 4096 }

    private func prepare(_ key: Key) throws(ClientError) {
        try session.prepareKey(record)
        keySerializer.encode(key, &session.keyScratch)
        try session.finishKey()
    }

    private func makeScan(pageSize: Int, keysOnly: Bool) throws(ClientError) -> StateScan {
        guard (1...ClientLimits.writeBufferEntriesMax).contains(pageSize) else {
            throw ClientError(
                .limitExceeded, .fixTheCall,
                "a page of \(pageSize) entries; it must be within 1...\(ClientLimits.writeBufferEntriesMax)")
        }
        try session.prepareKey(record)
        return StateScan(session, record, prefix: session.keyScratch, pageSize: pageSize, keysOnly: keysOnly)
    }
}

/// Pages over a map. Ask for the next page until it is nil.
public final class MapPages<Key, Value> {
    private let map: MapState<Key, Value>
    private let scan: StateScan

    init(_ map: MapState<Key, Value>, _ scan: StateScan) {
        self.map = map
        self.scan = scan
    }

    /// The next entries; nil behind the last. A page may be empty. One request each, plus one for a dictionary not seen
    /// before.
    public func next() async throws(ClientError) -> [(key: Key, value: Value)]? {
        guard let page = try await scan.next() else { return nil }
        var entries: [(key: Key, value: Value)] = []
        entries.reserveCapacity(page.count)
        for item in page {
            let key = try map.session.decode(item.key[scan.prefix.count...], map.keySerializer, map.record)
            entries.append((key, try map.session.decode(item.value, map.serializer, map.record)))
        }
        return entries
    }
}
