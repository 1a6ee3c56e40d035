// The one cache of all trees: data blocks, index and filter partitions of tables, within one budget of bytes.
//
// There is no table from block to frame: every open table has a slot, one atomic word, for each of its blocks, and a hit is
// a load of that word inside an epoch (`CacheReader`). What changes the cache goes through one lock, behind which nothing is
// read from disk: misses, evictions, closed tables.
//
//    slot ─► frame: header │ payload            lock: CacheQueues (who leaves), FramePool (memory), limbo (who is still read)
//
// An evicted block leaves its slot at once and waits in limbo until no reader can see it any more. When no memory can be had
// the block is read into memory of the reader's own: nothing waits, and the budget holds.
//
// Memory is touched and given back outside of the lock, by a background lane where there is one: ahead of need, so that an
// owner finds a free frame and no page to clear (docs/decisions/0086).

package import CisternPrimitives
internal import Synchronization

package struct BlockCacheStatistics: Equatable, Sendable {
    package var hits: UInt64 = 0
    package var misses: UInt64 = 0
    package var insertions: UInt64 = 0
    package var evictions: UInt64 = 0
    package var blockCount = 0
    /// Frames of blocks that can be found.
    package var usedBytes = 0
    package var metadataBytes = 0
    /// Memory that is held for frames, used or not.
    package var committedBytes = 0
    /// The cache's own tables.
    package var overheadBytes = 0
    package var capacityBytes = 0

    package init() {}
}

