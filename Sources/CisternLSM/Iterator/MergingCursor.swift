// Several sources, newest first, as one: the live values in key order, what a scan sees. Owned by one thread. Compaction has
// a merge of its own, `RunMerge`, whose inputs are read as blocks.
//
// A binary heap of sources by (key, age): the newest source of the smallest key is on top. A source stands in the heap with 16
// bytes of its key as a number, from where the keys of the range begin to differ, so that most comparisons touch no key. The
// top source stays where it is while its entry is shown, so puts are handed through without a copy; duplicates of its key below
// are skipped under it.
//
//    a run    while the next entry of the top's block comes before the heads of all other sources, it is shown without a
//             look at the heap: one comparison of numbers, one copy of the key's suffix
//
// Used again from scan to scan: `begin`, `add` for each source, then a seek.

package import CisternPrimitives

@safe package final class MergingCursor {
    /// A source with an entry, in the heap.
    @safe private struct Node {
        var head: UInt128
        var source: Int
    }

    /// What the merge knows of a source, by number.
    @safe private struct Standing {
        /// Of a source of tables: it steps here.
        var place: UnsafeMutablePointer<BlockPlace>?
        /// Of a memtable: where it stands.
        var entry: EntryView
    }

    // Unchecked: one owner, and no source calls back.
    @exclusivity(unchecked) private var sources: [EntryCursor] = []
    private var clock: ExpiryClock
    private var rules: ExpiryRules
    /// Where the range ends, empty: nowhere; and how many bytes all its keys share.
    private var end: UnsafeRawBufferPointer
    private var sharedCount = 0
    private var capacity: Int
    private var heap: UnsafeMutablePointer<Node>
    private var standing: UnsafeMutablePointer<Standing>
    private var heapCount = 0
    /// The top was shown, or is hidden.
    private var needsAdvance = false
    /// Where the top stands, while its next entries may be shown as a run; and the smallest head of the other sources.
    private var run: UnsafeMutablePointer<BlockPlace>?
    private var runEnd: UInt128 = 0
    /// False where stored expiries do not say themselves what has expired.
    private var showsRuns: Bool
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
        showsRuns = rules.areIdle
        unsafe end = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        capacity = max(wanted, 1)
        unsafe heap = .allocate(capacity: capacity)
        unsafe standing = .allocate(capacity: capacity)
    }

    deinit {
        unsafe heap.deallocate()
        unsafe standing.deallocate()
    }

    /// Forgets its sources and takes others, for a range of keys.
    /// - Parameters:
    ///   - bounds: what they refer to stays until the next call of this.
    ///   - skipsPointed: values in value files are not read, and shown as empty.
    func begin(_ bounds: ScanBounds, clock: ExpiryClock, rules: ExpiryRules, skipsPointed: Bool) {
        self.skipsPointed = skipsPointed
        finish()
        unsafe end = unsafe bounds.end
        sharedCount = bounds.sharedCount
        self.clock = clock
        self.rules = rules
        showsRuns = rules.areIdle
    }

    /// - Parameter source: older than all that were added before.
    func add(_ source: EntryCursor) {
        if unsafe sources.count == capacity { grow() }
        unsafe sources.append(source)
    }

    private func grow() {
        invariant(heapCount == 0, "a source is added to a merge that is under way")
        unsafe heap.deallocate()
        unsafe standing.deallocate()
        capacity *= 2
        unsafe heap = .allocate(capacity: capacity)
        unsafe standing = .allocate(capacity: capacity)
    }

    /// Lets go of everything it was given.
    func finish() {
        restart()
        // One long value should not be kept for scans that show short ones.
        if unsafe pointed.count > MergingCursor.pointedKeptBytesMax { unsafe pointed = GrowingBuffer() }
        unsafe sources.removeAll(keepingCapacity: true)
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
        for source in unsafe 0..<sources.count where unsafe try sources[source].seekToFirst() { push(source) }
        return try settle()
    }

    /// Positions on the first key at or behind `key` that is visible.
    package func seek(to key: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        restart()
        for source in unsafe 0..<sources.count {
            if case .level(let cursor) = unsafe sources[source] { unsafe cursor.aim(at: key) }
        }
        for source in unsafe 0..<sources.count {
            if case .level(let cursor) = unsafe sources[source] { unsafe try cursor.approach(key) }
        }
        for source in unsafe 0..<sources.count {
            let isPositioned =
                switch unsafe sources[source] {
                case .memtable(let cursor): unsafe cursor.seek(to: key)
                case .table(let cursor): unsafe try cursor.seek(to: key)
                case .level(let cursor): unsafe try cursor.finishSeek(key)
                }
            if isPositioned { push(source) }
        }
        return try settle()
    }

    package func next() throws(EngineError) -> Bool {
        if let place = unsafe run {
            if unsafe place.pointee.step() {
                let head = unsafe place.pointee.head()
                unsafe heap[0].head = head
                if head < runEnd, unsafe place.pointee.isLivingPut(clock) {
                    current = unsafe place.pointee.entry()
                    return true
                }
                siftDown(0)
            } else {
                try leaveBlock(at: 0)
            }
            needsAdvance = false
        }
        return try settle()
    }

    /// Shows entries from the current one on, until a limit is reached or `visit` returns false.
    /// - Returns: true when it stands on an entry that was not shown.
    func show(_ limits: ScanLimits, keysOnly: Bool, _ visit: (EntryView) -> Bool) throws(EngineError) -> Bool {
        var left = limits.entriesMax
        var bytes = 0
        while let entry = current {
            if left <= 0 || (bytes >= limits.bytesMax && left < limits.entriesMax) { return true }
            left &-= 1
            unsafe bytes &+= entry.key.count &+ (keysOnly ? 0 : entry.value.count)
            if !visit(entry) { return try next() }
            guard var place = unsafe run else {
                if try !settle() { return false }
                continue
            }
            // From run to run, as long as there is nothing to fold.
            while true {
                if left <= 0 || bytes >= limits.bytesMax { return try next() }
                if unsafe !place.pointee.step() {
                    try leaveBlock(at: 0)
                    break
                }
                var suffix = unsafe place.pointee.suffix
                let head = unsafe place.pointee.head(suffix)
                unsafe heap[0].head = head
                if head >= runEnd {
                    siftDown(0)
                    guard startRun(), let other = unsafe run else { break }
                    unsafe place = unsafe other
                    unsafe suffix = unsafe place.pointee.suffix
                }
                if unsafe !place.pointee.isLivingPut(clock) { break }
                let entry = unsafe place.pointee.entry(suffix)
                left &-= 1
                unsafe bytes &+= entry.key.count &+ (keysOnly ? 0 : entry.value.count)
                if !visit(entry) { return try next() }
            }
            needsAdvance = false
            if try !settle() { return false }
        }
        return false
    }

    // MARK: Folding

    /// Folds key after key until one is shown.
    private func settle() throws(EngineError) -> Bool {
        unsafe run = nil
        while true {
            if needsAdvance { try advance(at: 0) }
            guard heapCount > 0 else {
                current = nil
                return false
            }
            needsAdvance = true
            let newest = unsafe entry(of: heap[0].source)
            if newest.kind == .append {
                fold.reset()
                _ = fold.add(newest)
                while let below = nextDuplicate() {
                    if !fold.isComplete { try add(source: unsafe heap[below].source) }
                    try advance(at: below)
                }
            } else if unsafe heap[0].head == smallestHeadBelow {
                while let below = nextDuplicate() { try advance(at: below) }
            }
            if let visible = newest.isPointer ? try follow(newest) : resolve(newest) {
                current = visible
                _ = startRun()
                return true
            }
        }
    }

    /// Begins a run where the top stands; false when its key may be another source's too.
    @inline(__always)
    private func startRun() -> Bool {
        if !showsRuns { return false }
        let top = unsafe heap[0]
        unsafe run = unsafe standing[top.source].place
        runEnd = smallestHeadBelow
        return top.head < runEnd
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
        let entry = entry(of: source)
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
            let table = unsafe table(of: heap[0].source)
            let hash = unsafe Hash64.hash(newest.key)
            unsafe try table.valueFiles().read(newest, hash: hash, of: table.path, into: &pointed)
        }
        return unsafe EntryView(key: newest.key, kind: .put, expiry: expiry, value: pointed.bytes)
    }

    /// - Precondition: the source stands on an entry of a table.
    private func table(of source: Int) -> TableReader {
        let reader: TableReader? =
            switch unsafe sources[source] {
            case .memtable: nil
            case .table(let cursor): cursor.reader
            case .level(let cursor): cursor.reader
            }
        guard let reader else { preconditionFailure("a memtable has no pointers") }
        return reader
    }

    @inline(__always)
    private func entry(of source: Int) -> EntryView {
        guard let place = unsafe standing[source].place else { return unsafe standing[source].entry }
        return unsafe place.pointee.entry()
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
        unsafe run = nil
    }

    /// The smallest head of the sources that are not on top; the largest number there is when there is none.
    @inline(__always)
    private var smallestHeadBelow: UInt128 {
        if heapCount < 2 { return .max }
        let left = unsafe heap[1].head
        return unsafe heapCount == 2 ? left : min(left, heap[2].head)
    }

    /// The place of the next older source of the top's key, or nil. Sources with the top's key hang together below the top,
    /// so one of its two children has it if any has.
    private func nextDuplicate() -> Int? {
        guard heapCount > 1 else { return nil }
        let place = unsafe heapCount > 2 && isBefore(heap[2], heap[1]) ? 2 : 1
        return unsafe haveSameKey(heap[0], heap[place]) ? place : nil
    }

    /// Moves the source at `place` on and restores the heap below it.
    private func advance(at place: Int) throws(EngineError) {
        if let position = unsafe standing[heap[place].source].place, unsafe position.pointee.step() {
            unsafe heap[place].head = unsafe position.pointee.head()
            siftDown(place)
        } else {
            try leaveBlock(at: place)
        }
    }

    /// The same for a source that is at the end of its block, or is a memtable.
    @inline(never)
    private func leaveBlock(at place: Int) throws(EngineError) {
        let source = unsafe heap[place].source
        let goesOn =
            switch unsafe sources[source] {
            case .memtable(let cursor): cursor.next()
            case .table(let cursor): try cursor.nextBlock()
            case .level(let cursor): try cursor.nextBlock()
            }
        if goesOn, let head = load(source) {
            unsafe heap[place].head = head
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
        guard let head = load(source) else { return }
        var place = heapCount
        unsafe heap[place] = Node(head: head, source: source)
        heapCount += 1
        while place > 0 {
            let parent = (place - 1) / 2
            if unsafe !isBefore(heap[place], heap[parent]) { break }
            unsafe (heap[place], heap[parent]) = unsafe (heap[parent], heap[place])
            place = parent
        }
    }

    /// Looks where a source stands after a seek or with a new block; the head of its key, or nil when that lies behind the
    /// range: tables end with the range, memtables are asked here.
    private func load(_ source: Int) -> UInt128? {
        switch unsafe sources[source] {
        case .memtable(let cursor):
            let entry = cursor.entry
            if unsafe end.count > 0 && compareBytes(entry.key, end) >= 0 { return nil }
            unsafe (standing + source).initialize(to: Standing(place: nil, entry: entry))
            return unsafe keyHead(UnsafeRawBufferPointer(rebasing: entry.key[min(sharedCount, entry.key.count)...]))
        case .table(let cursor): return unsafe stand(source, cursor.place)
        case .level(let cursor):
            guard let place = unsafe cursor.place else { return nil }
            return unsafe stand(source, place)
        }
    }

    @inline(__always)
    private func stand(_ source: Int, _ place: UnsafeMutablePointer<BlockPlace>) -> UInt128 {
        unsafe (standing + source).initialize(to: Standing(place: place, entry: .none))
        return unsafe place.pointee.head()
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
    private func isBefore(_ left: Node, _ right: Node) -> Bool {
        if left.head != right.head { return left.head < right.head }
        return isBeforeByKey(left.source, right.source)
    }

    @inline(never)
    private func isBeforeByKey(_ left: Int, _ right: Int) -> Bool {
        let order = unsafe compareBytes(entry(of: left).key, entry(of: right).key)
        return order != 0 ? order < 0 : left < right
    }

    private func haveSameKey(_ left: Node, _ right: Node) -> Bool {
        guard left.head == right.head else { return false }
        return unsafe compareBytes(entry(of: left.source).key, entry(of: right.source).key) == 0
    }
}

extension EntryView {
    /// Of nothing.
    fileprivate static var none: EntryView {
        unsafe EntryView(
            key: UnsafeRawBufferPointer(start: nil, count: 0), kind: .delete, expiry: .never,
            value: UnsafeRawBufferPointer(start: nil, count: 0))
    }
}
