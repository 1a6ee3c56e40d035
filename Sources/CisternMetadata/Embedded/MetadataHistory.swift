// The last changes of an embedded store, for watches, and the watches that wait for the next one. Pure; owned by one thread.

internal import CisternLogProtocol

struct MetadataHistory {
    typealias Answer = Result<MetadataChangeSet?, MetadataError>

    struct Waiter {
        let prefix: String
        let first: MetadataVersion
        let resume: (Answer) -> Void
    }

    private let changesMax: Int
    private let bytesMax: Int
    private var changes: [MetadataChangeSet] = []
    /// Index of the oldest change in `changes`: what is before it is dropped now and then, in one move.
    private var start = 0
    private var bytes = 0
    /// No change before this version is kept.
    private(set) var oldest: MetadataVersion
    private var waiters: [UInt64: Waiter] = [:]

    init(from version: MetadataVersion, options: EmbeddedMetadataOptions) {
        oldest = version
        changesMax = options.historyChangesMax
        bytesMax = options.historyBytesMax
    }

    var waiterCount: Int { waiters.count }

    mutating func append(_ change: MetadataChangeSet) {
        changes.append(change)
        bytes += size(of: change)
        while changes.count - start > changesMax || (bytes > bytesMax && changes.count - start > 1) {
            bytes -= size(of: changes[start])
            oldest = changes[start].version + 1
            start += 1
        }
        if start > changesMax {
            changes.removeFirst(start)
            start = 0
        }
        for (id, waiter) in waiters {
            guard let seen = filtered(change, waiter.prefix, from: waiter.first) else { continue }
            waiters[id] = nil
            waiter.resume(.success(seen))
        }
    }

    /// The first change at or after `first` that a watch of `prefix` sees, if it is there.
    func next(prefix: String, from first: MetadataVersion) -> Answer? {
        guard first >= oldest else {
            return .failure(MetadataError(.watch, prefix, .compacted(oldest: oldest)))
        }
        var low = start
        var high = changes.count
        while low < high {
            let middle = low + (high - low) / 2
            if changes[middle].version < first { low = middle + 1 } else { high = middle }
        }
        for change in changes[low...] {
            if let seen = filtered(change, prefix, from: first) { return .success(seen) }
        }
        return nil
    }

    mutating func wait(_ id: UInt64, _ waiter: Waiter) { waiters[id] = waiter }

    mutating func cancel(_ id: UInt64) { waiters.removeValue(forKey: id)?.resume(.success(nil)) }

    mutating func endAll(_ detail: String) {
        let all = waiters
        waiters = [:]
        for waiter in all.values {
            waiter.resume(.failure(MetadataError(.watch, waiter.prefix, .unavailable(detail))))
        }
    }

    private func filtered(
        _ change: MetadataChangeSet, _ prefix: String, from first: MetadataVersion
    ) -> MetadataChangeSet? {
        guard change.version >= first else { return nil }
        let seen = change.changes.filter { $0.key.hasPrefix(prefix) }
        return seen.isEmpty ? nil : MetadataChangeSet(version: change.version, changes: seen)
    }

    private func size(of change: MetadataChangeSet) -> Int {
        change.changes.reduce(64) { $0 + $1.key.utf8.count + ($1.value?.count ?? 0) }
    }
}
