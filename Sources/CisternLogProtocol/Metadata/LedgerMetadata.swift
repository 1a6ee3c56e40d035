// What metadata says about a ledger, and the only ways in which it may change. Each change is a pure function from the old
// value to the new one; whoever writes it does so by compare-and-swap on the version that it read.
//
// Fragments' first entries strictly increase. The writer and recovery add a fragment, or rewrite the last one while nothing
// in it is acknowledged. Repair swaps nodes of fragments that can have no more adds, after it has copied what they held.

package import CisternPrimitives

/// A run of entries on one ensemble; it ends where the next one begins.
package struct Fragment: Hashable, Sendable {
    package var firstEntry: EntryID
    /// Exactly E nodes, all different. A node's index is its position in the distribution schedule.
    package var ensemble: [LogNodeID]

    package init(firstEntry: EntryID, ensemble: [LogNodeID]) {
        self.firstEntry = firstEntry
        self.ensemble = ensemble
    }

    package func position(of node: LogNodeID) -> Int? { ensemble.firstIndex(of: node) }
}

package enum LedgerState: Hashable, Sendable {
    case open
    /// Someone is closing it for its writer, who must not change metadata any more.
    case inRecovery
    /// For ever; `lastEntry` is `none` when the ledger is empty.
    case closed(lastEntry: EntryID)
}

package enum LedgerMetadataError: Error, Hashable, Sendable {
    /// The change needs another state.
    case state(LedgerState)
    /// A fragment would begin before the last one does.
    case fragmentBegins(EntryID, before: EntryID)
    /// An ensemble that has not E different nodes.
    case ensemble([LogNodeID])
    /// A last entry that cuts off an earlier fragment.
    case lastEntry(EntryID, lastFragment: EntryID)
    /// Repair of a fragment that adds may still go to, or of none.
    case fragmentIsWritable(Int)
}

package struct LedgerMetadata: Hashable, Sendable {
    package let sizes: QuorumSizes
    /// Never empty; the first one begins at entry 0.
    package private(set) var fragments: [Fragment]
    package private(set) var state: LedgerState

    /// A new ledger.
    package init(sizes: QuorumSizes, ensemble: [LogNodeID]) throws(LedgerMetadataError) {
        self.sizes = sizes
        fragments = [Fragment(firstEntry: .first, ensemble: ensemble)]
        state = .open
        try LedgerMetadata.check(ensemble, sizes)
    }

    /// A ledger as it was stored; every rule of its shape is checked.
    package init(sizes: QuorumSizes, fragments: [Fragment], state: LedgerState) throws(LedgerMetadataError) {
        self.sizes = sizes
        self.fragments = fragments
        self.state = state
        guard let first = fragments.first, first.firstEntry == .first else {
            throw LedgerMetadataError.fragmentBegins(fragments.first?.firstEntry ?? .none, before: .first)
        }
        for (fragment, next) in zip(fragments, fragments.dropFirst()) where next.firstEntry <= fragment.firstEntry {
            throw LedgerMetadataError.fragmentBegins(next.firstEntry, before: fragment.firstEntry)
        }
        for fragment in fragments { try LedgerMetadata.check(fragment.ensemble, sizes) }
        if case .closed(let last) = state { try checkLast(last) }
    }

    package var lastFragment: Fragment { fragments[fragments.count - 1] }

    /// The last entry of a closed ledger.
    package var closedLastEntry: EntryID? {
        if case .closed(let last) = state { last } else { nil }
    }

    /// Index of the fragment that `entry` is in.
    package func fragmentIndex(of entry: EntryID) -> Int {
        var index = fragments.count - 1
        while index > 0 && fragments[index].firstEntry > entry { index -= 1 }
        return index
    }

    package func fragment(of entry: EntryID) -> Fragment { fragments[fragmentIndex(of: entry)] }

    /// Nodes that hold `entry`, the one to ask first in front.
    package func nodes(of entry: EntryID) -> [LogNodeID] {
        let ensemble = fragment(of: entry).ensemble
        return (0..<sizes.write).map { ensemble[sizes.position(of: entry, attempt: $0)] }
    }

    package var allNodes: Set<LogNodeID> { Set(fragments.lazy.flatMap(\.ensemble)) }

    /// The last entry of fragment `index`; nil when adds may still come to it.
    package func lastEntry(ofFragment index: Int) -> EntryID? {
        let end = index + 1 < fragments.count ? fragments[index + 1].firstEntry.previous : nil
        guard let closed = closedLastEntry else { return end }
        return min(closed, end ?? closed)
    }
}

