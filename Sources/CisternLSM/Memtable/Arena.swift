// Memory of a memtable: large chunks, handed out from the front, given back all at once. A reference is a UInt32 that
// counts 8-byte granules across the chunks, so nodes and entries are four bytes to point at and no object exists for them.
//
//   reference   ┌ chunk number ┬ granule in the chunk ┐      an allocation larger than a chunk takes several numbers
//               └──────────────┴──── chunkShift bits ─┘      that lie side by side in memory

internal import CisternPrimitives

/// Resolves references. A copy of two words; valid until the arena's next allocation.
@safe struct ArenaView {
    let chunks: UnsafeMutablePointer<UnsafeMutableRawPointer>
    let chunkShift: UInt32

    @inline(__always)
    func address(_ reference: UInt32) -> UnsafeMutableRawPointer {
        let granule = reference & ((1 << chunkShift) &- 1)
        return unsafe chunks[Int(reference >> chunkShift)] + Int(granule) &* Arena.granuleBytes
    }
}

@safe struct Arena: ~Copyable {
    static let granuleBytes = 8
    /// Bit 31 of a reference is free for its holder's use.
    static let granulesMax = 1 << 31
    private static let chunkBytesMin = 16 << 10
    private static let chunkBytesMax = 1 << 20

    private(set) var view: ArenaView
    private var chunkCapacity = 64
    private var chunkCount = 0
    /// Next free granule, and the first one behind the region it lies in.
    private var top = 0
    private var regionEnd = 0
    /// The regions as they were allocated, to be freed.
    private var regions: [UnsafeMutableRawPointer] = unsafe []

    /// Chunks are a sixteenth of the budget within bounds, so that a small memtable does not hold a large one's memory.
    init(budgetBytes: Int) {
        let wanted = min(max(budgetBytes / 16, Arena.chunkBytesMin), Arena.chunkBytesMax)
        var shift: UInt32 = 0
        while (Arena.granuleBytes << Int(shift)) < wanted { shift += 1 }
        view = unsafe ArenaView(chunks: .allocate(capacity: chunkCapacity), chunkShift: shift)
        addRegion(byteCount: Arena.granuleBytes)
        // Reference 0 means "none".
        top = 1
    }

    deinit {
        for index in unsafe 0..<regions.count { unsafe regions[index].deallocate() }
        unsafe view.chunks.deallocate()
    }

    /// Bytes taken so far, the unused ends of full chunks included.
    var byteCount: Int { top * Arena.granuleBytes }

    @inline(__always)
    func address(_ reference: UInt32) -> UnsafeMutableRawPointer { unsafe view.address(reference) }

    /// A reference to `byteCount` bytes, aligned to 8, not cleared.
    @inline(__always)
    mutating func allocate(_ byteCount: Int) -> UInt32 {
        let granules = (byteCount &+ Arena.granuleBytes &- 1) / Arena.granuleBytes
        if top &+ granules > regionEnd { addRegion(byteCount: byteCount) }
        let reference = UInt32(truncatingIfNeeded: top)
        top &+= granules
        return reference
    }

    @inline(never)
    private mutating func addRegion(byteCount: Int) {
        let chunkGranules = 1 << Int(view.chunkShift)
        let chunkBytes = chunkGranules * Arena.granuleBytes
        let needed = (byteCount + chunkBytes - 1) / chunkBytes
        invariant((chunkCount + needed) * chunkGranules <= Arena.granulesMax, "a memtable outgrew 16 GiB")
        if chunkCount + needed > chunkCapacity { growTable(toHold: chunkCount + needed) }
        let region = UnsafeMutableRawPointer.allocate(byteCount: needed * chunkBytes, alignment: 64)
        unsafe regions.append(region)
        top = chunkCount * chunkGranules
        for index in 0..<needed {
            unsafe (view.chunks + chunkCount).initialize(to: region + index * chunkBytes)
            chunkCount += 1
        }
        regionEnd = chunkCount * chunkGranules
    }

    private mutating func growTable(toHold count: Int) {
        let capacity = max(count, chunkCapacity * 2)
        let larger = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: capacity)
        unsafe larger.initialize(from: view.chunks, count: chunkCount)
        unsafe view.chunks.deallocate()
        view = unsafe ArenaView(chunks: larger, chunkShift: view.chunkShift)
        chunkCapacity = capacity
    }
}
