// Several sources, newest first, as one: the live values in key order, what a scan sees. Owned by one thread. Compaction has
// a merge of its own, `RunMerge`, whose inputs are read as blocks.
//
// A binary heap of source numbers by (key, age): the newest source of the smallest key is on top. The 16 first bytes of each
// source's key are kept as a number beside it, so that most comparisons touch no key. The top source stays where it is while
// its entry is shown, so puts are handed through without a copy; duplicates of its key below are skipped under it.

package import CisternPrimitives

@safe package final class MergingCursor {
    private let sources: [EntryCursor]
    private let clock: ExpiryClock
    /// Source numbers as a heap; `heads` and `keys` are by source number.
    private let heap: UnsafeMutablePointer<Int>
    private let heads: UnsafeMutablePointer<UInt128>
    private let keys: UnsafeMutablePointer<UnsafeRawBufferPointer>
    private var heapCount = 0
    private var needsAdvance = false
    private let fold = FoldBuffer()
    private var current: EntryView?

    /// - Parameter cursors: newest first; no source outside of these holds older entries of their keys.
    package init(_ cursors: [EntryCursor], clock: ExpiryClock) {
        sources = cursors
        self.clock = clock
        let capacity = max(cursors.count, 1)
        unsafe heap = .allocate(capacity: capacity)
        unsafe heads = .allocate(capacity: capacity)
        unsafe keys = .allocate(capacity: capacity)
        unsafe heap.initialize(repeating: 0, count: capacity)
        unsafe heads.initialize(repeating: 0, count: capacity)
        unsafe keys.initialize(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: capacity)
    }

    deinit {
        unsafe heap.deallocate()
        unsafe heads.deallocate()
        unsafe keys.deallocate()
    }

    package var isValid: Bool { current != nil }

    /// Valid until the next move.
    /// - Precondition: the last move returned true.
    package var entry: EntryView {
        guard let current else { preconditionFailure("the entry of a cursor that is not positioned") }
        return current
    }

    package func seekToFirst() throws(EngineError) -> Bool {
        restart()
        for source in 0..<sources.count where try sources[source].seekToFirst() { push(source) }
        return try settle()
    }

    /// Positions on the first key at or behind `key` that is visible.
    package func seek(to key: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        restart()
        for source in 0..<sources.count where unsafe try sources[source].seek(to: key) { push(source) }
        return try settle()
    }

    package func next() throws(EngineError) -> Bool {
        current = nil
        return try settle()
    }

    // MARK: Folding

    /// Folds key after key until one is shown.
    private func settle() throws(EngineError) -> Bool {
        while true {
            if needsAdvance { try advance(at: 0) }
            guard heapCount > 0 else { return false }
            needsAdvance = true
            let newest = unsafe sources[heap[0]].entry
            let isAlone = !hasDuplicate()
            if newest.kind == .append {
                fold.reset()
                _ = fold.add(newest)
                while let below = nextDuplicate() {
                    if !fold.isComplete { _ = unsafe fold.add(sources[heap[below]].entry) }
                    try advance(at: below)
                }
            } else if !isAlone {
                while let below = nextDuplicate() { try advance(at: below) }
            }
            current = resolve(newest)
            if current != nil { return true }
        }
    }

    /// What a reader sees of the folded entry, or nil.
    @inline(__always)
    private func resolve(_ newest: EntryView) -> EntryView? {
        if newest.kind == .delete || clock.isExpired(newest.expiry) { return nil }
        if newest.kind == .put { return newest }
        return unsafe EntryView(key: newest.key, kind: .put, expiry: newest.expiry, value: fold.value())
    }

    // MARK: Heap

    private func restart() {
        heapCount = 0
        needsAdvance = false
        current = nil
    }

    /// Sources with the top's key hang together below the top, so one of its two children has it if any has.
    @inline(__always)
    private func hasDuplicate() -> Bool {
        unsafe (heapCount > 1 && haveSameKey(heap[0], heap[1])) || (heapCount > 2 && haveSameKey(heap[0], heap[2]))
    }

    /// The place of the next older source of the top's key, or nil.
    @inline(__always)
    private func nextDuplicate() -> Int? {
        guard heapCount > 1 else { return nil }
        let place = unsafe heapCount > 2 && isBefore(heap[2], heap[1]) ? 2 : 1
        return unsafe haveSameKey(heap[0], heap[place]) ? place : nil
    }

    /// Moves the source at `place` on and restores the heap below it.
    @inline(__always)
    private func advance(at place: Int) throws(EngineError) {
        let source = unsafe heap[place]
        if try sources[source].next() {
            load(source)
        } else {
            heapCount &-= 1
            if place == heapCount { return }
            unsafe heap[place] = unsafe heap[heapCount]
            // The last element comes from below the top, not necessarily from below `place`; the top is the smallest of
            // all and `place` is one of its children, so nothing above can be out of order but the top's other side.
        }
        siftDown(place)
    }

    private func push(_ source: Int) {
        load(source)
        var place = heapCount
        unsafe heap[place] = source
        heapCount += 1
        while place > 0 {
            let parent = (place - 1) / 2
            if unsafe !isBefore(heap[place], heap[parent]) { break }
            unsafe (heap[place], heap[parent]) = unsafe (heap[parent], heap[place])
            place = parent
        }
    }

    @inline(__always)
    private func load(_ source: Int) {
        let key = unsafe sources[source].entry.key
        unsafe keys[source] = unsafe key
        unsafe heads[source] = unsafe keyHead(key)
    }

    @inline(__always)
    private func siftDown(_ start: Int) {
        var place = start
        let moved = unsafe heap[place]
        while true {
            var child = place &* 2 &+ 1
            if child >= heapCount { break }
            if child &+ 1 < heapCount, unsafe isBefore(heap[child &+ 1], heap[child]) { child &+= 1 }
            if unsafe !isBefore(heap[child], moved) { break }
            unsafe heap[place] = unsafe heap[child]
            place = child
        }
        unsafe heap[place] = moved
    }

    /// By key, then newest first.
    @inline(__always)
    private func isBefore(_ left: Int, _ right: Int) -> Bool {
        if unsafe heads[left] != heads[right] { return unsafe heads[left] < heads[right] }
        let order = unsafe compareBytes(keys[left], keys[right])
        return order != 0 ? order < 0 : left < right
    }

    @inline(__always)
    private func haveSameKey(_ left: Int, _ right: Int) -> Bool {
        guard unsafe heads[left] == heads[right], unsafe keys[left].count == keys[right].count else { return false }
        return unsafe compareBytes(keys[left], keys[right]) == 0
    }
}
