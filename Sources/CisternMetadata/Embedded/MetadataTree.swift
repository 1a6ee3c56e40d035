// What a store of files holds, in memory: values under sorted keys, leases, and the version of the last change. Pure: changes
// come from the file when it is opened, and from calls when they are durable.

package import CisternLogProtocol

/// A change as it is in the file. Each has a version of its own, the one after that of the change before.
package enum StoredChange: Hashable, Sendable {
    case put(key: String, value: [UInt8], lease: MetadataLeaseID?)
    case delete(key: String)
    /// The id is the change's version.
    case leaseBegan(milliseconds: UInt64)
    /// Removes the keys that are bound to it.
    case leaseEnded(MetadataLeaseID)
}

package struct MetadataTree: Sendable {
    package struct Value: Hashable, Sendable {
        package let bytes: [UInt8]
        package let version: MetadataVersion
        package let lease: MetadataLeaseID?
    }

    struct Lease: Hashable {
        let milliseconds: UInt64
        var keys: Set<String> = []
    }

    /// Of the last change.
    package private(set) var version: MetadataVersion
    /// Bytes of a snapshot's values, or a little more.
    package private(set) var liveBytes = 0
    private(set) var leases: [MetadataLeaseID: Lease] = [:]
    private var values: [String: Value] = [:]
    /// The keys of `values`, sorted: a change moves a few bytes of each key behind, which is nothing beside its sync.
    private var keys: [String] = []

    private static let frameBytes = 32

    package init(version: MetadataVersion = 0) { self.version = version }

    package var count: Int { keys.count }

    package subscript(key: String) -> Value? { values[key] }

    /// Keys from `key` on, in order.
    package func keys(from key: String) -> ArraySlice<String> { keys[position(of: key)...] }

    var sortedKeys: [String] { keys }

    /// Keys in order, for a page: those of `prefix` behind `after`.
    func keys(prefix: String, after: String?) -> ArraySlice<String> {
        var start = position(of: prefix)
        if let after, after >= prefix {
            start = position(of: after)
            if start < keys.count, keys[start] == after { start += 1 }
        }
        return keys[start...].prefix { $0.hasPrefix(prefix) }
    }

    /// What is wrong with a change that comes next; nil when it can be applied.
    package func objection(to change: StoredChange) -> String? {
        switch change {
        case .put(_, _, nil): nil
        case .put(let key, _, .some(let lease)): leases[lease] == nil ? "\"\(key)\" is bound to no \(lease)" : nil
        case .delete(let key): values[key] == nil ? "\"\(key)\" is deleted and is not there" : nil
        case .leaseBegan: version >= UInt64(Int64.max) ? "version \(version) has no lease after it" : nil
        case .leaseEnded(let lease): leases[lease] == nil ? "\(lease) ends and is not there" : nil
        }
    }

    /// Applies a change that has no objection, and returns what watches see of it.
    package mutating func apply(_ change: StoredChange) -> MetadataChangeSet {
        version += 1
        switch change {
        case .put(let key, let value, let lease):
            put(key, Value(bytes: value, version: version, lease: lease))
            return MetadataChangeSet(version: version, changes: [MetadataChange(key: key, value: value)])
        case .delete(let key):
            remove(key)
            return MetadataChangeSet(version: version, changes: [MetadataChange(key: key, value: nil)])
        case .leaseBegan(let milliseconds):
            leases[MetadataLeaseID(Int64(version))] = Lease(milliseconds: milliseconds)
            return MetadataChangeSet(version: version, changes: [])
        case .leaseEnded(let lease):
            let bound = leases[lease]?.keys.sorted() ?? []
            for key in bound { remove(key) }
            leases[lease] = nil
            return MetadataChangeSet(version: version, changes: bound.map { MetadataChange(key: $0, value: nil) })
        }
    }

    // MARK: From a snapshot

    mutating func restore(lease: MetadataLeaseID, milliseconds: UInt64) {
        leases[lease] = Lease(milliseconds: milliseconds)
    }

    mutating func restore(key: String, _ value: Value) { put(key, value) }

    mutating func restore(version: MetadataVersion) { self.version = version }

    // MARK: Parts

    private mutating func put(_ key: String, _ value: Value) {
        if let old = values.updateValue(value, forKey: key) {
            liveBytes += value.bytes.count - old.bytes.count
            if let lease = old.lease { leases[lease]?.keys.remove(key) }
        } else {
            liveBytes += MetadataTree.frameBytes + key.utf8.count + value.bytes.count
            keys.insert(key, at: position(of: key))
        }
        if let lease = value.lease { leases[lease]?.keys.insert(key) }
    }

    private mutating func remove(_ key: String) {
        guard let old = values.removeValue(forKey: key) else { return }
        liveBytes -= MetadataTree.frameBytes + key.utf8.count + old.bytes.count
        keys.remove(at: position(of: key))
        if let lease = old.lease { leases[lease]?.keys.remove(key) }
    }

    /// Of the first key that is not before `key`.
    private func position(of key: String) -> Int {
        var low = 0
        var high = keys.count
        while low < high {
            let middle = low + (high - low) / 2
            if keys[middle] < key { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
