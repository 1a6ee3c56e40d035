// The metadata store of the changelog service, as its users see it: small values under names, each with a version. Two stores
// keep it, one of files and one of etcd, and one conformance suite runs against both.
//
// Linearizable: each call takes effect at one moment between its begin and its end. A call that ends with `unavailable` may
// have taken effect, may do so later, or never.
//
// The version of a value is also a moment in the history of the whole store: every change has a larger one than all before it.
// It is never 0, so that 0 can say "nothing is there".

package import CisternLogProtocol

package struct MetadataEntry: Hashable, Sendable {
    package let key: String
    package let value: [UInt8]
    package let version: MetadataVersion
    /// The key goes when this lease ends.
    package let lease: MetadataLeaseID?

    package init(key: String, value: [UInt8], version: MetadataVersion, lease: MetadataLeaseID?) {
        self.key = key
        self.value = value
        self.version = version
        self.lease = lease
    }
}

/// Entries of a prefix, in the order of their keys.
package struct MetadataPage: Hashable, Sendable {
    package let entries: [MetadataEntry]
    /// Where the next page begins: give it as `after`. Nil when this was the last page.
    package let next: String?
    /// The store's version when the page was read. Pages of one listing are read at different times: whoever needs one
    /// picture watches from the first page's version + 1.
    package let version: MetadataVersion

    package init(entries: [MetadataEntry], next: String?, version: MetadataVersion) {
        self.entries = entries
        self.next = next
        self.version = version
    }
}

package struct MetadataLeaseID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let rawValue: Int64

    package init(_ rawValue: Int64) { self.rawValue = rawValue }

    package static func < (left: MetadataLeaseID, right: MetadataLeaseID) -> Bool { left.rawValue < right.rawValue }

    package var description: String { "lease \(rawValue)" }
}

package struct MetadataLease: Hashable, Sendable {
    package let id: MetadataLeaseID
    /// What the store granted: at least what was asked for.
    package let milliseconds: UInt64

    package init(id: MetadataLeaseID, milliseconds: UInt64) {
        self.id = id
        self.milliseconds = milliseconds
    }
}

/// May be called from any thread, many calls at once.
package protocol MetadataStore: Sendable {
    /// Writes a key that is not there; `exists` when it is. With a lease, the key goes when the lease ends.
    func create(
        _ key: String, _ value: [UInt8], lease: MetadataLeaseID?
    ) async throws(MetadataError) -> MetadataVersion
    /// Nil when there is no such key.
    func get(_ key: String) async throws(MetadataError) -> MetadataEntry?
    /// Replaces a value whose version is `expected`; the key keeps its lease. `conflict` when the version is another one,
    /// `missing` when nothing is there.
    func compareAndSwap(
        _ key: String, expected: MetadataVersion, new value: [UInt8]
    ) async throws(MetadataError) -> MetadataVersion
    func delete(_ key: String, expected: MetadataVersion) async throws(MetadataError)
    /// At most `limit` entries whose keys begin with `prefix` and follow `after`. `limit` is at least 1; a page may be shorter
    /// than asked for and still have a next one.
    func list(prefix: String, after: String?, limit: Int) async throws(MetadataError) -> MetadataPage
    /// Every change of keys that begin with `prefix`, at or after version `first`, in order. Fails with `compacted` when the store
    /// does not have all of them any more, and with `unavailable` when they do not come any more: then list and watch again.
    func watch(prefix: String, from first: MetadataVersion) -> MetadataWatch

    func acquireLease(milliseconds: UInt64) async throws(MetadataError) -> MetadataLease
    /// The lease lasts its whole time from now on; `leaseEnded` when it does not exist any more.
    func keepAlive(_ lease: MetadataLeaseID) async throws(MetadataError)
    /// Ends a lease and removes its keys; fine when it has ended.
    func release(_ lease: MetadataLeaseID) async throws(MetadataError)
}

extension MetadataStore {
    package func create(_ key: String, _ value: [UInt8]) async throws(MetadataError) -> MetadataVersion {
        try await create(key, value, lease: nil)
    }
}
