// Who reads from the cache without a lock: one of these for each owner that does (a tree, a cursor that belongs to none).
//
// Epoch-based reclamation (Fraser, 2004): a reader writes the cache's epoch into its cell, reads, and clears the cell. The
// cache takes a block out of its slot, steps the epoch, and uses the frame again only when no cell holds an epoch as old as
// the block's end. So a hit takes no lock and counts no reference: one store that orders, once an operation.
//
// Owned by one thread at a time; the cell is read by the cache on any.

internal import Synchronization

/// The cache's view of a reader. A cache line of its own, so that readers do not share one.
struct ReaderCell: ~Copyable {
    /// 0 outside of an operation.
    let epoch = Atomic<UInt64>(0)
    /// Written by the owner alone, read by the statistics.
    let hits = Atomic<UInt64>(0)
    let misses = Atomic<UInt64>(0)
    private let padding: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
}

// Unchecked: the pointers are to atomics.
@safe package final class CacheReader: @unchecked Sendable {
    private let cache: BlockCache
    private let cell: UnsafeMutablePointer<ReaderCell>
    private let epoch: UnsafeMutablePointer<Atomic<UInt64>>
    /// Runs above the last one that look-ups asked and that did not end the search.
    private(set) var passes: UInt64 = 0
    /// Marks of blocks that filters sent look-ups to for nothing, by hash; made at the first.
    private var useless: [UInt32] = []
    private static let uselessBits: UInt64 = 10

    package init(_ cache: BlockCache) {
        self.cache = cache
        unsafe cell = unsafe cache.registerReader()
        unsafe epoch = unsafe cache.epoch
    }

    deinit { unsafe cache.unregisterReader(cell) }

    /// From here to `leave`, what a slot refers to stays. Short: the cache cannot use again what it evicts meanwhile.
    @inline(__always)
    func enter() {
        // The store must come before the loads of slots for everybody; theirs is sequentially consistent as well.
        let now = unsafe epoch.pointee.load(ordering: .acquiring)
        unsafe cell.pointee.epoch.store(now, ordering: .sequentiallyConsistent)
    }

    @inline(__always)
    func leave() { unsafe cell.pointee.epoch.store(0, ordering: .releasing) }

    @inline(__always)
    func countHit() {
        unsafe cell.pointee.hits.store(cell.pointee.hits.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    }

    /// True when the block was useless lately too. Remembers it.
    func wasUselessBefore(file: UInt64, offset: UInt64) -> Bool {
        if useless.isEmpty { useless = Array(repeating: 0, count: 1 << Int(CacheReader.uselessBits)) }
        let hash = (file &* 0x9E37_79B9_7F4A_7C15 ^ offset) &* 0xD6E8_FEB8_6659_FD93
        let place = Int(truncatingIfNeeded: hash >> (64 - CacheReader.uselessBits))
        let mark = UInt32(truncatingIfNeeded: hash >> 16) | 1
        if useless[place] == mark { return true }
        useless[place] = mark
        return false
    }

    @inline(__always)
    func countPasses(_ runs: Int) { passes &+= UInt64(truncatingIfNeeded: runs) }

    @inline(__always)
    func countMiss() {
        unsafe cell.pointee.misses.store(cell.pointee.misses.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    }
}

/// The word of a slot; sequentially consistent as `CacheReader.enter` demands, which costs a reader nothing on x86-64.
@inline(__always)
func loadSlot(_ slot: BlockSlot) -> UInt { unsafe slot.pointee.load(ordering: .sequentiallyConsistent) }
