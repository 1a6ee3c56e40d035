// A metadata store whose values are records.

package import CisternLogProtocol
internal import CisternPrimitives

package struct RecordPage<Record: MetadataRecord>: Sendable {
    package let records: [(key: String, found: Versioned<Record>)]
    /// Where the next page begins; nil after the last one.
    package let next: String?
    package let version: MetadataVersion
}

package struct RecordStore: Sendable {
    package let store: any MetadataStore

    package init(_ store: any MetadataStore) { self.store = store }

    package func create(
        _ key: String, _ record: some MetadataRecord, lease: MetadataLeaseID? = nil
    ) async throws(MetadataError) -> MetadataVersion {
        try await store.create(key, MetadataRecords.encode(record), lease: lease)
    }

    /// Nil when there is no such key.
    package func get<Record: MetadataRecord>(
        _ type: Record.Type, _ key: String
    ) async throws(MetadataError) -> Versioned<Record>? {
        guard let entry = try await store.get(key) else { return nil }
        return Versioned(try decode(type, entry, .get), version: entry.version)
    }

    package func compareAndSwap(
        _ key: String, expected: MetadataVersion, new record: some MetadataRecord
    ) async throws(MetadataError) -> MetadataVersion {
        try await store.compareAndSwap(key, expected: expected, new: MetadataRecords.encode(record))
    }

    package func list<Record: MetadataRecord>(
        _ type: Record.Type, prefix: String, after: String? = nil, limit: Int = MetadataLimits.pageEntriesMax
    ) async throws(MetadataError) -> RecordPage<Record> {
        let page = try await store.list(prefix: prefix, after: after, limit: limit)
        var records: [(key: String, found: Versioned<Record>)] = []
        for entry in page.entries {
            records.append((entry.key, Versioned(try decode(type, entry, .list), version: entry.version)))
        }
        return RecordPage(records: records, next: page.next, version: page.version)
    }

    private func decode<Record: MetadataRecord>(
        _ type: Record.Type, _ entry: MetadataEntry, _ operation: MetadataError.Operation
    ) throws(MetadataError) -> Record {
        do throws(CorruptionError) {
            return try MetadataRecords.decode(type, entry.value, source: entry.key)
        } catch {
            throw MetadataError(operation, entry.key, .damaged(error.description))
        }
    }
}
