// One shard of the block cache: slots in arrays, an open-addressing table over them, three queues through them.
// Guarded by the shard's `Mutex`. Slots are linked by number: no object and no allocation per cached block.

internal import CisternPrimitives

struct CacheShard {
    private enum Queue: UInt8 {
        case probation = 0
        case main = 1
        case metadata = 2
    }

    private struct Slot {
        var key = BlockKey(file: 0, offset: 0)
        var hash: UInt64 = 0
        var block: CachedBlock?
        var byteCount = 0
        var previous: Int32 = -1
        var next: Int32 = -1
        var queue = Queue.probation
        var frequency: UInt8 = 0
    }

    private struct List {
        var head: Int32 = -1
        var tail: Int32 = -1
        var byteCount = 0
    }

    /// Bookkeeping of a block beside its bytes: slot, table word, objects.
    static let overheadBytes = 192
    private static let frequencyMax: UInt8 = 3
    private static let probationPercent = 10
    private static let metadataPercent = 75

    private let capacityBytes: Int
    private var slots: [Slot] = []
    private var freeSlots: [Int32] = []
    /// Slot numbers + 1, 0 empty; linear probing; at most half full.
    private var table: [Int32] = .init(repeating: 0, count: 64)
    private var lists = [List(), List(), List()]
    /// Fingerprints of what left probation, each in the one place its hash names.
    private var ghosts: [UInt32]
    private var counters = BlockCacheStatistics()

    init(capacityBytes: Int) {
        self.capacityBytes = capacityBytes
        var ghostCount = 64
        while ghostCount < capacityBytes / 4096 { ghostCount *= 2 }
        ghosts = .init(repeating: 0, count: ghostCount)
    }

    var usedBytes: Int { lists[0].byteCount + lists[1].byteCount + lists[2].byteCount }

    var statistics: BlockCacheStatistics {
        var result = counters
        result.blockCount = slots.count - freeSlots.count
        result.usedBytes = usedBytes
        result.metadataBytes = lists[Int(Queue.metadata.rawValue)].byteCount
        return result
    }

    // MARK: Access

    mutating func find(_ key: BlockKey, hash: UInt64) -> CachedBlock? {
        guard let index = slotIndex(key, hash) else {
            counters.misses += 1
            return nil
        }
        counters.hits += 1
        if slots[index].frequency < CacheShard.frequencyMax { slots[index].frequency += 1 }
        return slots[index].block
    }

    /// Returns what was evicted.
    mutating func insert(_ block: CachedBlock, for key: BlockKey, hash: UInt64, byteCount: Int) -> [CachedBlock] {
        let size = byteCount + CacheShard.overheadBytes
        guard size <= capacityBytes / 2, slotIndex(key, hash) == nil else { return [] }
        let queue: Queue = block.isMetadata ? .metadata : takeGhost(hash) ? .main : .probation
        var evicted: [CachedBlock] = []
        while usedBytes + size > capacityBytes {
            if let block = evictOne() { evicted.append(block) }
        }
        let index = takeSlot()
        slots[index] = Slot(key: key, hash: hash, block: block, byteCount: size)
        pushFront(index, queue)
        addToTable(index)
        counters.insertions += 1
        return evicted
    }

    mutating func remove(_ key: BlockKey, hash: UInt64) -> CachedBlock? {
        guard let index = slotIndex(key, hash) else { return nil }
        return release(index)
    }

    // MARK: Eviction

    /// One step of eviction: a block leaves, or one moves to a better queue. Each block is moved a bounded number of times, so
    /// repeated steps end.
    private mutating func evictOne() -> CachedBlock? {
        let probation = lists[Int(Queue.probation.rawValue)]
        let main = lists[Int(Queue.main.rawValue)]
        let metadata = lists[Int(Queue.metadata.rawValue)]
        if metadata.byteCount > capacityBytes / 100 * CacheShard.metadataPercent { return turn(.metadata) }
        if probation.tail >= 0
            && (main.tail < 0 || probation.byteCount > capacityBytes / 100 * CacheShard.probationPercent)
        {
            return leaveProbation()
        }
        return turn(main.tail >= 0 ? .main : .metadata)
    }