// Unchecked: the pointer is to an atomic, the rest is a constant or in a mutex.
@safe package final class BlockCache: @unchecked Sendable {
    /// Blocks that are evicted when a size class has none free: the ones behind the first wait for the next misses, because
    /// those may find the epoch of a reader that has just entered in their way.
    private static let evictionBatch = 4
    /// Evictions that bring no frame of the wanted size before a slab is taken from another size.
    private static let evictionsMax = 64
    /// Blocks of data that go before a block of metadata when a slab is chosen.
    private static let metadataWeight = 8
    /// The tables of the cache itself, as a share of the budget: 1 / this.
    private static let overheadShare = 64
    /// Frames that go from limbo to the pool at a time: a closed table leaves a hundred thousand, and nobody should wait for
    /// all of them.
    private static let reclaimMax = 128
    /// When a cache that is to become smaller tries again to get what was being read.
    private static let trimRetryMilliseconds: UInt64 = 100

    package let capacityBytes: Int
    /// What tables and their writers are charged to.
    let ledger: MemoryLedger
    /// Steps with each block that leaves its slot. 0 is not an epoch.
    let epoch: UnsafeMutablePointer<Atomic<UInt64>>
    private let state: Mutex<State>
    private let lane: (any BackgroundLane)?

    private struct Retired {
        let frame: CacheFrame
        let epoch: UInt64
    }

    /// Unchecked: everything in it belongs to whoever holds the lock.
    @safe private struct State: @unchecked Sendable {
        var pool: FramePool
        var queues: CacheQueues
        var readers: [UnsafeMutablePointer<ReaderCell>] = unsafe []
        /// Blocks that left their slots, by the epoch of that moment; from `limboStart` on.
        var limbo: [Retired] = []
        var limboStart = 0
        /// Frames without readers by epoch that a cursor stands on.
        var pinned: [CacheFrame] = []
        /// What was written through for tables that are not open yet, by file number.
        var written: [UInt64: WrittenBlocks] = [:]
        var counters = BlockCacheStatistics()
        /// A job on the lane touches memory; one makes the cache smaller.
        var isTouching = false
        var isTrimming = false
    }

    /// - Parameters:
    ///   - capacityBytes: 0 caches nothing.
    ///   - lane: where memory is touched ahead of need and given back; nil: when and where it is needed.
    ///   - ledger: what tables and their writers are charged to.
    package init(
        capacityBytes: Int, lane: (any BackgroundLane)? = nil, ledger: MemoryLedger = MemoryLedger()
    ) {
        self.capacityBytes = max(capacityBytes, 0)
        self.ledger = ledger
        self.lane = lane
        let budget = self.capacityBytes - self.capacityBytes / BlockCache.overheadShare
        unsafe epoch = .allocate(capacity: 1)
        unsafe epoch.initialize(to: Atomic(1))
        state = unsafe Mutex(State(pool: FramePool(budgetBytes: budget), queues: CacheQueues(budgetBytes: budget)))
    }

    /// Readers and tables hold the cache, so none is left.
    deinit {
        state.withLock { state in
            for blocks in state.written.values {
                for place in unsafe blocks.slots.indices { unsafe drop(blocks.slots[place], &state) }
                for number in blocks.dataPlaces.indices { unsafe drop(blocks.dataSlots[number], &state) }
                blocks.deallocate()
            }
            while state.limboStart < state.limbo.count { reclaim(&state) }
            invariant(
                state.queues.count == 0 && state.pinned.isEmpty,
                "a cache ends with \(state.queues.count) blocks in use")
            state.pool.unmap()
            return ()
        }
        unsafe epoch.deinitialize(count: 1)
        unsafe epoch.deallocate()
    }

    package var statistics: BlockCacheStatistics {
        state.withLock { state in
            var total = state.counters
            for number in unsafe state.readers.indices {
                let reader = unsafe state.readers[number]
                total.hits += unsafe reader.pointee.hits.load(ordering: .relaxed)
                total.misses += unsafe reader.pointee.misses.load(ordering: .relaxed)
            }
            total.blockCount = state.queues.count
            total.usedBytes = state.queues.usedBytes
            total.metadataBytes = state.queues.metadataBytes
            total.committedBytes = state.pool.committedBytes
            total.overheadBytes =
                state.pool.overheadBytes + state.queues.overheadBytes
                + state.limbo.capacity * MemoryLayout<Retired>.stride
            total.capacityBytes = capacityBytes
            return total
        }
    }

    // MARK: Readers

    func registerReader() -> UnsafeMutablePointer<ReaderCell> {
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: MemoryLayout<ReaderCell>.size, alignment: CacheFrame.alignment)
        let cell = unsafe memory.bindMemory(to: ReaderCell.self, capacity: 1)
        unsafe cell.initialize(to: ReaderCell())
        state.withLock { unsafe $0.readers.append(cell) }
        return unsafe cell
    }

    func unregisterReader(_ cell: UnsafeMutablePointer<ReaderCell>) {
        state.withLock { state in
            unsafe state.readers.removeAll { unsafe $0 == cell }
            state.counters.hits += unsafe cell.pointee.hits.load(ordering: .relaxed)
            state.counters.misses += unsafe cell.pointee.misses.load(ordering: .relaxed)
        }
        unsafe cell.deinitialize(count: 1)
        unsafe cell.deallocate()
    }

    // MARK: Loading

    /// A frame to load a block into, or nil when there is no memory for it. The caller publishes it or gives it back. Not
    /// to be called inside an epoch, which would keep everything that is evicted for it from being used.
    func allocate(byteCount: Int) -> CacheFrame? {
        // As long as others take what this thread touched.
        for _ in 0..<BlockCache.evictionsMax {
            var outcome = Outcome.nothing
            let startsTouching = state.withLock { state in
                outcome = allocate(byteCount, &state)
                guard lane != nil, !state.isTouching, state.pool.wantsRegion else { return false }
                state.isTouching = true
                return true
            }
            if startsTouching { lane?.submit { [self] in touchAhead() } }
            switch outcome {
            case .frame(let frame): return frame
            case .nothing: return nil
            case .untouched(let region): touch(region)
            }
        }
        return nil
    }

    private enum Outcome {
        case frame(CacheFrame)
        case nothing
        /// There is memory, and somebody must touch it first.
        case untouched(FramePool.RegionMemory)
    }

    private func touch(_ region: FramePool.RegionMemory) {
        region.touch()
        state.withLock { $0.pool.warmed(region) }
    }

    /// On the lane.
    private func touchAhead() {
        while true {
            let region = state.withLock { state -> FramePool.RegionMemory? in
                if state.pool.wantsRegion, let region = state.pool.beginRegion() { return region }
                state.isTouching = false
                return nil
            }
            guard let region else { return }
            touch(region)
        }
    }

    func giveBack(_ frame: CacheFrame) { state.withLock { $0.pool.give(frame) } }

    /// Shows a loaded block to all readers.
    /// - Returns: false when another thread was faster; the frame is still the caller's.
    func publish(_ frame: CacheFrame, word: UInt, slot: BlockSlot, key: BlockKey, isMetadata: Bool) -> Bool {
        state.withLock { state in
            unsafe publish(frame, word: word, slot: slot, key: key, isMetadata: isMetadata, &state)
        }
    }

    private func publish(
        _ frame: CacheFrame, word: UInt, slot: BlockSlot, key: BlockKey, isMetadata: Bool, _ state: inout State
    ) -> Bool {
        guard unsafe slot.pointee.load(ordering: .relaxed) == 0 else { return false }
        unsafe state.queues.add(frame, slot: slot, hash: key.hash, isMetadata: isMetadata)
        if isMetadata { state.pool.countMetadata(frame, 1) }
        state.counters.insertions += 1
        unsafe slot.pointee.store(word, ordering: .sequentiallyConsistent)
        return true
    }

    /// Takes the blocks of these slots out, because their table is closed.
    func drop(_ slots: UnsafeMutableBufferPointer<Atomic<UInt>>) {
        state.withLock { state in
            for index in slots.indices { unsafe drop(slots.baseAddress! + index, &state) }
            // So that limbo stays short while a large table is closed.
            reclaim(&state)
        }
    }

    // MARK: Blocks of tables that are being written

    /// Keeps a partition's index or filter for the first reader of the file. Best effort.
    /// - Parameter word: what to put into the slot for the frame, after its layout was set; nil: not well-formed.
    func writeThrough(
        file: UInt64, slot place: Int, offset: UInt64, byteCount: Int, word: (CacheFrame) -> UInt?
    ) {
        guard let frame = allocate(byteCount: byteCount) else { return }
        guard let bits = word(frame) else { return giveBack(frame) }
        state.withLock { state in
            let key = BlockKey(file: file, offset: offset)
            let slot = unsafe state.written[file, default: WrittenBlocks()].slot(place)
            let isNew = unsafe publish(frame, word: bits, slot: slot, key: key, isMetadata: true, &state)
            if !isNew { state.pool.give(frame) }
        }
    }

    /// The same for a data block, which takes the place of blocks that are read: it counts as read once, so that it leaves
    /// probation for the main queue, where it goes before what is read more often.
    /// - Parameter frame: filled, of `allocate`; the cache's from here on.
    func writeThrough(file: UInt64, block: WrittenBlocks.DataPlace, offset: UInt64, frame: CacheFrame) {
        state.withLock { state in
            let slot = unsafe state.written[file, default: WrittenBlocks()].addSlot(block)
            frame.recentReads = 1
            let key = BlockKey(file: file, offset: offset)
            let isNew = unsafe publish(frame, word: frame.bits, slot: slot, key: key, isMetadata: false, &state)
            invariant(isNew, "a block of file \(file) was written through twice")
        }
    }

    /// Moves what was written through for a file to the slots of the table that was opened for it.
    /// - Parameters:
    ///   - slot: for a place and the word that is there; nil for a place the table does not have.
    ///   - data: the same for a data block.
    func adopt(file: UInt64, slot: (Int, UInt) -> BlockSlot?, data: (WrittenBlocks.DataPlace) -> BlockSlot?) {
        state.withLock { state in
            guard let blocks = state.written.removeValue(forKey: file) else { return }
            for place in unsafe blocks.slots.indices {
                unsafe adopt(blocks.slots[place], &state) { unsafe slot(place, $0) }
            }
            for number in blocks.dataPlaces.indices {
                unsafe adopt(blocks.dataSlots[number], &state) { _ in unsafe data(blocks.dataPlaces[number]) }
            }
            blocks.deallocate()
        }
    }

    private func adopt(_ old: BlockSlot, _ state: inout State, _ slot: (UInt) -> BlockSlot?) {
        let word = unsafe old.pointee.load(ordering: .relaxed)
        if word == 0 { return }
        guard let new = unsafe slot(word), unsafe new.pointee.load(ordering: .relaxed) == 0 else {
            return unsafe drop(old, &state)
        }
        unsafe state.queues.move(CacheFrame(bits: word), to: new)
        unsafe new.pointee.store(word, ordering: .sequentiallyConsistent)
    }

    /// Forgets what was written through for a file that is gone.
    package func forget(file: UInt64) {
        unsafe adopt(file: file) { _, _ in
            nil
        } data: { _ in
            nil
        }
    }

    // MARK: Memory

    private func allocate(_ byteCount: Int, _ state: inout State) -> Outcome {
        // Half of the budget for one block would leave nothing of the rest.
        guard byteCount <= state.pool.limitBytes / 2 else { return .nothing }
        guard let sizeClass = state.pool.sizeClass(for: byteCount) else {
            return allocateSingle(byteCount, &state).map { .frame($0) } ?? .nothing
        }
        if let frame = state.pool.take(sizeClass, byteCount: byteCount) { return .frame(frame) }
        reclaim(&state)
        if let frame = state.pool.take(sizeClass, byteCount: byteCount) { return .frame(frame) }
        if state.pool.keepDeparted(), let frame = state.pool.take(sizeClass, byteCount: byteCount) {
            return .frame(frame)
        }
        if let region = state.pool.beginRegion() { return .untouched(region) }
        makeRoom(sizeClass, &state)
        reclaim(&state)
        return state.pool.take(sizeClass, byteCount: byteCount).map { .frame($0) } ?? .nothing
    }

    /// A frame beyond the slabs' sizes: regions are given up for it.
    private func allocateSingle(_ byteCount: Int, _ state: inout State) -> CacheFrame? {
        for round in 1...BlockCache.evictionsMax {
            if let frame = state.pool.takeSingle(byteCount) { return frame }
            evictOne(&state)
            if round % 4 == 1 || state.queues.count == 0 { drainRegion(&state) }
            while state.limboStart < state.limbo.count, reclaim(&state) {}
            while let region = state.pool.takeDeparted() {
                region.giveBack()
                state.pool.cooled(region)
            }
        }
        return state.pool.takeSingle(byteCount)
    }

    private func drainRegion(_ state: inout State) {
        for slab in state.pool.drainRegion(metadataWeight: BlockCache.metadataWeight) ?? [] { empty(slab, &state) }
    }

    private func empty(_ slab: Int, _ state: inout State) {
        for frame in state.pool.frames(ofSlab: slab) where frame.entry != CacheFrame.noEntry {
            state.counters.evictions += 1
            retire(state.queues.remove(frame), &state)
        }
    }

    // MARK: Becoming smaller and larger

    /// Sets how much of the capacity may be used. Memory beyond it goes back to the system soon: on the lane, or in this call
    /// where there is none.
    package func setLimit(_ byteCount: Int) {
        let starts = state.withLock { state in
            let overhead = byteCount / BlockCache.overheadShare
            state.pool.setLimit(byteCount - overhead)
            state.queues.setBudget(state.pool.limitBytes)
            guard state.pool.committedBytes > state.pool.limitBytes, !state.isTrimming else { return false }
            state.isTrimming = true
            return true
        }
        guard starts else { return }
        if let lane { lane.submit { [self] in trim() } } else { trim() }
    }

    /// Empties one slab after the other, letting others at the lock in between. What somebody reads at this moment is waited
    /// for by trying again.
    private func trim() {
        var slabs: [Int] = []
        while true {
            enum Step {
                case goOn, done, stuck
                case gone(FramePool.RegionMemory)
            }
            let step = state.withLock { state -> Step in
                if let slab = slabs.popLast() {
                    empty(slab, &state)
                    reclaim(&state)
                    return .goOn
                }
                if state.limboStart < state.limbo.count, reclaim(&state) { return .goOn }
                if let region = state.pool.takeDeparted() { return .gone(region) }
                if state.pool.committedBytes > state.pool.limitBytes {
                    if let used = state.pool.drainRegion(metadataWeight: BlockCache.metadataWeight) {
                        slabs = used
                        return .goOn
                    }
                    // What is left is being read, or is frames of their own size.
                    if !state.pool.isAnyLeaving, evictOne(&state) != nil { return .goOn }
                    if lane != nil { return .stuck }
                }
                state.isTrimming = false
                return .done
            }
            switch step {
            case .goOn: continue
            case .done: return
            case .gone(let region):
                region.giveBack()
                state.withLock { $0.pool.cooled(region) }
            case .stuck:
                lane?.submit(afterMilliseconds: BlockCache.trimRetryMilliseconds) { [self] in trim() }
                return
            }
        }
    }

    // MARK: Evicting

    /// Evicts until a few frames of the class are on their way back. Blocks leave in the order of the queues, whatever their
    /// size; when that does not bring the wanted one, the memory is in the wrong classes, and a slab changes its own.
    private func makeRoom(_ sizeClass: Int, _ state: inout State) {
        var found = 0
        for _ in 0..<BlockCache.evictionsMax {
            guard let evicted = evictOne(&state) else { break }
            if state.pool.sizeClass(of: evicted) == sizeClass { found += 1 }
            if found == BlockCache.evictionBatch { return }
        }
        if found == 0 { drainSlab(exceptClass: sizeClass, &state) }
    }

    private func drainSlab(exceptClass sizeClass: Int?, _ state: inout State) {
        let weight = BlockCache.metadataWeight
        guard let slab = state.pool.drainSlab(exceptClass: sizeClass, metadataWeight: weight) else { return }
        empty(slab, &state)
    }

    @discardableResult
    private func evictOne(_ state: inout State) -> CacheFrame? {
        guard let entry = state.queues.evict() else { return nil }
        state.counters.evictions += 1
        retire(entry, &state)
        return entry.frame
    }

    private func drop(_ slot: BlockSlot, _ state: inout State) {
        let word = unsafe slot.pointee.load(ordering: .relaxed)
        // Small words are marks, not addresses.
        guard word >= UInt(CacheFrame.headerBytes) else { return }
        state.counters.evictions += 1
        retire(state.queues.remove(CacheFrame(bits: word)), &state)
    }

    /// From here on no reader finds the block; those that have found it may go on.
    private func retire(_ entry: CacheQueues.Entry, _ state: inout State) {
        if entry.queue == .metadata { state.pool.countMetadata(entry.frame, -1) }
        if let slot = unsafe entry.slot { unsafe slot.pointee.store(0, ordering: .sequentiallyConsistent) }
        let now = unsafe epoch.pointee.add(1, ordering: .sequentiallyConsistent).oldValue
        state.limbo.append(Retired(frame: entry.frame, epoch: now))
    }

    /// Gives frames back to the pool that no reader can see any more, a bounded number at a time.
    /// - Returns: whether any came out of limbo.
    @discardableResult
    private func reclaim(_ state: inout State) -> Bool {
        if !state.pinned.isEmpty {
            let free = state.pinned.filter { !$0.isPinned }
            if !free.isEmpty {
                state.pinned.removeAll { frame in free.contains { unsafe $0.base == frame.base } }
                for frame in free { state.pool.give(frame) }
            }
        }
        guard state.limboStart < state.limbo.count else { return false }
        var oldest = UInt64.max
        for number in unsafe state.readers.indices {
            let reader = unsafe state.readers[number]
            let entered = unsafe reader.pointee.epoch.load(ordering: .sequentiallyConsistent)
            if entered != 0 { oldest = min(oldest, entered) }
        }
        let start = state.limboStart
        let end = min(state.limbo.count, start + BlockCache.reclaimMax)
        while state.limboStart < end, state.limbo[state.limboStart].epoch < oldest {
            let frame = state.limbo[state.limboStart].frame
            state.limboStart += 1
            if frame.isPinned { state.pinned.append(frame) } else { state.pool.give(frame) }
        }
        let isAny = state.limboStart > start
        if state.limboStart == state.limbo.count {
            state.limbo.removeAll(keepingCapacity: true)
            state.limboStart = 0
        } else if state.limboStart * 2 > state.limbo.count {
            state.limbo.removeFirst(state.limboStart)
            state.limboStart = 0
        }
        return isAny
    }
}

