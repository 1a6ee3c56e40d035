// Who may write a key-group range: the rule that every attach is judged by. Pure: trees and a request in, a decision out.
//
// The trees of one store never overlap: the engine exchanges a restored tree and those it replaces in one step.

package import CisternPrimitives

/// A tree as the rule sees it.
package struct TreeClaim: Equatable, Sendable {
    package let id: UInt64
    package let range: KeyGroupRange
    package let epoch: UInt64
    package let writer: String

    package init(id: UInt64, range: KeyGroupRange, epoch: UInt64, writer: String) {
        self.id = id
        self.range = range
        self.epoch = epoch
        self.writer = writer
    }
}

package struct AttachRequest: Equatable, Sendable {
    package let range: KeyGroupRange
    package let epoch: UInt64
    package let writer: String
    /// The content becomes exactly the union of the named snapshots; else the writer goes on with what is there.
    package let isRestoring: Bool

    package init(range: KeyGroupRange, epoch: UInt64, writer: String, isRestoring: Bool) {
        self.range = range
        self.epoch = epoch
        self.writer = writer
        self.isRestoring = isRestoring
    }
}

package enum AttachDecision: Equatable, Sendable {
    /// Nothing is there: make an empty tree.
    case fresh
    /// The writer itself comes back with the same epoch: go on where it was.
    case resume(tree: UInt64)
    /// A newer epoch of the same range: raise the tree's epoch, go on with its content.
    case takeOver(tree: UInt64)
    /// Make the tree from the snapshots in place of these.
    case restore(replacing: [UInt64])
    /// A writer with this epoch, or a newer one, owns some of the range.
    case fenced(by: TreeClaim)
    /// Going on needs the exact range; these overlap it.
    case mismatch(with: [KeyGroupRange])
}

package enum AttachRules {
    /// - Parameter trees: the live trees of the request's store.
    package static func decide(_ request: AttachRequest, trees: [TreeClaim]) -> AttachDecision {
        let overlapping = trees.filter { $0.range.overlaps(request.range) }
        if let exact = overlapping.first(where: { isSame($0, as: request) }) {
            return .resume(tree: exact.id)
        }
        if request.isRestoring {
            if let owner = newest(overlapping), owner.epoch >= request.epoch { return .fenced(by: owner) }
            return .restore(replacing: overlapping.map(\.id))
        }
        guard let owner = newest(overlapping) else { return .fresh }
        // A worker of an older epoch must stop, whatever its range: tell it so rather than that its range is wrong.
        if owner.epoch > request.epoch { return .fenced(by: owner) }
        guard overlapping.count == 1, owner.range == request.range else {
            return .mismatch(with: overlapping.map(\.range))
        }
        return owner.epoch < request.epoch ? .takeOver(tree: owner.id) : .fenced(by: owner)
    }

    private static func isSame(_ tree: TreeClaim, as request: AttachRequest) -> Bool {
        tree.range == request.range && tree.epoch == request.epoch && tree.writer == request.writer
    }

    private static func newest(_ trees: [TreeClaim]) -> TreeClaim? {
        trees.max { $0.epoch < $1.epoch }
    }
}

/// Whether snapshots fit together and fill a range; restoring from fewer would lose state without a word.
package enum RestoreCoverage: Equatable, Sendable {
    case complete
    /// No snapshot covers this key group.
    case missing(keyGroup: UInt16)
    /// Two snapshots cover this key group: which of them is right cannot be known.
    case ambiguous(keyGroup: UInt16)

    /// - Parameter snapshots: the ranges of the snapshots; none at all means "start empty", which is complete.
    package static func of(_ range: KeyGroupRange, by snapshots: [KeyGroupRange]) -> RestoreCoverage {
        if snapshots.isEmpty { return .complete }
        let parts = snapshots.compactMap { $0.intersection(range) }.sorted { $0.first < $1.first }
        var next = UInt32(range.first)
        for part in parts {
            if UInt32(part.first) < next { return .ambiguous(keyGroup: part.first) }
            if UInt32(part.first) > next { return .missing(keyGroup: UInt16(next)) }
            next = UInt32(part.last) + 1
        }
        return next > UInt32(range.last) ? .complete : .missing(keyGroup: UInt16(next))
    }
}
