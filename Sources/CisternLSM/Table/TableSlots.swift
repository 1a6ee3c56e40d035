// Where the readers of a table find its blocks: a word for each, the address of its frame in the cache or 0. The slots of a
// partition's data blocks are made when its index is first loaded, so a table costs 32 bytes a partition until it is read.
//
// Any thread; the words are atomic. Blocks are put in and taken out under the cache's lock.

internal import CisternPrimitives
internal import Synchronization

@safe struct TableSlots {
    /// In the slot of a filter that the partition does not have.
    static let noFilter: UInt = 1

    /// A partition: filter, index, address of the data blocks' slots (0: none yet), their number.
    private static let words = 4

    private let count: Int
    private let base: BlockSlot
    private let ledger: MemoryLedger

    init(_ top: TopIndex, ledger: MemoryLedger) {
        count = top.count
        self.ledger = ledger
        unsafe base = .allocate(capacity: top.count * TableSlots.words)
        ledger.charge(.tables, byteCount)
        for index in 0..<(count * TableSlots.words) { unsafe (base + index).initialize(to: Atomic(0)) }
        for partition in 0..<count where top.row(partition).filter.payloadBytes == 0 {
            unsafe filter(partition).pointee.store(TableSlots.noFilter, ordering: .relaxed)
        }
    }

    /// Without the slots of data blocks.
    private var byteCount: Int { count * TableSlots.words * MemoryLayout<UInt>.stride }

    @inline(__always)
    func filter(_ partition: Int) -> BlockSlot { unsafe base + partition &* TableSlots.words }

    @inline(__always)
    func index(_ partition: Int) -> BlockSlot { unsafe base + (partition &* TableSlots.words &+ 1) }

    /// - Precondition: the partition's index was published, and `block` is one of its blocks.
    @inline(__always)
    func data(_ partition: Int, _ block: Int) -> BlockSlot {
        let address = unsafe (base + (partition &* TableSlots.words &+ 2)).pointee.load(ordering: .acquiring)
        return unsafe BlockSlot(bitPattern: address).unsafelyUnwrapped + block
    }

    /// nil while the partition's index was never loaded, and for a block that it does not have.
    func dataIfMade(_ partition: Int, _ block: Int) -> BlockSlot? {
        guard partition < count, let slots = unsafe dataSlots(partition), block < slots.count else { return nil }
        return unsafe slots.baseAddress! + block
    }

    /// Makes the slots of a partition's data blocks, unless they are there; before the index is published.
    /// - Returns: false when the partition was seen with another number of blocks: the file changed.
    func prepareData(_ partition: Int, blockCount: Int) -> Bool {
        let place = unsafe base + (partition * TableSlots.words + 2)
        if unsafe place.pointee.load(ordering: .acquiring) == 0 {
            // The number of blocks lies before the slots, so that both appear at once.
            let made = BlockSlot.allocate(capacity: blockCount + 1)
            unsafe made.initialize(to: Atomic(UInt(blockCount)))
            for index in 1...blockCount { unsafe (made + index).initialize(to: Atomic(0)) }
            let (exchanged, _) = unsafe place.pointee.compareExchange(
                expected: 0, desired: UInt(bitPattern: made + 1), ordering: .acquiringAndReleasing)
            if exchanged {
                ledger.charge(.tables, TableSlots.dataBytes(blockCount))
                return true
            }
            unsafe made.deallocate()
        }
        return unsafe dataSlots(partition)?.count == blockCount
    }

    private static func dataBytes(_ blockCount: Int) -> Int { (blockCount + 1) * MemoryLayout<UInt>.stride }

    private func dataSlots(_ partition: Int) -> UnsafeMutableBufferPointer<Atomic<UInt>>? {
        let address = unsafe (base + (partition * TableSlots.words + 2)).pointee.load(ordering: .acquiring)
        guard let first = unsafe BlockSlot(bitPattern: address) else { return nil }
        let count = unsafe Int((first - 1).pointee.load(ordering: .relaxed))
        return unsafe UnsafeMutableBufferPointer(start: first, count: count)
    }

    // MARK: The cache

    /// Places of a partition's blocks among those that a writer writes through.
    static func writtenFilter(_ partition: Int) -> Int { partition * 2 }
    static func writtenIndex(_ partition: Int) -> Int { partition * 2 + 1 }

    func adopt(file: UInt64, from cache: BlockCache) {
        unsafe cache.adopt(file: file) { place, word in
            let partition = place / 2
            guard partition < count else { return nil }
            if place == TableSlots.writtenFilter(partition) { return unsafe filter(partition) }
            let blocks = IndexPartition(CacheFrame(bits: word)).count
            return unsafe prepareData(partition, blockCount: blocks) ? index(partition) : nil
        } data: { place in
            guard place.partition < count, prepareData(place.partition, blockCount: place.blockCount) else {
                return nil
            }
            return unsafe dataIfMade(place.partition, place.block)
        }
    }

    func drop(from cache: BlockCache) {
        for partition in 0..<count {
            // Filter and index are neighbours.
            unsafe cache.drop(UnsafeMutableBufferPointer(start: filter(partition), count: 2))
            if let slots = unsafe dataSlots(partition) { unsafe cache.drop(slots) }
        }
    }

    func deallocate() {
        for partition in 0..<count {
            if let slots = unsafe dataSlots(partition) {
                ledger.release(.tables, TableSlots.dataBytes(slots.count))
                unsafe (slots.baseAddress! - 1).deallocate()
            }
        }
        ledger.release(.tables, byteCount)
        unsafe base.deallocate()
    }
}
