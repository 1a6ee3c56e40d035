// A list for each key and namespace. Additions are operands: they are concatenated in the buffer, in the cache and in the
// server, so that adding never reads.

internal import CisternPrimitives

/// A list of values for each key and namespace. Made by `KeyedStateSession.listState`; used by the session's task only.
///
/// With a time to live each element has its own expiry.
public final class ListState<Element> {
    let session: KeyedStateSession
    let record: StateRecord
    let serializer: StateSerializer<Element>

    init(_ session: KeyedStateSession, _ record: StateRecord, _ serializer: StateSerializer<Element>) {
        self.session = session
        self.record = record
        self.serializer = serializer
    }

    /// Adds an element behind the others. Does not read; costs as `ValueState.update`. When it throws, nothing was added.
    public func add(_ element: Element) async throws(ClientError) { try await addAll(CollectionOfOne(element)) }

    /// Adds all elements or, when it throws, none.
    public func addAll(_ elements: some Sequence<Element>) async throws(ClientError) {
        try await write(.append, elements)
    }

    /// Replaces the list; an empty one removes it.
    public func update(_ elements: [Element]) async throws(ClientError) {
        if elements.isEmpty { try await clear() } else { try await write(.put, elements) }
    }

    /// The elements that have not expired, in the order they were added. Does not suspend when the write buffer, the value
    /// cache or the key index knows the list; one round trip otherwise, after additions in flight are acknowledged.
    public func get() async throws(ClientError) -> [Element] {
        try session.prepareKey(record)
        guard let (bytes, _) = try await session.read(record) else { return [] }
        let places = try livePlaces(bytes, group: StateKey.group(of: session.keyScratch))
        var elements: [Element] = []
        elements.reserveCapacity(places.count)
        for place in places { elements.append(try session.decode(bytes[place.bytes], serializer, record)) }
        if let ttl = record.options.ttl, ttl.refresh == .onReadAndWrite {
            let new = session.expiry(record)
            // While a slice of the write buffer is held, a write copies the whole buffer.
            _ = consume bytes
            if places.contains(where: { $0.expiry != new }) {
                try await write(.put, elements)
                session.counters.writeOperations -= 1
            }
        }
        return elements
    }

    /// Removes the list. Does not read.
    public func clear() async throws(ClientError) {
        try session.prepareKey(record)
        session.valueScratch.removeAll(keepingCapacity: true)
        try await session.write(.delete, record, expiry: .never)
    }

    private func write(_ kind: EntryKind, _ elements: some Sequence<Element>) async throws(ClientError) {
        try session.prepareKey(record)
        let expiry = session.expiry(record)
        let stored = session.storedExpiry(record, expiry)
        session.valueScratch.removeAll(keepingCapacity: true)
        for element in elements {
            session.elementScratch.removeAll(keepingCapacity: true)
            serializer.encode(element, &session.elementScratch)
            ListFormat.appendElement(session.elementScratch, expiry: stored, to: &session.valueScratch)
        }
        if session.valueScratch.isEmpty { return }
        try await session.write(kind, record, expiry: expiry)
    }

    /// - Parameter group: key group of the list's key.
    func decode(_ bytes: ArraySlice<UInt8>, group: UInt16) throws(ClientError) -> [Element] {
        var elements: [Element] = []
        for place in try livePlaces(bytes, group: group) {
            elements.append(try session.decode(bytes[place.bytes], serializer, record))
        }
        return elements
    }

    /// With expiries as they are by now.
    private func livePlaces(
        _ bytes: ArraySlice<UInt8>, group: UInt16
    ) throws(ClientError) -> [(bytes: Range<Int>, expiry: Expiry)] {
        guard let places = ListFormat.elements(of: bytes) else {
            throw KeyedStateSession.damaged(record, "\(bytes.count) bytes are not a list")
        }
        guard let rule = record.expiryRule(in: group) else { return places.filter { !session.isExpired($0.expiry) } }
        return places.map { ($0.bytes, rule.current($0.expiry)) }.filter { !session.isExpired($0.1) }
    }
}
