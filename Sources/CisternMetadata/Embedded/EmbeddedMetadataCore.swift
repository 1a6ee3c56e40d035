// What an embedded store does with a call, on its lane.

internal import CisternLogProtocol
internal import CisternPrimitives

/// `@unchecked Sendable`: all but `tornBytes`, which is immutable, is owned by the lane of the store that made it.
final class EmbeddedMetadataCore: @unchecked Sendable {
    let tornBytes: Int
    private let file: MetadataFile
    private let time: any TimeSource
    private var history: MetadataHistory
    /// When each lease is over. After a restart each has its whole time again: its holder could not keep it alive meanwhile.
    private var deadlines: [MetadataLeaseID: UInt64] = [:]

    init(file: MetadataFile, time: any TimeSource, options: EmbeddedMetadataOptions) {
        self.file = file
        self.time = time
        tornBytes = file.tornBytes
        history = MetadataHistory(from: file.tree.version + 1, options: options)
        for (id, lease) in file.tree.leases { extend(id, milliseconds: lease.milliseconds) }
    }

    var isClosed: Bool { file.isClosed }

    // MARK: Around calls

    /// What is over by the clock is over for every call after it.
    func begin(_ operation: MetadataError.Operation, _ key: String) throws(MetadataError) {
        expireLeases()
        if file.isClosed { throw MetadataError(operation, key, .unavailable("the store is closed")) }
        if let failure = file.failure { throw MetadataError(operation, key, .unavailable(failure)) }
    }

    func finish() {
        file.compactIfDue()
        if let failure = file.failure { history.endAll(failure) }
    }

    func close() {
        history.endAll("the store is closed")
        file.close()
    }

    func expireLeases() {
        guard !file.isClosed, file.failure == nil, !deadlines.isEmpty else { return }
        let now = time.monotonicNanoseconds
        for lease in deadlines.filter({ $0.value <= now }).keys.sorted() {
            // Without its end in the file the lease is still there, and so are its keys; the store answers nobody from here on.
            guard case .success(let change) = file.commit(.leaseEnded(lease)) else { return }
            deadlines[lease] = nil
            history.append(change)
        }
    }

    // MARK: Keys

    func create(
        _ key: String, _ value: [UInt8], lease: MetadataLeaseID?
    ) throws(MetadataError) -> MetadataVersion {
        if let found = file.tree[key] { throw MetadataError(.create, key, .exists(version: found.version)) }
        if let lease, file.tree.leases[lease] == nil { throw MetadataError(.create, key, .leaseEnded(lease)) }
        try checkRoom(.create, key, value)
        return try commit(.create, key, .put(key: key, value: value, lease: lease))
    }

    func get(_ key: String) -> MetadataEntry? { entry(key) }

    func compareAndSwap(
        _ key: String, expected: MetadataVersion, new value: [UInt8]
    ) throws(MetadataError) -> MetadataVersion {
        let found = try find(.compareAndSwap, key, expected: expected)
        try checkRoom(.compareAndSwap, key, value)
        return try commit(.compareAndSwap, key, .put(key: key, value: value, lease: found.lease))
    }

    func delete(_ key: String, expected: MetadataVersion) throws(MetadataError) {
        _ = try find(.delete, key, expected: expected)
        _ = try commit(.delete, key, .delete(key: key))
    }

    func list(prefix: String, after: String?, limit: Int) -> MetadataPage {
        let keys = file.tree.keys(prefix: prefix, after: after)
        var entries: [MetadataEntry] = []
        var bytes = 0
        for key in keys.prefix(min(limit, MetadataLimits.pageEntriesMax)) {
            guard let entry = entry(key) else { continue }
            bytes += entry.value.count
            if bytes > MetadataLimits.pageBytesMax && !entries.isEmpty { break }
            entries.append(entry)
        }
        let next = entries.count < keys.count ? entries.last?.key : nil
        return MetadataPage(entries: entries, next: next, version: file.tree.version)
    }

    // MARK: Leases

    func acquireLease(milliseconds: UInt64) throws(MetadataError) -> MetadataLease {
        let version = try commit(.acquireLease, "", .leaseBegan(milliseconds: milliseconds))
        let lease = MetadataLease(id: MetadataLeaseID(Int64(version)), milliseconds: milliseconds)
        extend(lease.id, milliseconds: milliseconds)
        return lease
    }

    func keepAlive(_ id: MetadataLeaseID) throws(MetadataError) {
        guard let lease = file.tree.leases[id] else { throw MetadataError(.keepAlive, "", .leaseEnded(id)) }
        extend(id, milliseconds: lease.milliseconds)
    }

    func release(_ id: MetadataLeaseID) throws(MetadataError) {
        guard file.tree.leases[id] != nil else { return }
        _ = try commit(.release, "", .leaseEnded(id))
        deadlines[id] = nil
    }

    private func extend(_ id: MetadataLeaseID, milliseconds: UInt64) {
        let (duration, isLong) = milliseconds.multipliedReportingOverflow(by: 1_000_000)
        let (deadline, isLate) = time.monotonicNanoseconds.addingReportingOverflow(duration)
        deadlines[id] = isLong || isLate ? .max : deadline
    }

    // MARK: Watches

    func watch(
        _ id: UInt64, prefix: String, from first: MetadataVersion,
        resume: @escaping (MetadataHistory.Answer) -> Void
    ) {
        do throws(MetadataError) {
            try begin(.watch, prefix)
        } catch {
            return resume(.failure(error))
        }
        if let answer = history.next(prefix: prefix, from: first) { return resume(answer) }
        history.wait(id, MetadataHistory.Waiter(prefix: prefix, first: first, resume: resume))
    }

    func cancelWatch(_ id: UInt64) { history.cancel(id) }

    // MARK: Parts

    private func entry(_ key: String) -> MetadataEntry? {
        file.tree[key].map { MetadataEntry(key: key, value: $0.bytes, version: $0.version, lease: $0.lease) }
    }

    private func find(
        _ operation: MetadataError.Operation, _ key: String, expected: MetadataVersion
    ) throws(MetadataError) -> MetadataTree.Value {
        guard let found = file.tree[key] else { throw MetadataError(operation, key, .missing) }
        guard found.version == expected else {
            throw MetadataError(operation, key, .conflict(expected: expected, found: found.version))
        }
        return found
    }

    /// A snapshot and as many changes again must stay below what an opening reads.
    private func checkRoom(
        _ operation: MetadataError.Operation, _ key: String, _ value: [UInt8]
    ) throws(MetadataError) {
        let max = EmbeddedMetadataOptions.fileBytesMax / 8
        guard file.tree.liveBytes + key.utf8.count + value.count <= max else {
            throw MetadataError(
                operation, key, .limit("the store holds \(file.tree.liveBytes) of at most \(max) bytes"))
        }
    }

    private func commit(
        _ operation: MetadataError.Operation, _ key: String, _ change: StoredChange
    ) throws(MetadataError) -> MetadataVersion {
        switch file.commit(change) {
        case .success(let applied):
            history.append(applied)
            return applied.version
        case .failure(let failure): throw MetadataError(operation, key, .unavailable(failure.detail))
        }
    }
}
