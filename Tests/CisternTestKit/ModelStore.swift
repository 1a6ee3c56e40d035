// What a store should hold, computed the plain way: a dictionary. The oracle of model tests.

import CisternPrimitives

/// An entry that owns its bytes.
package struct OwnedEntry: Equatable, Sendable {
    package var key: [UInt8]
    package var kind: EntryKind
    package var expiry: Expiry
    package var value: [UInt8]

    package init(_ key: [UInt8], _ kind: EntryKind, _ value: [UInt8] = [], expiry: Expiry = .never) {
        self.key = key
        self.kind = kind
        self.expiry = expiry
        self.value = kind == .delete ? [] : value
    }
}

/// Entries as columns, the form in which the engine takes them.
package struct OwnedBatch: Sendable {
    package let entries: [OwnedEntry]

    package init(_ entries: [OwnedEntry]) { self.entries = entries }

    package func withColumns<Result>(_ body: (EntryColumns) throws -> Result) rethrows -> Result {
        var keyEnds = ByteWriter()
        var valueEnds = ByteWriter()
        var expiries = ByteWriter()
        var keys: [UInt8] = []
        var values: [UInt8] = []
        let expires = entries.contains { $0.expiry != .never }
        for entry in entries {
            keys += entry.key
            values += entry.value
            keyEnds.writeInteger(UInt32(keys.count))
            valueEnds.writeInteger(UInt32(values.count))
            if expires { expiries.writeInteger(entry.expiry.rawValue) }
        }
        let kinds = entries.map(\.kind.rawValue)
        return try keyEnds.bytes.withUnsafeBytes { keyEnds in
            try valueEnds.bytes.withUnsafeBytes { valueEnds in
                try kinds.withUnsafeBytes { kinds in
                    try expiries.bytes.withUnsafeBytes { expiries in
                        try keys.withUnsafeBytes { keys in
                            try values.withUnsafeBytes { values in
                                try body(
                                    EntryColumns(
                                        keyEnds: keyEnds, valueEnds: valueEnds, kinds: kinds, expiries: expiries,
                                        keys: keys, values: values)!)
                            }
                        }
                    }
                }
            }
        }
    }
}

package struct ModelStore: Equatable, Sendable {
    package struct Stored: Equatable, Sendable {
        package var value: [UInt8]
        package var expiry: Expiry

        package init(value: [UInt8], expiry: Expiry) {
            self.value = value
            self.expiry = expiry
        }
    }

    package private(set) var entries: [[UInt8]: Stored] = [:]

    package init() {}

    package mutating func apply(_ entry: OwnedEntry) {
        switch entry.kind {
        case .put: entries[entry.key] = Stored(value: entry.value, expiry: entry.expiry)
        case .delete: entries[entry.key] = nil
        case .append:
            let base = entries[entry.key]?.value ?? []
            entries[entry.key] = Stored(value: base + entry.value, expiry: entry.expiry)
        }
    }

    package mutating func apply(_ batch: OwnedBatch) { for entry in batch.entries { apply(entry) } }

    package func get(_ key: [UInt8], _ clock: ExpiryClock) -> Stored? {
        guard let stored = entries[key], !clock.isExpired(stored.expiry) else { return nil }
        return stored
    }

    /// Living entries in key order.
    package func scan(_ clock: ExpiryClock) -> [(key: [UInt8], stored: Stored)] {
        entries.filter { !clock.isExpired($0.value.expiry) }.map { ($0.key, $0.value) }
            .sorted { $0.key.lexicographicallyPrecedes($1.key) }
    }

    /// What is left after a restore of some key groups.
    package func clipped(to groups: KeyGroupRange) -> ModelStore {
        var result = ModelStore()
        result.entries = entries.filter { groups.contains(UInt16($0.key[0]) << 8 | UInt16($0.key[1])) }
        return result
    }

    package mutating func merge(_ other: ModelStore) { entries.merge(other.entries) { $1 } }
}
