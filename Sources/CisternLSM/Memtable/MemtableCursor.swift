// Walks a memtable in key order: the radix tree by a stack of (node, next position) from the root down, the point entries by
// their sorted list, and whichever key is smaller is next.
// Owned by one thread. On an active memtable it must be positioned anew after each `apply`.

internal import CCisternShims
package import CisternPrimitives

package final class MemtableCursor {
    /// What it walks.
    enum Scope {
        case all, ordered, points
    }
    /// A node on the way down and where to go on in it.
    private struct Frame {
        let node: UInt32
        /// `beforeTerminal`, or a position of `RadixNode.nextChild`.
        var position: Int32
    }
    private static let beforeTerminal: Int32 = -1
    /// Entries of the sorted list that are asked for ahead of time.
    private static let prefetchDistance = 8
    /// Memory that stays with a cursor that is used again.
    private static let keptBytesMax = 64 << 10

    /// nil while a scan that may use it again has let go of it.
    private var memtable: Memtable?
    private var scope: Scope
    private var view: ArenaView
    private var stack: [Frame] = []
    private var points: SortedEntries?
    private var pointIndex = 0
    /// References of the next entry of each side; 0 when it has no more.
    private var ordered: UInt32 = 0
    private var point: UInt32 = 0
    /// The smaller one.
    private var current: UInt32 = 0
    /// The value in pieces of the entry `assembledReference`.
    private var assembled = GrowingBuffer()
    private var assembledReference: UInt32 = 0

    init(_ memtable: Memtable, _ scope: Scope) {
        self.memtable = memtable
        self.scope = scope
        view = memtable.arenaView
    }

    /// Goes over to another memtable, not positioned yet.
    func retarget(_ newMemtable: Memtable, _ newScope: Scope) {
        memtable = newMemtable
        scope = newScope
    }

    /// Lets go of the memtable; not positioned any more.
    func letGo() {
        memtable = nil
        points = nil
        current = 0
        assembled.reset(keepingAtMost: MemtableCursor.keptBytesMax)
    }

    package var isValid: Bool { current != 0 }

    /// - Precondition: the cursor is positioned.
    package var entry: EntryView {
        invariant(current != 0, "the entry of a cursor that is not positioned")
        let stored = unsafe MemtableEntry(view.address(current))
        return stored.hasPieces ? wholeEntry(stored) : stored.view
    }

    /// Puts the pieces of a value together, once for each position.
    private func wholeEntry(_ stored: MemtableEntry) -> EntryView {
        if assembledReference != current {
            assembled.reset()
            unsafe stored.forEachPart(in: view) { unsafe assembled.append($0) }
            assembledReference = current
        }
        return unsafe EntryView(key: stored.key, kind: stored.kind, expiry: stored.expiry, value: assembled.bytes)
    }

    package func seekToFirst() -> Bool {
        restart()
        if scope != .points { _ = descend(root) }
        loadPoint()
        return choose()
    }

    /// Positions on the first key at or behind `key`.
    package func seek(to key: UnsafeRawBufferPointer) -> Bool {
        restart()
        if scope != .points { _ = unsafe seekOrdered(key) }
        if let points { pointIndex = unsafe lowerBound(key, points) }
        loadPoint()
        return choose()
    }

    package func next() -> Bool {
        if current == point {
            pointIndex &+= 1
            loadPoint()
        } else {
            _ = nextOrdered()
        }
        return choose()
    }

    @inline(__always)
    private func choose() -> Bool {
        if ordered == 0 || point == 0 {
            current = ordered | point
        } else {
            let order = unsafe compareBytes(
                MemtableEntry(view.address(ordered)).key, MemtableEntry(view.address(point)).key)
            current = order < 0 ? ordered : point
        }
        return current != 0
    }

    private var root: UInt32 { memtable?.root ?? 0 }

    private func restart() {
        stack.removeAll(keepingCapacity: true)
        ordered = 0
        point = 0
        current = 0
        assembledReference = 0
        pointIndex = 0
        guard let memtable else { preconditionFailure("a cursor without a memtable is positioned") }
        view = memtable.arenaView
        points = scope != .ordered && memtable.pointCount > 0 ? memtable.sortedPoints() : nil
    }

    // MARK: Point entries

    @inline(__always)
    private func loadPoint() {
        guard let points, pointIndex < points.count else {
            point = 0
            return
        }
        let ahead = pointIndex &+ MemtableCursor.prefetchDistance
        if ahead < points.count {
            // Header and key, and where a short value is.
            let address = unsafe view.address(points.references[ahead])
            unsafe cistern_prefetch(address)
            unsafe cistern_prefetch(address + 64)
            unsafe cistern_prefetch(address + 128)
        }
        point = unsafe points.references[pointIndex]
    }

    private func lowerBound(_ key: UnsafeRawBufferPointer, _ points: SortedEntries) -> Int {
        var low = 0
        var high = points.count
        while low < high {
            let middle = (low + high) / 2
            let found = unsafe MemtableEntry(view.address(points.references[middle])).key
            if unsafe compareBytes(found, key) < 0 { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: Radix tree

    private func seekOrdered(_ key: UnsafeRawBufferPointer) -> Bool {
        var reference = root
        var depth = 0
        while reference != 0 {
            if reference & radixEntryBit != 0 {
                let entry = unsafe MemtableEntry(view.address(reference & ~radixEntryBit))
                if unsafe compareBytes(entry.key, key) < 0 { return nextOrdered() }
                ordered = reference & ~radixEntryBit
                return true
            }
            let node = unsafe RadixNode(view.address(reference))
            let prefix = unsafe wholePrefix(of: node, depth: depth, in: view)
            let rest = unsafe UnsafeRawBufferPointer(rebasing: key[depth...])
            let shared = unsafe commonPrefixCount(prefix, rest)
            // The key ends inside the prefix or right behind it: everything below is at or behind the key.
            if shared == rest.count { return descend(reference) }
            if shared < prefix.count {
                return unsafe prefix[shared] > rest[shared] ? descend(reference) : nextOrdered()
            }
            depth += prefix.count
            var position = unsafe node.position(atLeast: key[depth])
            guard let (byte, child) = node.nextChild(&position) else { return nextOrdered() }
            stack.append(Frame(node: reference, position: Int32(position)))
            if unsafe byte > key[depth] { return descend(child) }
            depth += 1
            reference = child
        }
        return false
    }

    private func nextOrdered() -> Bool {
        ordered = 0
        while let top = stack.last {
            let node = unsafe RadixNode(view.address(top.node))
            if top.position == MemtableCursor.beforeTerminal {
                stack[stack.count - 1].position = 0
                if node.terminal != 0 { return descend(node.terminal) }
            }
            var position = Int(stack[stack.count - 1].position)
            if let (_, child) = node.nextChild(&position) {
                stack[stack.count - 1].position = Int32(position)
                return descend(child)
            }
            stack.removeLast()
        }
        return false
    }

    /// Positions on the first entry at or below `reference`.
    private func descend(_ reference: UInt32) -> Bool {
        var reference = reference
        while reference != 0 {
            if reference & radixEntryBit != 0 {
                ordered = reference & ~radixEntryBit
                return true
            }
            let node = unsafe RadixNode(view.address(reference))
            if node.terminal != 0 {
                stack.append(Frame(node: reference, position: 0))
                reference = node.terminal
            } else {
                var position = 0
                // A node without a terminal has two children or more.
                guard let (_, child) = node.nextChild(&position) else { return false }
                stack.append(Frame(node: reference, position: Int32(position)))
                reference = child
            }
        }
        return false
    }
}