/// A block's place: file numbers are unique among all files that share a cache. Only the ghosts know blocks by it.
struct BlockKey {
    var file: UInt64
    var offset: UInt64

    var hash: UInt64 {
        // Both numbers are dense; the odd multipliers spread them over all bits.
        var mixed = file &* 0x9E37_79B9_7F4A_7C15 ^ offset &* 0xC2B2_AE3D_27D4_EB4F
        mixed ^= mixed >> 32
        mixed = mixed &* 0xD6E8_FEB8_6659_FD93
        return mixed ^ (mixed >> 32)
    }
}

/// Slots for blocks of a table that no reader has opened. Each is allocated by itself: the cache knows their addresses.
@safe struct WrittenBlocks {
    struct DataPlace {
        let partition: Int
        /// Of the partition.
        let blockCount: Int
        let block: Int
    }

    /// Filters and indexes, by `TableSlots.writtenFilter` and `writtenIndex`.
    private(set) var slots: [BlockSlot] = unsafe []
    /// Data blocks, few of the file's, with their places.
    private(set) var dataSlots: [BlockSlot] = unsafe []
    private(set) var dataPlaces: [DataPlace] = []

    mutating func slot(_ place: Int) -> BlockSlot {
        while unsafe slots.count <= place { unsafe slots.append(WrittenBlocks.makeSlot()) }
        return unsafe slots[place]
    }

    mutating func addSlot(_ place: DataPlace) -> BlockSlot {
        dataPlaces.append(place)
        let slot = unsafe WrittenBlocks.makeSlot()
        unsafe dataSlots.append(slot)
        return unsafe slot
    }

    private static func makeSlot() -> BlockSlot {
        let slot = BlockSlot.allocate(capacity: 1)
        unsafe slot.initialize(to: Atomic(0))
        return unsafe slot
    }

    func deallocate() {
        for place in unsafe slots.indices { unsafe WrittenBlocks.free(slots[place]) }
        for number in unsafe dataSlots.indices { unsafe WrittenBlocks.free(dataSlots[number]) }
    }

    private static func free(_ slot: BlockSlot) {
        unsafe slot.deinitialize(count: 1)
        unsafe slot.deallocate()
    }
}