    private mutating func leaveProbation() -> CachedBlock? {
        let index = Int(lists[Int(Queue.probation.rawValue)].tail)
        if slots[index].frequency > 0 {
            unlink(index)
            slots[index].frequency = 0
            pushFront(index, .main)
            return nil
        }
        rememberGhost(slots[index].hash)
        counters.evictions += 1
        return release(index)
    }

    /// The CLOCK hand's step: a block that was read goes round again with one reading less.
    private mutating func turn(_ queue: Queue) -> CachedBlock? {
        let tail = lists[Int(queue.rawValue)].tail
        invariant(tail >= 0, "a cache shard is over its budget and empty")
        let index = Int(tail)
        if slots[index].frequency > 0 {
            slots[index].frequency -= 1
            unlink(index)
            pushFront(index, queue)
            return nil
        }
        counters.evictions += 1
        return release(index)
    }

    private mutating func release(_ index: Int) -> CachedBlock? {
        unlink(index)
        removeFromTable(index)
        let block = slots[index].block
        slots[index].block = nil
        freeSlots.append(Int32(index))
        return block
    }

    // MARK: Ghosts

    private func ghostIndex(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash) & (ghosts.count - 1) }
    private func fingerprint(_ hash: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hash >> 24) | 1 }

    private mutating func rememberGhost(_ hash: UInt64) { ghosts[ghostIndex(hash)] = fingerprint(hash) }

    private mutating func takeGhost(_ hash: UInt64) -> Bool {
        guard ghosts[ghostIndex(hash)] == fingerprint(hash) else { return false }
        ghosts[ghostIndex(hash)] = 0
        return true
    }

    // MARK: Lists

    private mutating func pushFront(_ index: Int, _ queue: Queue) {
        let list = Int(queue.rawValue)
        let head = lists[list].head
        slots[index].queue = queue
        slots[index].previous = -1
        slots[index].next = head
        if head >= 0 { slots[Int(head)].previous = Int32(index) } else { lists[list].tail = Int32(index) }
        lists[list].head = Int32(index)
        lists[list].byteCount += slots[index].byteCount
    }

    private mutating func unlink(_ index: Int) {
        let list = Int(slots[index].queue.rawValue)
        let previous = slots[index].previous
        let next = slots[index].next
        if previous >= 0 { slots[Int(previous)].next = next } else { lists[list].head = next }
        if next >= 0 { slots[Int(next)].previous = previous } else { lists[list].tail = previous }
        lists[list].byteCount -= slots[index].byteCount
    }

    private mutating func takeSlot() -> Int {
        if let free = freeSlots.popLast() { return Int(free) }
        slots.append(Slot())
        if slots.count * 2 > table.count { growTable() }
        return slots.count - 1
    }

    // MARK: Table

    private func slotIndex(_ key: BlockKey, _ hash: UInt64) -> Int? {
        let mask = table.count - 1
        var place = Int(truncatingIfNeeded: hash) & mask
        while table[place] != 0 {
            let index = Int(table[place]) - 1
            if slots[index].hash == hash && slots[index].key == key { return index }
            place = (place + 1) & mask
        }
        return nil
    }

    private mutating func addToTable(_ index: Int) {
        let mask = table.count - 1
        var place = Int(truncatingIfNeeded: slots[index].hash) & mask
        while table[place] != 0 { place = (place + 1) & mask }
        table[place] = Int32(index + 1)
    }

    /// Closes the hole by moving later words of the run back, so that no tombstones are needed.
    private mutating func removeFromTable(_ index: Int) {
        let mask = table.count - 1
        var hole = Int(truncatingIfNeeded: slots[index].hash) & mask
        while table[hole] != Int32(index + 1) { hole = (hole + 1) & mask }
        var place = (hole + 1) & mask
        while table[place] != 0 {
            let home = Int(truncatingIfNeeded: slots[Int(table[place]) - 1].hash) & mask
            if (place - home) & mask >= (place - hole) & mask {
                table[hole] = table[place]
                hole = place
            }
            place = (place + 1) & mask
        }
        table[hole] = 0
    }

    private mutating func growTable() {
        table = .init(repeating: 0, count: table.count * 2)
        for index in 0..<slots.count where slots[index].block != nil { addToTable(index) }
    }
}
