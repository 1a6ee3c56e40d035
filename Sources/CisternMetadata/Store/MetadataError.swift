// What a call of a metadata store ends with when it does not do what was asked.

package import CisternLogProtocol

package struct MetadataError: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Operation: String, Sendable {
        case create, get, compareAndSwap, delete, list, watch, acquireLease, keepAlive, release
    }

    package enum Reason: Hashable, Sendable {
        /// A create found the key, in this version.
        case exists(version: MetadataVersion)
        case missing
        /// Nothing was written: the version is `found`.
        case conflict(expected: MetadataVersion, found: MetadataVersion)
        /// No answer, or none that says what happened. A change may have taken place or may still do so.
        case unavailable(String)
        case leaseEnded(MetadataLeaseID)
        /// The store has no changes before `oldest` any more.
        case compacted(oldest: MetadataVersion)
        /// An argument beyond a limit of `MetadataLimits`; nothing was asked of the store.
        case limit(String)
        /// What is stored under the key is not what this program writes there.
        case damaged(String)
    }

    package let operation: Operation
    /// The key or prefix; empty for leases.
    package let key: String
    package let reason: Reason

    package init(_ operation: Operation, _ key: String, _ reason: Reason) {
        self.operation = operation
        self.key = key
        self.reason = reason
    }

    package var description: String {
        let attempted = key.isEmpty ? "metadata: \(operation)" : "metadata: \(operation) \"\(key)\""
        switch reason {
        case .exists(let version): return "\(attempted): the key is there, in version \(version)"
        case .missing: return "\(attempted): there is no such key; it was deleted or never created"
        case .conflict(let expected, let found):
            return "\(attempted): expected version \(expected), found \(found); nothing was written: read it again"
        case .unavailable(let detail):
            return "\(attempted): the outcome is not known: \(detail); read the key to learn what it is"
        case .leaseEnded(let lease):
            return "\(attempted): \(lease) has ended and its keys are gone; acquire a new one"
        case .compacted(let oldest):
            return "\(attempted): changes before version \(oldest) are not kept any more: list, then watch from there"
        case .limit(let detail): return "\(attempted): \(detail)"
        case .damaged(let detail): return "\(attempted): what is stored there cannot be read: \(detail)"
        }
    }

    package var isUnavailable: Bool { if case .unavailable = reason { true } else { false } }
}

/// Bounds of what a store takes, the same for every store.
package enum MetadataLimits {
    package static let keyBytesMax = 512
    package static let valueBytesMax = 1 << 20
    package static let pageEntriesMax = 1_000
    /// Values of a page together, but for the first one.
    package static let pageBytesMax = 1 << 20
    package static let leaseMillisecondsMin: UInt64 = 1_000
    package static let leaseMillisecondsMax: UInt64 = 24 * 3_600_000

    /// Keys are 1 to 512 visible ASCII characters, so that all stores order and compare them alike.
    package static func isKey(_ key: some StringProtocol) -> Bool {
        !key.isEmpty && key.utf8.count <= keyBytesMax && isPrefix(key)
    }

    /// A prefix may be empty.
    package static func isPrefix(_ prefix: some StringProtocol) -> Bool {
        prefix.utf8.count <= keyBytesMax && prefix.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F }
    }
}

extension MetadataError {
    package static func check(_ operation: Operation, key: String) throws(MetadataError) {
        guard MetadataLimits.isKey(key) else {
            let rule = "a key has 1 to \(MetadataLimits.keyBytesMax) visible ASCII characters, this one has"
            throw MetadataError(operation, String(key.prefix(64)), .limit("\(rule) \(key.utf8.count) bytes"))
        }
    }

    package static func check(_ operation: Operation, key: String, value: [UInt8]) throws(MetadataError) {
        try check(operation, key: key)
        guard value.count <= MetadataLimits.valueBytesMax else {
            let rule = "a value has at most \(MetadataLimits.valueBytesMax) bytes, this one has"
            throw MetadataError(operation, key, .limit("\(rule) \(value.count)"))
        }
    }

    package static func check(_ operation: Operation, prefix: String) throws(MetadataError) {
        guard MetadataLimits.isPrefix(prefix) else {
            let rule = "a prefix has at most \(MetadataLimits.keyBytesMax) visible ASCII characters"
            throw MetadataError(operation, String(prefix.prefix(64)), .limit(rule))
        }
    }

    package static func check(limit: Int, prefix: String) throws(MetadataError) {
        guard limit >= 1 else { throw MetadataError(.list, prefix, .limit("a page of \(limit) entries")) }
    }

    package static func check(leaseMilliseconds: UInt64) throws(MetadataError) {
        let bounds = MetadataLimits.leaseMillisecondsMin...MetadataLimits.leaseMillisecondsMax
        guard bounds.contains(leaseMilliseconds) else {
            let rule = "a lease lasts \(bounds.lowerBound) to \(bounds.upperBound) ms, not"
            throw MetadataError(.acquireLease, "", .limit("\(rule) \(leaseMilliseconds)"))
        }
    }
}
