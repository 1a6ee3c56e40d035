// The newest entries of a tree, one per key, in memory. Where a write lands after the log, where a read looks first, and what
// a flush turns into a table.
//
// Threads: while active, the tree's owner reads and writes it alone. After `seal()` nothing changes any more and any thread
// may read; the hand-over to the other thread must order the two (a queue or a lock does).

package import CisternPrimitives

// Unchecked: the rule above. The owner writes only before `seal()`, which `apply` enforces.
package final class Memtable: @unchecked Sendable {
    /// A list's value that outgrows its slot moves to one with this share of spare room, in percent of its size, so that a
    /// long run of appends copies each byte a bounded number of times.
    private static let growthPercent = 50

    @exclusivity(unchecked) private var tree: RadixTree
    private var isSealed = false
    package let budgetBytes: Int

    package init(budgetBytes: Int) {
        self.budgetBytes = budgetBytes
        unsafe tree = RadixTree(budgetBytes: budgetBytes)
    }

    /// Memory used, replaced values included.
    package var byteCount: Int { unsafe tree.arena.byteCount }
    package var entryCount: Int { unsafe tree.entryCount }
    package var isEmpty: Bool { unsafe tree.entryCount == 0 }
    package var isFull: Bool { byteCount >= budgetBytes }

    /// Puts and deletes replace what is there. An append lengthens a put or an append, turns a delete into a put, and stays
    /// an append on a key that is not here, because older sources may hold its base. The newest expiry counts.
    package func apply(_ entry: EntryView) {
        invariant(!isSealed, "a sealed memtable is written to")
        let slot = unsafe tree.slot(for: entry.key)
        let reference = unsafe slot.load(as: UInt32.self)
        if reference == 0 {
            unsafe insert(entry, in: slot)
        } else {
            unsafe update(MemtableEntry(tree.arena.address(reference & ~radixEntryBit)), with: entry, in: slot)
        }
    }

    /// The entry of `key`, expiry not judged; valid until the next `apply`.
    package func get(_ key: UnsafeRawBufferPointer) -> EntryView? { unsafe tree.find(key)?.view }

    /// Not positioned yet. While the memtable is active the cursor ends with the next `apply`.
    package func cursor() -> MemtableCursor { MemtableCursor(self) }

    /// From here on the memtable does not change.
    package func seal() { isSealed = true }

    var root: UInt32 { unsafe tree.root }
    var arenaView: ArenaView { unsafe tree.arena.view }

    private func insert(_ entry: EntryView, in slot: UnsafeMutableRawPointer) {
        let value = unsafe storedValue(entry)
        let stored = unsafe tree.makeEntry(entry.key, valueCapacity: value.count, in: slot)
        unsafe write(entry.kind, storedExpiry(entry), value, to: stored)
    }

    private func update(_ stored: MemtableEntry, with entry: EntryView, in slot: UnsafeMutableRawPointer) {
        let value = unsafe storedValue(entry)
        if entry.kind == .append && stored.kind != .delete {
            unsafe append(value, expiry: entry.expiry, to: stored, in: slot)
            return
        }
        let kind: EntryKind = entry.kind == .append ? .put : entry.kind
        if value.count <= stored.valueCapacity {
            unsafe write(kind, storedExpiry(entry), value, to: stored)
        } else {
            unsafe write(
                kind, storedExpiry(entry), value, to: tree.makeEntry(stored.key, valueCapacity: value.count, in: slot))
        }
    }

    private func append(
        _ value: UnsafeRawBufferPointer, expiry: Expiry, to stored: MemtableEntry, in slot: UnsafeMutableRawPointer
    ) {
        let size = stored.valueCount
        let newSize = size + value.count
        var target = stored
        if newSize > stored.valueCapacity {
            let capacity = newSize + newSize / 100 * Memtable.growthPercent
            target = unsafe tree.makeEntry(stored.key, valueCapacity: capacity, in: slot)
            target.kind = stored.kind
            unsafe target.writeValue(stored.value, at: 0)
        }
        target.expiry = expiry
        unsafe target.writeValue(value, at: size)
    }

    @inline(__always)
    private func write(_ kind: EntryKind, _ expiry: Expiry, _ value: UnsafeRawBufferPointer, to target: MemtableEntry) {
        target.kind = kind
        target.expiry = expiry
        unsafe target.writeValue(value, at: 0)
    }
}

/// A delete has neither value nor expiry, whatever its sender wrote into the columns.
@inline(__always)
private func storedValue(_ entry: EntryView) -> UnsafeRawBufferPointer {
    unsafe entry.kind == .delete ? UnsafeRawBufferPointer(start: nil, count: 0) : entry.value
}

@inline(__always)
private func storedExpiry(_ entry: EntryView) -> Expiry { entry.kind == .delete ? .never : entry.expiry }
