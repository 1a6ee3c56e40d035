// Several sources, newest first, as one: the live values in key order, what a scan sees. Owned by one thread. Compaction has
// a merge of its own, `RunMerge`, whose inputs are read as blocks.
//
// A binary heap of source numbers by (key, age): the newest source of the smallest key is on top. Beside each source stand its
// entry and 16 bytes of its key as a number, from where the keys of the range begin to differ, so that most comparisons touch
// no key. The top source stays where it is while its entry is shown, so puts are handed through without a copy; duplicates of
// its key below are skipped under it. A source whose next key lies behind the range has ended.
//
// Used again from scan to scan: `begin`, `add` for each source, then a seek.

package import CisternPrimitives

@safe package final class MergingCursor {
    private var sources: [EntryCursor] = []
    private var clock: ExpiryClock
    private var rules: ExpiryRules
    /// Where the range ends, empty: nowhere; and how many bytes all its keys share. Of `retained`.
    private var end: UnsafeRawBufferPointer
    private var sharedCount = 0
    private var capacity: Int
    /// Source numbers as a heap; the others are by source number.
    private var heap: UnsafeMutablePointer<Int>
    private var heads: UnsafeMutablePointer<UInt128>
    private var entries: UnsafeMutablePointer<EntryView>
    /// The table cursor that a source moves by, where it has one: most steps stay in its block.
    private var tables: UnsafeMutablePointer<Unmanaged<TableCursor>?>
    private var heapCount = 0
    private var needsAdvance = false
    private let fold = FoldBuffer()
    /// The value that the current entry points to.
    @exclusivity(unchecked) private var pointed = GrowingBuffer()
    /// Values in value files are shown as empty.
    private var skipsPointed = false
    private var current: EntryView?

    private static let pointedKeptBytesMax = 1 << 20

    /// - Parameter cursors: newest first; no source outside of these holds older entries of their keys.
    package convenience init(_ cursors: [EntryCursor], clock: ExpiryClock, rules: ExpiryRules = ExpiryRules()) {
        self.init(capacity: cursors.count, clock: clock, rules: rules)
        for cursor in cursors { add(cursor) }
    }

    init(
        capacity wanted: Int = 8, clock: ExpiryClock = ExpiryClock(processing: 0, event: 0),
        rules: ExpiryRules = ExpiryRules()
    ) {
        self.clock = clock
        self.rules = rules
        unsafe end = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        capacity = max(wanted, 1)
        unsafe heap = .allocate(capacity: capacity)
        unsafe heads = .allocate(capacity: capacity)
        unsafe entries = .allocate(capacity: capacity)
        unsafe tables = .allocate(capacity: capacity)
    }

    deinit { deallocate() }

    private func deallocate() {
        unsafe heap.deallocate()
        unsafe heads.deallocate()
        unsafe entries.deallocate()
        unsafe tables.deallocate()
    }

    /// Forgets its sources and takes others, for a range of keys.
    /// - Parameters:
    ///   - start, end: of the range, without its end, which may be empty for none; valid until the next call of this.
    ///   - skipsPointed: values in value files are not read, and shown as empty.
    func begin(
        from start: UnsafeRawBufferPointer, to end: UnsafeRawBufferPointer, clock: ExpiryClock, rules: ExpiryRules,
        skipsPointed: Bool
    ) {
        self.skipsPointed = skipsPointed
        restart()
        sources.removeAll(keepingCapacity: true)
        unsafe self.end = unsafe end
        sharedCount = unsafe commonPrefixCount(start, end)
        self.clock = clock
        self.rules = rules
    }

    /// - Parameter source: older than all that were added before.
    func add(_ source: EntryCursor) {
        if sources.count == capacity { grow() }
        sources.append(source)
    }

    private func grow() {
        invariant(heapCount == 0, "a source is added to a merge that is under way")
        deallocate()
        capacity *= 2
        unsafe heap = .allocate(capacity: capacity)
        unsafe heads = .allocate(capacity: capacity)
        unsafe entries = .allocate(capacity: capacity)
        unsafe tables = .allocate(capacity: capacity)
    }

    /// Lets go of everything it was given.
    func finish() {
        restart()
        // One long value should not be kept for scans that show short ones.
        if unsafe pointed.count > MergingCursor.pointedKeptBytesMax { unsafe pointed = GrowingBuffer() }
        sources.removeAll(keepingCapacity: true)
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
            let newest = unsafe entries[heap[0]]
            if newest.kind == .append {
                fold.reset()
                _ = fold.add(newest)
                while let below = nextDuplicate() {
                    if !fold.isComplete { try add(source: unsafe heap[below]) }
                    try advance(at: below)
                }
            } else if hasDuplicate() {
                while let below = nextDuplicate() { try advance(at: below) }
            }
            current = newest.isPointer ? try follow(newest) : resolve(newest)
            if current != nil { return true }
        }
    }

    /// What a reader sees of the folded entry, or nil.
    @inline(__always)
    private func resolve(_ newest: EntryView) -> EntryView? {
        if !rules.areIdle { return resolveByRule(newest) }
        if newest.kind == .delete || clock.isExpired(newest.expiry) { return nil }
        if newest.kind == .put { return newest }
        return unsafe EntryView(key: newest.key, kind: .put, expiry: newest.expiry, value: fold.value())
    }

    /// Adds the entry of an older source to the fold.
    private func add(source: Int) throws(EngineError) {
        let entry = unsafe entries[source]
        guard entry.isPointer else {
            _ = fold.add(entry)
            return
        }
        try fold.add(entry, hash: unsafe Hash64.hash(entry.key), of: table(of: source))
    }

    /// The put on top with the value that it points to, or nil.
    @inline(never)
    private func follow(_ newest: EntryView) throws(EngineError) -> EntryView? {
        let expiry = unsafe rules.current(newest.expiry, of: newest.key)
        if clock.isExpired(expiry) { return nil }
        unsafe pointed.reset()
        if !skipsPointed {
            let table = unsafe table(of: heap[0])
            let hash = unsafe Hash64.hash(newest.key)
            unsafe try table.valueFiles().read(newest, hash: hash, of: table.path, into: &pointed)
        }
        return unsafe EntryView(key: newest.key, kind: .put, expiry: expiry, value: pointed.bytes)
    }

    /// - Precondition: the source stands on an entry of a table.
    private func table(of source: Int) -> TableReader {
        guard let cursor = unsafe tables[source] else { preconditionFailure("a memtable has no pointers") }
        return unsafe cursor._withUnsafeGuaranteedRef { $0.reader }
    }

    @inline(never)
    private func resolveByRule(_ newest: EntryView) -> EntryView? {
        let expiry = unsafe rules.current(newest.expiry, of: newest.key)
        if newest.kind == .delete || clock.isExpired(expiry) { return nil }
        let value = unsafe newest.kind == .put ? newest.value : fold.value()
        return unsafe EntryView(key: newest.key, kind: .put, expiry: expiry, value: value)
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
        if try move(source) && load(source) {
            if heapCount == 1 { return }
        } else {
            heapCount &-= 1
            if place == heapCount { return }
            unsafe heap[place] = unsafe heap[heapCount]
            // The last element comes from below the top, not necessarily from below `place`; the top is the smallest of
            // all and `place` is one of its children, so nothing above can be out of order but the top's other side.
        }
        siftDown(place)
    }

    @inline(__always)
    private func move(_ source: Int) throws(EngineError) -> Bool {
        if let table = unsafe tables[source], unsafe table._withUnsafeGuaranteedRef({ $0.step() }) { return true }
        return try sources[source].next()
    }

    private func push(_ source: Int) {
        unsafe tables[source] = unsafe tableCursor(of: source)
        guard load(source) else { return }
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

    private func tableCursor(of source: Int) -> Unmanaged<TableCursor>? {
        switch sources[source] {
        case .memtable: nil
        case .table(let cursor): unsafe .passUnretained(cursor)
        case .level(let cursor): unsafe cursor.table.map { unsafe .passUnretained($0) }
        }
    }

    /// Takes the entry that the source stands on; false when it lies behind the range.
    @inline(__always)
    private func load(_ source: Int) -> Bool {
        let entry: EntryView
        if let table = unsafe tables[source] {
            entry = unsafe table._withUnsafeGuaranteedRef { $0.uncheckedEntry }
        } else {
            entry = sources[source].entry
        }
        if unsafe end.count > 0 && compareBytes(entry.key, end) >= 0 { return false }
        unsafe (entries + source).initialize(to: entry)
        unsafe heads[source] = unsafe keyHead(
            UnsafeRawBufferPointer(rebasing: entry.key[min(sharedCount, entry.key.count)...]))
        return true
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
        let order = unsafe compareBytes(entries[left].key, entries[right].key)
        return order != 0 ? order < 0 : left < right
    }

    @inline(__always)
    private func haveSameKey(_ left: Int, _ right: Int) -> Bool {
        guard unsafe heads[left] == heads[right], unsafe entries[left].key.count == entries[right].key.count else {
            return false
        }
        return unsafe compareBytes(entries[left].key, entries[right].key) == 0
    }
}
