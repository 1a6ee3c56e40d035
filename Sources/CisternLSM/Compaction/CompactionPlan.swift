// One compaction as the picker decided it, and what must not run beside it. Pure values.

internal import CisternPrimitives

/// Which work goes first, when several wait for a thread.
package enum CompactionPriority: Int, CaseIterable, Comparable, Sendable {
    /// Level 0: what writes wait for in the end.
    case levelZero
    /// Between deeper levels.
    case deep
    /// Space of expired entries, of deletes and of windows: useful, and never urgent.
    case cleanup
    /// Fewer runs than must be.
    case rest

    package static func < (left: CompactionPriority, right: CompactionPriority) -> Bool {
        left.rawValue < right.rawValue
    }
}

package struct CompactionPlan: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// Merge the inputs into new files of the output level.
        case merge
        /// The inputs change their level; nothing is read.
        case move
        /// The inputs go; nothing is read.
        case drop
    }
    package struct Input: Equatable, Sendable {
        package let level: Int
        package let file: FileRecord
    }

    package let kind: Kind
    /// Newest first: level 0 in its order, then deeper levels.
    package let inputs: [Input]
    package let outputLevel: Int
    /// True when nothing below the output can hold an older entry for a key of the inputs, so deletes may go.
    package let isBottommost: Bool
    package let priority: CompactionPriority
    /// All keys of inputs and outputs.
    let bounds: KeyBounds

    init?(
        _ kind: Kind, _ inputs: [Input], to outputLevel: Int, isBottommost: Bool, priority: CompactionPriority
    ) {
        guard let bounds = KeyBounds(of: inputs.lazy.map(\.file)) else { return nil }
        self.kind = kind
        self.inputs = inputs
        self.outputLevel = outputLevel
        self.isBottommost = isBottommost
        self.priority = priority
        self.bounds = bounds
    }

    package var inputBytes: UInt64 { inputs.lazy.map(\.file).windowedBytes }

    /// True when the two may not run at the same time, because their outputs could meet in one level. Inputs they share are
    /// excluded by `BusyFiles`.
    func meets(_ other: CompactionPlan) -> Bool {
        kind != .drop && other.kind != .drop && outputLevel == other.outputLevel && bounds.overlaps(other.bounds)
    }

    /// The plan cut by key groups into parts of about `bytes` of input. Their outputs together are the plan's, in key order.
    package func parts(bytes: UInt64, partsMax: Int) -> [CompactionPlan] {
        let groups = inputs.compactMap { $0.file.window.intersection($0.file.summary.keyGroups) }
        guard kind == .merge, let first = groups.map(\.first).min(), let last = groups.map(\.last).max() else {
            return [self]
        }
        let whole = KeyGroupRange(first: first, last: last)
        let wanted = Int(clamping: inputBytes / max(bytes, 1))
        let count = min(max(wanted, 1), min(whole.count, partsMax))
        if count == 1 { return [self] }
        return (0..<count).compactMap { part in
            let range = KeyGroupRange(
                first: first + UInt16(whole.count * part / count),
                last: first + UInt16(whole.count * (part + 1) / count - 1))
            let clipped = inputs.compactMap { input in
                input.file.clipped(to: range).map { Input(level: input.level, file: $0) }
            }
            return CompactionPlan(kind, clipped, to: outputLevel, isBottommost: isBottommost, priority: priority)
        }
    }
}

/// Files that running compactions have.
struct BusyFiles {
    private let ids: Set<FileRecordID>

    init(_ running: [CompactionPlan]) { ids = Set(running.lazy.flatMap(\.inputs).map(\.file.id)) }

    func contains(_ file: FileRecord) -> Bool { !ids.isEmpty && ids.contains(file.id) }
}

extension KeyBounds {
    package func overlaps(_ other: KeyBounds) -> Bool {
        compareKeys(smallest, other.largest) <= 0 && compareKeys(other.smallest, largest) <= 0
    }

    mutating func include(_ file: FileRecord) {
        if compareKeys(file.smallestKey, smallest) < 0 { smallest = file.smallestKey }
        if compareKeys(file.largestKey, largest) > 0 { largest = file.largestKey }
    }
}

extension FileRecord {
    var bounds: KeyBounds { KeyBounds(smallest: smallestKey, largest: largestKey) }
}

extension [FileRecord] {
    /// Indices of the files that overlap the bounds.
    /// - Precondition: the files are a level below level 0: in key order and apart.
    func overlapping(_ bounds: KeyBounds) -> Range<Int> {
        let first = partition { compareKeys($0.largestKey, bounds.smallest) < 0 }
        var end = first
        while end < count, compareKeys(self[end].smallestKey, bounds.largest) <= 0 { end += 1 }
        return first..<end
    }

    /// The first index that is not below.
    private func partition(_ isBelow: (FileRecord) -> Bool) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if isBelow(self[middle]) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
