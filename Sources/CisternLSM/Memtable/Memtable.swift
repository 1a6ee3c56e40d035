// The newest entries of a tree, one per key, in memory. Where a write lands after the log, where a read looks first, and what
// a flush turns into a table.
//
//   key of a point state (`PointStates`) ─► hash index ─┐
//   any other key                        ─► radix tree ─┴─► entries in one arena
//
// Threads: while active, the tree's owner reads and writes it alone. After `seal()` nothing changes any more and any thread
// may read; the hand-over to the other thread must order the two (a queue or a lock does). The sorted list of point entries is
// made on demand, by whoever needs it first, under a lock.

package import CisternPrimitives
internal import Synchronization

/// How the memtables of a tree are made.
struct MemtableSource: Sendable {
    let budgetBytes: Int
    let pool: MemoryPool
    var pointStates: PointStates

    /// For a look at a directory that no engine has open.
    static func offline(_ root: String) -> MemtableSource {
        MemtableSource(
            budgetBytes: EngineOptions(directory: root).memtableBytes, pool: MemoryPool(), pointStates: PointStates())
    }

    func make() -> Memtable { Memtable(budgetBytes: budgetBytes, pool: pool, pointStates: pointStates) }
}

// Unchecked: the rule above. The owner writes only before `seal()`, which `apply` enforces.
package final class Memtable: @unchecked Sendable {
    /// Entries of a batch whose cache misses overlap.
    private static let groupCount = 16

    private struct Sorted {
        let entries: SortedEntries
        let change: Int
    }

    private let pool: MemoryPool
    @exclusivity(unchecked) private var arena: Arena
    @exclusivity(unchecked) private var tree = RadixTree()
    @exclusivity(unchecked) private var points = HashIndex()
    /// Which keys the hash index takes.
    private var states: PointStates
    /// Set when a point entry had to go to the radix tree, because the hash index refused its key.
    private var hasOverflowed = false
    /// Counts what makes a sorted list of point entries stale.
    private var pointChange = 0
    private let sorted = Mutex<Sorted?>(nil)
    /// The whole of a value in pieces, for `get`.
    @exclusivity(unchecked) private var assembled = GrowingBuffer()
    private var isSealed = false
    package let budgetBytes: Int

    package init(budgetBytes: Int, pool: MemoryPool, pointStates: PointStates = PointStates()) {
        self.budgetBytes = budgetBytes
        self.pool = pool
        states = pointStates
        unsafe arena = Arena(budgetBytes: budgetBytes, pool: pool)
    }

    /// Memory used, replaced values included.
    package var byteCount: Int { unsafe arena.byteCount }
    /// Memory taken from the pool.
    package var heldBytes: Int { unsafe arena.heldBytes }
    package var entryCount: Int { unsafe tree.entryCount + points.count }
    package var isEmpty: Bool { entryCount == 0 }
    package var isFull: Bool { byteCount >= budgetBytes }

    // MARK: Writing

    /// Puts and deletes replace what is there. An append lengthens a put or an append, turns a delete into a put, and stays
    /// an append on a key that is not here, because older sources may hold its base. The newest expiry counts.
    package func apply(_ entry: EntryView) {
        invariant(!isSealed, "a sealed memtable is written to")
        if unsafe states.contains(entry.key) {
            unsafe applyPoint(entry, hash: Hash64.hash(entry.key))
        } else {
            applyOrdered(entry)
        }
    }

    /// Applies the entries in their order.
    package func apply(_ batch: EntryColumns) {
        invariant(!isSealed, "a sealed memtable is written to")
        let columns = ColumnReader(batch)
        var start = 0
        while start < batch.count {
            let count = min(Memtable.groupCount, batch.count &- start)
            applyGroup(columns, start, count)
            start &+= count
        }
    }

    /// Applies the entries of some key groups, in their order, to a memtable that nothing lies below or that keeps the dead.
    /// - Parameter clock: what is dead by it is not kept, because there is nothing older that it would have to hide; nil to
    ///   keep it. An append is kept either way: what comes behind it may bring it to life again.
    package func apply(_ batch: EntryColumns, within window: KeyGroupRange, leavingOut clock: ExpiryClock?) {
        invariant(!isSealed, "a sealed memtable is written to")
        let columns = ColumnReader(batch)
        var start = 0
        while start < batch.count {
            // Batches are sorted as a rule, so what is inside comes in long runs.
            let limit = min(start &+ Memtable.groupCount, batch.count)
            var end = start
            while end < limit, unsafe isWithin(window, columns.key(end)) { end &+= 1 }
            if end > start { applyGroup(columns, start, end &- start, leavingOut: clock) }
            start = end < limit ? end &+ 1 : end
        }
    }

    @inline(__always)
    private func isWithin(_ window: KeyGroupRange, _ key: UnsafeRawBufferPointer) -> Bool {
        unsafe key.count >= keyGroupBytes && window.contains(keyGroup(of: key))
    }

    @inline(__always)
    private func applyGroup(_ columns: ColumnReader, _ start: Int, _ count: Int, leavingOut clock: ExpiryClock? = nil) {
        var hashes = InlineArray<16, UInt64>(repeating: 0)
        var pointMask = 0
        for index in 0..<count {
            let key = unsafe columns.key(start &+ index)
            if unsafe states.contains(key) {
                pointMask |= 1 &<< index
                hashes[index] = unsafe Hash64.hash(key)
                unsafe points.prefetch(HashIndex.tag(ofHash: hashes[index]))
            }
        }
        if count > 1 && pointMask != 0 {
            for index in 0..<count where pointMask & (1 &<< index) != 0 {
                unsafe points.prefetchEntry(HashIndex.tag(ofHash: hashes[index]), in: arena.view)
            }
        }
        for index in 0..<count {
            let entry = columns.entry(start &+ index)
            if let clock, isDead(entry, clock) {
                unsafe forget(entry.key, hash: hashes[index])
                continue
            }
            if pointMask & (1 &<< index) != 0 {
                applyPoint(entry, hash: hashes[index])
            } else {
                applyOrdered(entry)
            }
        }
    }

    @inline(__always)
    private func isDead(_ entry: EntryView, _ clock: ExpiryClock) -> Bool {
        entry.kind == .delete || (entry.kind == .put && clock.isExpired(entry.expiry))
    }

    /// Nothing lies below, so a key that is dead need not be here. Where it cannot be taken out it becomes a delete.
    private func forget(_ key: UnsafeRawBufferPointer, hash: UInt64) {
        if unsafe states.contains(key), !hasOverflowed {
            if unsafe points.remove(key, tag: HashIndex.tag(ofHash: hash), in: arena.view) { pointChange &+= 1 }
        } else if let stored = unsafe find(key, hash: hash) {
            unsafe write(.delete, .never, UnsafeRawBufferPointer(start: nil, count: 0), to: stored)
        }
    }

    /// Where an entry's reference is kept.
    @safe private enum Place {
        case ordered(UnsafeMutableRawPointer)
        case point(UnsafeMutableRawPointer, tag: UInt32)
    }

    private func applyOrdered(_ entry: EntryView) {
        let slot = unsafe tree.slot(for: entry.key, in: &arena)
        let reference = unsafe slot.load(as: UInt32.self)
        unsafe apply(entry, over: reference & ~radixEntryBit, at: .ordered(slot))
    }

    @inline(__always)
    private func applyPoint(_ entry: EntryView, hash: UInt64) {
        let tag = HashIndex.tag(ofHash: hash)
        if hasOverflowed, unsafe tree.find(entry.key, in: arena.view) != nil { return applyOrdered(entry) }
        guard let slot = unsafe points.slot(for: entry.key, tag: tag, in: &arena) else {
            hasOverflowed = true
            return applyOrdered(entry)
        }
        let reference = unsafe UInt32(truncatingIfNeeded: slot.load(as: UInt64.self))
        unsafe apply(entry, over: reference, at: .point(slot, tag: tag))
    }

    @inline(__always)
    private func apply(_ entry: EntryView, over reference: UInt32, at place: Place) {
        let value = unsafe storedValue(entry)
        if reference == 0 {
            let stored = unsafe makeEntry(entry.key, valueCapacity: value.count, at: place)
            return unsafe write(entry.kind, storedExpiry(entry), value, to: stored)
        }
        let stored = unsafe MemtableEntry(arena.address(reference))
        if entry.kind == .append && stored.kind != .delete {
            stored.expiry = entry.expiry
            return unsafe stored.append(value, in: &arena)
        }
        let kind: EntryKind = entry.kind == .append ? .put : entry.kind
        let target =
            unsafe value.count <= stored.valueCapacity
            ? stored : makeEntry(stored.key, valueCapacity: value.count, at: place)
        unsafe write(kind, storedExpiry(entry), value, to: target)
    }

    @inline(__always)
    private func makeEntry(_ key: UnsafeRawBufferPointer, valueCapacity: Int, at place: Place) -> MemtableEntry {
        switch place {
        case .ordered(let slot):
            return unsafe tree.makeEntry(key, valueCapacity: valueCapacity, in: slot, of: &arena)
        case .point(let slot, let tag):
            let (reference, entry) = unsafe MemtableEntry.make(key, valueCapacity: valueCapacity, in: &arena)
            unsafe points.fill(slot, reference, tag: tag)
            pointChange &+= 1
            return entry
        }
    }

    @inline(__always)
    private func write(_ kind: EntryKind, _ expiry: Expiry, _ value: UnsafeRawBufferPointer, to target: MemtableEntry) {
        target.dropPieces()
        target.kind = kind
        target.expiry = expiry
        unsafe target.writeValue(value, at: 0)
    }

    /// From here on the memtable does not change.
    package func seal() {
        if isSealed { return }
        isSealed = true
        unsafe arena.charge(to: .sealedMemtables)
    }

    /// Takes another set of point states, as long as no entry would be in the wrong place.
    /// - Returns: false when nothing was changed.
    package func adopt(_ pointStates: PointStates) -> Bool {
        if pointStates == states || isEmpty {
            states = pointStates
            return true
        }
        let known = Set(states.ids)
        let wanted = Set(pointStates.ids)
        guard known.isSubset(of: wanted), wanted.subtracting(known).allSatisfy({ !holdsOrdered($0) }) else {
            return false
        }
        states = pointStates
        return true
    }

    /// True when the radix tree has a key of the state. Two steps for each key group that is there.
    private func holdsOrdered(_ state: UInt16) -> Bool {
        let cursor = MemtableCursor(self, .ordered)
        var group: UInt16 = 0
        while true {
            let start = [UInt8(group >> 8), UInt8(group & 0xFF), UInt8(state >> 8), UInt8(state & 0xFF)]
            guard unsafe start.withUnsafeBytes({ unsafe cursor.seek(to: $0) }) else { return false }
            let key = unsafe cursor.entry.key
            if unsafe key.count >= start.count
                && UInt16(bigEndian: key.loadUnaligned(fromByteOffset: 2, as: UInt16.self)) == state
            {
                return true
            }
            let found = unsafe key.count >= keyGroupBytes ? keyGroup(of: key) : 0
            // A key of the group itself is behind the state; one of a later group may be before it.
            guard max(found, group) < .max else { return false }
            group = found > group ? found : group + 1
        }
    }

    // MARK: Reading

    /// The entry of `key`, expiry not judged; valid until the next `apply` or `get`. For one thread at a time.
    package func get(_ key: UnsafeRawBufferPointer) -> EntryView? {
        guard let found = unsafe find(key, hash: Hash64.hash(key)) else { return nil }
        if !found.hasPieces { return found.view }
        unsafe assembled.reset()
        unsafe found.forEachPart(in: arena.view) { unsafe assembled.append($0) }
        return unsafe EntryView(key: found.key, kind: found.kind, expiry: found.expiry, value: assembled.bytes)
    }

    /// The entry of `key` as it is stored, for any thread once the memtable is sealed.
    /// - Parameter hash: `Hash64` of the key.
    @inline(__always)
    func find(_ key: UnsafeRawBufferPointer, hash: UInt64) -> MemtableEntry? {
        if unsafe states.contains(key) {
            let tag = HashIndex.tag(ofHash: hash)
            if let found = unsafe points.find(key, tag: tag, in: arena.view) { return found }
            if !hasOverflowed { return nil }
        }
        return unsafe tree.find(key, in: arena.view)
    }

    /// Not positioned yet. While the memtable is active the cursor ends with the next `apply`.
    package func cursor() -> MemtableCursor { MemtableCursor(self, .all) }

    /// A cursor that is asked for keys from `start` on and before `end` (empty: no end) only. Where that is within one state
    /// of one key group it costs nothing that the other states do not have to be sorted.
    package func cursor(from start: [UInt8], to end: [UInt8]) -> MemtableCursor {
        let wanted: MemtableCursor.Scope = unsafe start.withUnsafeBytes { (first: UnsafeRawBufferPointer) in
            unsafe end.withUnsafeBytes { (last: UnsafeRawBufferPointer) in unsafe scope(from: first, to: last) }
        }
        return MemtableCursor(self, wanted)
    }

    /// The part of the entries that a range is about.
    func scope(from start: UnsafeRawBufferPointer, to end: UnsafeRawBufferPointer) -> MemtableCursor.Scope {
        guard let state = unsafe onlyState(from: start, to: end), !hasOverflowed else { return .all }
        return states.contains(state: state) ? .points : .ordered
    }

    var root: UInt32 { unsafe tree.root }
    var arenaView: ArenaView { unsafe arena.view }
    var pointCount: Int { unsafe points.count }

    /// The point entries in key order; sorted when there is none yet, or when it is stale.
    func sortedPoints() -> SortedEntries {
        sorted.withLock { sorted in
            if let known = sorted, known.change == pointChange { return known.entries }
            // The old list's memory may serve the new one.
            sorted = nil
            let entries = unsafe SortedEntries(count: points.count, view: arena.view, pool: pool) {
                unsafe points.collect(into: $0)
            }
            sorted = Sorted(entries: entries, change: pointChange)
            return entries
        }
    }
}

/// The state that every key of a range is of, when the range is within one state of one key group.
private func onlyState(from start: UnsafeRawBufferPointer, to end: UnsafeRawBufferPointer) -> UInt16? {
    let prefixBytes = EngineLimits.keyBytesMin
    guard start.count >= prefixBytes, end.count >= prefixBytes else { return nil }
    func prefix(_ key: UnsafeRawBufferPointer) -> UInt32 {
        unsafe UInt32(bigEndian: key.loadUnaligned(as: UInt32.self))
    }
    let first = unsafe prefix(start)
    let last = unsafe prefix(end)
    let isBeforeNext = end.count == prefixBytes && last == first &+ 1
    return last == first || isBeforeNext ? UInt16(truncatingIfNeeded: first) : nil
}

/// A delete has neither value nor expiry, whatever its sender wrote into the columns.
@inline(__always)
private func storedValue(_ entry: EntryView) -> UnsafeRawBufferPointer {
    unsafe entry.kind == .delete ? UnsafeRawBufferPointer(start: nil, count: 0) : entry.value
}

@inline(__always)
private func storedExpiry(_ entry: EntryView) -> Expiry { entry.kind == .delete ? .never : entry.expiry }
