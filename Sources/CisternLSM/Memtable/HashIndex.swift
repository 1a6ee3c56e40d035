// The index of a memtable's point entries: a hash table that grows a piece at a time, so that no put waits for the whole of
// it to be placed anew (extendible hashing; Fagin and others, ACM TODS 1979).
//
//   directory (2^depth) ──► segment: 0 u32 entries │ 4 u32 depth │ 8 slots …       slot  u64: tag << 32 | reference, 0 = free
//
// The tag is 32 bits of the key's hash: the upper ones choose the segment, the lower ones the first slot looked at, and all of
// them must agree before an entry is touched. Slots are probed one after the other and at most three quarters are taken. A
// full segment is split in two by the next upper bit, from the tags alone. One segment of a few slots is the whole of a small
// table; it grows until it is as large as segments get.

internal import CCisternShims
internal import CisternPrimitives

@safe struct HashIndex: ~Copyable {
    static let headerBytes = 8
    private static let slotBytes = 8
    private static let slotsMin = 16
    /// 32 KB: a split takes some ten microseconds.
    static let slotsMax = 4096
    private static let depthMax = 24

    private(set) var count = 0
    private var directory: UnsafeMutablePointer<UnsafeMutableRawPointer>
    private var depth = 0
    /// Of every segment. Below `slotsMax` while there is one segment only; 0 while there is none.
    private var slotCount = 0
    /// A segment that was split and is used again by the next split; 0 when there is none.
    private var spare: UInt = 0

    init() {
        unsafe directory = .allocate(capacity: 1)
        unsafe directory.initialize(to: UnsafeMutableRawPointer(directory))
    }

    deinit { unsafe directory.deallocate() }

