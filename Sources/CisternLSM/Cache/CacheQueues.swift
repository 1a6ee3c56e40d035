// Which block leaves: the cache's table of published blocks and three queues through it. Guarded by the cache's lock.
//
// Eviction is S3-FIFO (Yang et al., SOSP 2023): a new block enters a small probation queue and is gone soon unless it is read
// again; one that was read, or comes back shortly after it left (the ghost table remembers), enters the main queue, a CLOCK.
// So a scan passes through probation and leaves the main queue alone. Partitions of index and filter have a CLOCK of their
// own and are evicted only when data has nothing left to give or they exceed their share: a read that misses its data block
// costs one read of the disk, one that misses its filter and index costs three.

internal import CisternPrimitives

@safe struct CacheQueues {
    enum Queue: UInt8 {
        case probation = 0
        case main = 1
        case metadata = 2
    }

    @safe struct Entry {
        /// Where readers find the block.
        var slot: BlockSlot?
        var frame: CacheFrame
        var hash: UInt64
        fileprivate var previous: Int32 = -1
        fileprivate var next: Int32 = -1
        fileprivate(set) var queue: Queue
    }

    private struct List {
        var head: Int32 = -1
        var tail: Int32 = -1
        var byteCount = 0
    }

    private static let probationPercent = 10
    private static let metadataPercent = 75

    private var budgetBytes: Int
    private var entries: [Entry?] = []
    private var freeEntries: [Int32] = []
    private var lists = [List(), List(), List()]
    /// Fingerprints of what left probation, each in the one place its hash names.
    private var ghosts: [UInt32]

    init(budgetBytes: Int) {
        self.budgetBytes = budgetBytes
        var ghostCount = 64
        while ghostCount < budgetBytes / 4096 { ghostCount *= 2 }
        ghosts = .init(repeating: 0, count: ghostCount)
    }

    /// The shares of the queues follow the budget.
    mutating func setBudget(_ byteCount: Int) { budgetBytes = byteCount }

    var count: Int { entries.count - freeEntries.count }
    var overheadBytes: Int {
        entries.capacity * MemoryLayout<Entry?>.stride + freeEntries.capacity * 4 + ghosts.count * 4
    }
    var usedBytes: Int { lists[0].byteCount + lists[1].byteCount + lists[2].byteCount }
    var metadataBytes: Int { lists[Int(Queue.metadata.rawValue)].byteCount }

    // MARK: Adding and removing

    mutating func add(_ frame: CacheFrame, slot: BlockSlot, hash: UInt64, isMetadata: Bool) {
        let queue: Queue = isMetadata ? .metadata : takeGhost(hash) ? .main : .probation
        let entry = unsafe Entry(slot: slot, frame: frame, hash: hash, queue: queue)
        let number: Int
        if let free = freeEntries.popLast() {
            number = Int(free)
            entries[number] = entry
        } else {
            number = entries.count
            entries.append(entry)
        }
        frame.entry = UInt32(number)
        pushFront(number, queue)
    }

    /// - Precondition: the frame is in the table.
    mutating func remove(_ frame: CacheFrame) -> Entry {
        let number = Int(frame.entry)
        unlink(number)
        guard let entry = entries[number] else { preconditionFailure("a frame of a free entry") }
        entries[number] = nil
        freeEntries.append(Int32(number))
        frame.entry = CacheFrame.noEntry
        return entry
    }

    /// The table of readers moved.
    mutating func move(_ frame: CacheFrame, to slot: BlockSlot) { unsafe entries[Int(frame.entry)]!.slot = unsafe slot }

    // MARK: Eviction

    /// Takes out the next block to leave; nil when there is none. Blocks that were read move to a better queue on the way,
    /// each a bounded number of times.
    mutating func evict() -> Entry? {
        while let queue = victimQueue {
            let number = Int(lists[Int(queue.rawValue)].tail)
            guard let entry = entries[number] else { preconditionFailure("a queue holds a free entry") }
            let reads = entry.frame.recentReads
            if reads == 0 {
                if queue == .probation { rememberGhost(entry.hash) }
                return remove(entry.frame)
            }
            unlink(number)
            if queue == .probation {
                entry.frame.recentReads = 0
                pushFront(number, .main)
            } else {
                // The CLOCK's hand: round again with one reading less.
                entry.frame.recentReads = reads - 1
                pushFront(number, queue)
            }
        }
        return nil
    }

    private var victimQueue: Queue? {
        let probation = lists[Int(Queue.probation.rawValue)]
        let main = lists[Int(Queue.main.rawValue)]
        let metadata = lists[Int(Queue.metadata.rawValue)]
        if metadata.byteCount > budgetBytes / 100 * CacheQueues.metadataPercent { return .metadata }
        if probation.tail >= 0
            && (main.tail < 0 || probation.byteCount > budgetBytes / 100 * CacheQueues.probationPercent)
        {
            return .probation
        }
        if main.tail >= 0 { return .main }
        return metadata.tail >= 0 ? .metadata : nil
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

    private mutating func pushFront(_ number: Int, _ queue: Queue) {
        let list = Int(queue.rawValue)
        let head = lists[list].head
        entries[number]!.queue = queue
        entries[number]!.previous = -1
        entries[number]!.next = head
        if head >= 0 { entries[Int(head)]!.previous = Int32(number) } else { lists[list].tail = Int32(number) }
        lists[list].head = Int32(number)
        lists[list].byteCount += entries[number]!.frame.byteCount
    }

    private mutating func unlink(_ number: Int) {
        guard let entry = entries[number] else { preconditionFailure("a free entry is unlinked") }
        let list = Int(entry.queue.rawValue)
        if entry.previous >= 0 {
            entries[Int(entry.previous)]!.next = entry.next
        } else {
            lists[list].head = entry.next
        }
        if entry.next >= 0 {
            entries[Int(entry.next)]!.previous = entry.previous
        } else {
            lists[list].tail = entry.previous
        }
        lists[list].byteCount -= entry.frame.byteCount
    }
}
