// A tree's log on log nodes, as the tree sees it: items in, their durability out, in order.
//
//   append (log lane) ─► waiting ─► [append task] entries of the changelog ─► appended ─► [persist task] an ack quorum has them
//                                                                                              └─► completed
//
// Threading: any thread; one lock. At most one append and one persist task run at a time.

internal import CisternChangelog
internal import CisternLSM
internal import CisternLogProtocol
internal import Synchronization

final class TreeReplica: LogReplica, Sendable {
    private struct Item: Sendable {
        let entries: [[UInt8]]
        let bytes: Int
        let position: LogPosition?
        let completed: @Sendable (Result<Void, EngineError>) -> Void
    }

    private struct Appended: Sendable {
        let place: LogSequenceNumber
        let bytes: Int
        let completed: @Sendable (Result<Void, EngineError>) -> Void
    }

    private struct State: Sendable {
        var waiting: [Item] = []
        var appended: [Appended] = []
        var isAppending = false
        var isPersisting = false
        var failure: EngineError?
        var index = LogIndex()
        /// Of items that were given and not completed.
        var unacknowledgedBytes = 0
    }

    private let changelog: Changelog
    private let state = Mutex(State())

    init(_ changelog: Changelog) { self.changelog = changelog }

    func append(
        _ item: TreeLogItem, through position: LogPosition?,
        completed: @escaping @Sendable (Result<Void, EngineError>) -> Void
    ) {
        let entries = TreeLogFormat.encode(item)
        let new = Item(
            entries: entries, bytes: entries.reduce(0) { $0 + $1.count }, position: position, completed: completed)
        let failure = state.withLock { state -> EngineError? in
            if let failure = state.failure { return failure }
            state.waiting.append(new)
            state.unacknowledgedBytes += new.bytes
            if !state.isAppending {
                state.isAppending = true
                Task { await appendWaiting() }
            }
            return nil
        }
        if let failure { completed(.failure(failure)) }
    }

    /// An item that was there when the log was taken over.
    func found(at place: LogSequenceNumber, bytes: Int, through position: LogPosition?) {
        state.withLock { $0.index.add(place, bytes: bytes, through: position) }
    }

    /// The last place before which everything is at or before `position`; nil when nothing can go.
    func place(behind position: LogPosition) -> LogSequenceNumber? {
        state.withLock { $0.index.cut(behind: position) }
    }

    /// What is not acknowledged, and what is in the log.
    var bytes: (unacknowledged: UInt64, log: UInt64) {
        state.withLock { (UInt64(max(0, $0.unacknowledgedBytes)), UInt64($0.index.bytes)) }
    }

    // MARK: Tasks

    private func appendWaiting() async {
        while true {
            let items = state.withLock { state -> [Item] in
                let items = state.waiting
                state.waiting = []
                if items.isEmpty { state.isAppending = false }
                return items
            }
            if items.isEmpty { return }
            for (number, item) in items.enumerated() {
                do throws(ChangelogError) {
                    try await append(item)
                } catch {
                    return fail(error, items[number...])
                }
            }
        }
    }

    private func append(_ item: Item) async throws(ChangelogError) {
        var first: LogSequenceNumber?
        var last: LogSequenceNumber?
        for entry in item.entries {
            let place = try await changelog.append(entry)
            first = first ?? place
            last = place
        }
        guard let first, let last else { return }
        let failure = state.withLock { state -> EngineError? in
            if let failure = state.failure { return failure }
            state.index.add(first, bytes: item.bytes, through: item.position)
            state.appended.append(Appended(place: last, bytes: item.bytes, completed: item.completed))
            if !state.isPersisting {
                state.isPersisting = true
                Task { await persistAppended() }
            }
            return nil
        }
        if let failure { item.completed(.failure(failure)) }
    }

    private func persistAppended() async {
        while true {
            let group = state.withLock { state -> [Appended] in
                let group = state.appended
                state.appended = []
                if group.isEmpty { state.isPersisting = false }
                return group
            }
            if group.isEmpty { return }
            // Each by itself: the first is not to wait for the last.
            for (number, next) in group.enumerated() {
                do throws(ChangelogError) {
                    try await changelog.persist(through: next.place)
                    state.withLock { $0.unacknowledgedBytes -= next.bytes }
                    next.completed(.success(()))
                } catch {
                    return fail(error, [], group[number...])
                }
            }
        }
    }

    /// Everything that has not been durable fails, in order.
    private func fail(_ error: ChangelogError, _ items: ArraySlice<Item>, _ group: ArraySlice<Appended> = []) {
        let failure = EngineError.logLost(detail: "\(error)")
        let left = state.withLock { state -> [@Sendable (Result<Void, EngineError>) -> Void] in
            let isFirst = state.failure == nil
            state.failure = state.failure ?? failure
            // Nothing of it will be.
            state.unacknowledgedBytes = 0
            var left = group.map(\.completed)
            if isFirst {
                left += state.appended.map(\.completed)
                state.appended = []
            }
            left += items.map(\.completed)
            if isFirst {
                left += state.waiting.map(\.completed)
                state.waiting = []
            }
            return left
        }
        for completed in left { completed(.failure(failure)) }
    }
}

/// Where in a log which batches are: what a truncation needs to know, and no more than that.
struct LogIndex: Sendable {
    private struct Part: Sendable {
        /// Its first entry.
        let place: LogSequenceNumber
        var bytes: Int
        /// The last batch in it; nil while it has none.
        var last: LogPosition?
    }

    /// A place in the log for so many bytes.
    static let partBytes = 256 << 10

    private var parts: [Part] = []
    private(set) var bytes = 0

    mutating func add(_ place: LogSequenceNumber, bytes: Int, through position: LogPosition?) {
        self.bytes += bytes
        if let last = parts.last, last.bytes < LogIndex.partBytes, last.place.ledger == place.ledger {
            parts[parts.count - 1].bytes += bytes
            if let position { parts[parts.count - 1].last = position }
        } else {
            parts.append(Part(place: place, bytes: bytes, last: position))
        }
    }

    /// Forgets the parts whose batches are all at or before `position`, but for the last one, and says where the rest begins.
    mutating func cut(behind position: LogPosition) -> LogSequenceNumber? {
        var count = 0
        while count + 1 < parts.count, parts[count].last.map({ $0 <= position }) ?? true { count += 1 }
        bytes -= parts[..<count].reduce(0) { $0 + $1.bytes }
        parts.removeFirst(count)
        return count == 0 ? nil : parts.first?.place
    }
}