    static func tag(ofHash hash: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hash >> 32) }

    @inline(__always)
    private func segment(_ tag: UInt32) -> UnsafeMutableRawPointer {
        unsafe directory[Int(tag) &>> (32 &- depth)]
    }

    @inline(__always)
    private func firstSlot(_ tag: UInt32) -> UnsafeMutableRawPointer {
        unsafe segment(tag) + (HashIndex.headerBytes &+ (Int(tag) & (slotCount &- 1)) &* HashIndex.slotBytes)
    }

    // MARK: Look-up

    /// Asks for the memory that `find` and `slot` of this tag read first.
    @inline(__always)
    func prefetch(_ tag: UInt32) {
        if slotCount > 0 { unsafe cistern_prefetch(firstSlot(tag)) }
    }

    /// Asks for the entry that the first slot of this tag refers to, if it probably is the one.
    @inline(__always)
    func prefetchEntry(_ tag: UInt32, in view: ArenaView) {
        guard slotCount > 0 else { return }
        let slot = unsafe firstSlot(tag).load(as: UInt64.self)
        if UInt32(truncatingIfNeeded: slot >> 32) == tag, slot != 0 {
            unsafe cistern_prefetch(view.address(UInt32(truncatingIfNeeded: slot)))
        }
    }

    @inline(__always)
    func find(_ key: UnsafeRawBufferPointer, tag: UInt32, in view: ArenaView) -> MemtableEntry? {
        guard slotCount > 0 else { return nil }
        let slot = unsafe probe(key, tag: tag, in: view)
        let reference = unsafe UInt32(truncatingIfNeeded: slot.load(as: UInt64.self))
        return unsafe reference == 0 ? nil : MemtableEntry(view.address(reference))
    }

    /// The slot of `key`, or the free one where its probing ends.
    /// - Precondition: there is a segment. At least one slot of each is free.
    @inline(__always)
    private func probe(_ key: UnsafeRawBufferPointer, tag: UInt32, in view: ArenaView) -> UnsafeMutableRawPointer {
        let slots = unsafe segment(tag) + HashIndex.headerBytes
        let mask = slotCount &- 1
        var index = Int(tag) & mask
        while true {
            let address = unsafe slots + index &* HashIndex.slotBytes
            let slot = unsafe address.load(as: UInt64.self)
            if slot == 0 { return unsafe address }
            if UInt32(truncatingIfNeeded: slot >> 32) == tag,
                unsafe MemtableEntry(view.address(UInt32(truncatingIfNeeded: slot))).matches(key)
            {
                return unsafe address
            }
            index = (index &+ 1) & mask
        }
    }

    // MARK: Insertion

    /// The slot that holds, or is to hold, the reference of `key`'s entry in its low half; `fill` fills it. nil when
    /// thousands of keys have the same hash and nothing can be split any more: the entry must be kept elsewhere.
    @inline(__always)
    mutating func slot(for key: UnsafeRawBufferPointer, tag: UInt32, in arena: inout Arena)
        -> UnsafeMutableRawPointer?
    {
        if slotCount > 0 {
            let slot = unsafe probe(key, tag: tag, in: arena.view)
            if unsafe slot.load(as: UInt64.self) != 0 || !isFull(segment(tag)) { return unsafe slot }
        }
        return unsafe slotAfterGrowth(for: key, tag: tag, in: &arena)
    }

    /// Writes the reference of the entry of a key with this tag into a slot that `slot(for:)` returned.
    @inline(__always)
    mutating func fill(_ slot: UnsafeMutableRawPointer, _ reference: UInt32, tag: UInt32) {
        if unsafe slot.load(as: UInt64.self) == 0 {
            count &+= 1
            let segment = unsafe segment(tag)
            unsafe segment.storeBytes(of: segment.load(as: UInt32.self) &+ 1, as: UInt32.self)
        }
        unsafe slot.storeBytes(of: UInt64(tag) << 32 | UInt64(reference), as: UInt64.self)
    }

    /// Forgets a key; false when it is not here. Its entry stays in the arena.
    mutating func remove(_ key: UnsafeRawBufferPointer, tag: UInt32, in view: ArenaView) -> Bool {
        guard slotCount > 0 else { return false }
        let address = unsafe probe(key, tag: tag, in: view)
        guard unsafe address.load(as: UInt64.self) != 0 else { return false }
        let segment = unsafe segment(tag)
        let slots = unsafe segment + HashIndex.headerBytes
        let mask = slotCount &- 1
        var hole = unsafe (address - slots) / HashIndex.slotBytes
        var next = (hole &+ 1) & mask
        while case let slot = unsafe self.slot(next, of: segment), slot != 0 {
            // It may fill the hole unless its place lies behind the hole, cyclically.
            let home = Int(truncatingIfNeeded: slot >> 32) & mask
            if (next &- home) & mask >= (next &- hole) & mask {
                unsafe slots.storeBytes(of: slot, toByteOffset: hole &* HashIndex.slotBytes, as: UInt64.self)
                hole = next
            }
            next = (next &+ 1) & mask
        }
        unsafe slots.storeBytes(of: UInt64(0), toByteOffset: hole &* HashIndex.slotBytes, as: UInt64.self)
        unsafe segment.storeBytes(of: segment.load(as: UInt32.self) &- 1, as: UInt32.self)
        count &-= 1
        return true
    }

    @inline(__always)
    private func isFull(_ segment: UnsafeMutableRawPointer) -> Bool {
        unsafe Int(segment.load(as: UInt32.self)) >= slotCount &* 3 / 4
    }

    @inline(never)
    private mutating func slotAfterGrowth(
        for key: UnsafeRawBufferPointer, tag: UInt32, in arena: inout Arena
    ) -> UnsafeMutableRawPointer? {
        while unsafe slotCount == 0 || isFull(segment(tag)) {
            if slotCount < HashIndex.slotsMax {
                growOnlySegment(in: &arena)
            } else if !split(tag, in: &arena) {
                return nil
            }
        }
        return unsafe probe(key, tag: tag, in: arena.view)
    }

    private mutating func growOnlySegment(in arena: inout Arena) {
        let old = unsafe directory[0]
        let oldSlots = slotCount
        slotCount = oldSlots == 0 ? HashIndex.slotsMin : oldSlots * 2
        let larger = unsafe makeSegment(depth: 0, in: &arena)
        unsafe directory[0] = unsafe larger
        for index in 0..<oldSlots { unsafe place(slot(index, of: old), in: larger) }
    }

    /// Halves the segment of `tag`. False when the directory would become absurdly large for what the table holds, which only
    /// happens when thousands of keys agree in all 32 bits.
    private mutating func split(_ tag: UInt32, in arena: inout Arena) -> Bool {
        let old = unsafe segment(tag)
        let oldDepth = unsafe Int(old.load(fromByteOffset: 4, as: UInt32.self))
        if oldDepth == depth {
            guard depth < HashIndex.depthMax, 1 << (depth + 1) <= count else { return false }
            doubleDirectory()
        }
        let low = unsafe makeSegment(depth: oldDepth + 1, in: &arena)
        let high = unsafe makeSegment(depth: oldDepth + 1, in: &arena)
        for index in 0..<slotCount {
            let slot = unsafe slot(index, of: old)
            let goesHigh = (slot >> UInt64(63 - oldDepth)) & 1 != 0
            unsafe place(slot, in: goesHigh ? high : low)
        }
        // The part of the directory that led to the old segment.
        let width = 1 << (depth - oldDepth)
        let first = (Int(tag) &>> (32 &- depth)) & ~(width - 1)
        for index in 0..<width { unsafe directory[first + index] = unsafe index < width / 2 ? low : high }
        spare = UInt(bitPattern: old)
        return true
    }

    private mutating func doubleDirectory() {
        let larger = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: 2 << depth)
        for index in 0..<(2 << depth) { unsafe (larger + index).initialize(to: directory[index / 2]) }
        unsafe directory.deallocate()
        unsafe directory = unsafe larger
        depth += 1
    }

    private mutating func makeSegment(depth: Int, in arena: inout Arena) -> UnsafeMutableRawPointer {
        let bytes = HashIndex.headerBytes + slotCount * HashIndex.slotBytes
        let reused = unsafe UnsafeMutableRawPointer(bitPattern: spare)
        spare = 0
        let segment = unsafe reused ?? arena.allocate(bytes).address
        unsafe segment.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
        unsafe segment.storeBytes(of: UInt32(depth), toByteOffset: 4, as: UInt32.self)
        return unsafe segment
    }

    @inline(__always)
    private func slot(_ index: Int, of segment: UnsafeMutableRawPointer) -> UInt64 {
        unsafe segment.load(fromByteOffset: HashIndex.headerBytes &+ index &* HashIndex.slotBytes, as: UInt64.self)
    }

    /// Puts a slot that is known to be of a key not in the segment; a free one is passed over.
    @inline(__always)
    private func place(_ slot: UInt64, in segment: UnsafeMutableRawPointer) {
        if slot == 0 { return }
        let slots = unsafe segment + HashIndex.headerBytes
        let mask = slotCount &- 1
        var index = Int(truncatingIfNeeded: slot >> 32) & mask
        while unsafe slots.load(fromByteOffset: index &* HashIndex.slotBytes, as: UInt64.self) != 0 {
            index = (index &+ 1) & mask
        }
        unsafe slots.storeBytes(of: slot, toByteOffset: index &* HashIndex.slotBytes, as: UInt64.self)
        unsafe segment.storeBytes(of: segment.load(as: UInt32.self) &+ 1, as: UInt32.self)
    }

    // MARK: All of them

    /// Writes the reference of every entry into the records, in no order.
    func collect(into records: UnsafeMutablePointer<SortRecord>) {
        guard slotCount > 0 else { return }
        var next = 0
        var position = 0
        while position < 1 << depth {
            let segment = unsafe directory[position]
            for index in 0..<slotCount {
                let slot = unsafe slot(index, of: segment)
                if slot != 0 {
                    unsafe records[next] = SortRecord(word: 0, reference: UInt32(truncatingIfNeeded: slot))
                    next &+= 1
                }
            }
            let segmentDepth = unsafe Int(segment.load(fromByteOffset: 4, as: UInt32.self))
            position += 1 << (depth - segmentDepth)
        }
        invariant(next == count, "a hash index of \(count) entries shows \(next)")
    }
}