// MARK: - Changes

extension LedgerMetadata {
    /// The writer's ensemble change: `ensemble` holds from `first` on, which is the first entry that is not acknowledged.
    package func changingEnsemble(
        to ensemble: [LogNodeID], from first: EntryID
    ) throws(LedgerMetadataError) -> LedgerMetadata {
        guard state == .open else { throw LedgerMetadataError.state(state) }
        var new = self
        try new.setEnsemble(ensemble, from: first)
        return new
    }

    /// Recovery begins; a ledger that is in recovery already stays so.
    package func startingRecovery() throws(LedgerMetadataError) -> LedgerMetadata {
        guard closedLastEntry == nil else { throw LedgerMetadataError.state(state) }
        var new = self
        new.state = .inRecovery
        return new
    }

    /// The writer's own close. A ledger in recovery belongs to the recoverer.
    package func closing(at last: EntryID) throws(LedgerMetadataError) -> LedgerMetadata {
        guard state == .open else { throw LedgerMetadataError.state(state) }
        var new = self
        new.state = .closed(lastEntry: last)
        try new.checkLast(last)
        return new
    }

    /// The close that ends a recovery, with the ensemble changes that it made. `changes` begin at or after the last fragment.
    package func closingRecovery(
        at last: EntryID, changes: [Fragment], rules: ProtocolRules = .standard
    ) throws(LedgerMetadataError) -> LedgerMetadata {
        guard state == .inRecovery else { throw LedgerMetadataError.state(state) }
        var new = self
        for change in changes { try new.setEnsemble(change.ensemble, from: change.firstEntry, rules: rules) }
        new.state = .closed(lastEntry: last)
        if rules.keep(.recoveryHasFloor) { try new.checkLast(last) }
        return new
    }

    /// Recovery ensembles in metadata before the close: what `recoveryEnsemblesWaitForClose` forbids.
    func changingEnsembleInRecovery(_ changes: [Fragment]) throws(LedgerMetadataError) -> LedgerMetadata {
        var new = self
        for change in changes { try new.setEnsemble(change.ensemble, from: change.firstEntry) }
        return new
    }

    /// Repair: `new` holds all that `old` held of fragment `index`. Only where no add can come any more.
    package func replacing(
        _ old: LogNodeID, with new: LogNodeID, inFragment index: Int
    ) throws(LedgerMetadataError) -> LedgerMetadata {
        guard fragments.indices.contains(index), lastEntry(ofFragment: index) != nil else {
            throw LedgerMetadataError.fragmentIsWritable(index)
        }
        var result = self
        result.fragments[index].ensemble = fragments[index].ensemble.map { $0 == old ? new : $0 }
        try LedgerMetadata.check(result.fragments[index].ensemble, sizes)
        return result
    }

    private mutating func setEnsemble(
        _ ensemble: [LogNodeID], from first: EntryID, rules: ProtocolRules = .standard
    ) throws(LedgerMetadataError) {
        try LedgerMetadata.check(ensemble, sizes)
        let begins = lastFragment.firstEntry
        if first == begins || (first < begins && !rules.keep(.recoveryHasFloor)) {
            fragments[fragments.count - 1].ensemble = ensemble
        } else {
            guard first > begins else { throw LedgerMetadataError.fragmentBegins(first, before: begins) }
            fragments.append(Fragment(firstEntry: first, ensemble: ensemble))
        }
    }

    private static func check(_ ensemble: [LogNodeID], _ sizes: QuorumSizes) throws(LedgerMetadataError) {
        guard ensemble.count == sizes.ensemble, Set(ensemble).count == ensemble.count else {
            throw LedgerMetadataError.ensemble(ensemble)
        }
    }

    /// All before the last fragment is acknowledged, so no close may cut it off.
    private func checkLast(_ last: EntryID) throws(LedgerMetadataError) {
        guard last >= lastFragment.firstEntry.previous else {
            throw LedgerMetadataError.lastEntry(last, lastFragment: lastFragment.firstEntry)
        }
    }
}
