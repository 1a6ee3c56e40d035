// Where snapshots go that outlive a server's disk: named objects, written once, read, listed and deleted. Small on purpose, so that a
// directory and an object store can both be one.
//
// Whoever writes under a prefix is alone in writing there (StoreLayout.swift), so nothing here is atomic beyond one object.
// All calls block: never make them on an event loop or the cooperative pool.

/// An object as a listing shows it.
package struct StoredObject: Equatable, Sendable {
    /// Whole, from the store's root on.
    package let name: String
    package let bytes: UInt64

    package init(name: String, bytes: UInt64) {
        self.name = name
        self.bytes = bytes
    }
}

/// Names have parts of 1 to 255 bytes out of `A–Z a–z 0–9 - _ . %` with `/` between them, none of only dots, and 900 bytes at most.
package protocol SnapshotStore: Sendable {
    /// For people: `file:///backup/cistern`.
    var location: String { get }

    /// Keeps an object; durable when it returns. After an error it may be there or not, whole in any case.
    /// - Returns: false when there is one of this name already, which stays as it is.
    func put(_ name: String, _ bytes: [UInt8]) throws(SnapshotStoreError) -> Bool

    /// The whole object, nil when there is none.
    /// - Throws: also when it has more than `limit` bytes.
    func get(_ name: String, limit: Int) throws(SnapshotStoreError) -> [UInt8]?

    /// Bytes of an object, nil when there is none.
    /// - Throws: also when the object ends before the range does.
    func get(_ name: String, range: Range<UInt64>) throws(SnapshotStoreError) -> [UInt8]?

    /// The objects whose names begin so, by name. `prefix` ends with `/` or is empty.
    func list(_ prefix: String) throws(SnapshotStoreError) -> [StoredObject]

    /// Removes objects, durably; those that are not there are fine. After an error some may be gone.
    func delete(_ names: [String]) throws(SnapshotStoreError)

    /// Removes what cut-short writes have left under a prefix that only the caller writes under.
    func removeLeftovers(_ prefix: String) throws(SnapshotStoreError)

    /// Has calls under way that wait for a server end with an error, and later ones. Does not wait. Idempotent.
    func close()
}

/// A call of a store that failed: what was attempted, on what, and what was found.
package struct SnapshotStoreError: Error, Equatable, Sendable, CustomStringConvertible {
    package let operation: String
    package let name: String
    package let location: String
    package let reason: String
    /// False when doing the same again cannot help: credentials, a damaged object.
    package let isTransient: Bool

    package init(operation: String, name: String, location: String, reason: String, isTransient: Bool) {
        self.operation = operation
        self.name = name
        self.location = location
        self.reason = reason
        self.isTransient = isTransient
    }

    package var description: String { "cannot \(operation) \(name) in \(location): \(reason)" }
}

package enum StoreName {
    package static let partBytesMax = 255
    package static let bytesMax = 900

    /// Whether an object may have this name.
    package static func isValid(_ name: String) -> Bool {
        let parts = name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        return name.utf8.count <= bytesMax
            && parts.allSatisfy { part in
                (1...partBytesMax).contains(part.count) && part.allSatisfy { isPlain($0) || $0 == UInt8(ascii: "%") }
                    && part.contains { $0 != UInt8(ascii: ".") }
            }
    }

    /// May stand for itself.
    static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
            true
        default: false
        }
    }
}
