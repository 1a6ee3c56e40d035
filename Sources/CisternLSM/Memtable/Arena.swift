// Memory of a memtable: chunks from the engine's pool, handed out from the front, given back all at once. A reference is a
// UInt32 that counts 8-byte granules, so nodes and entries are four bytes to point at and no object exists for them.
//
//   reference   ┌ chunk number ┬ granule in the chunk ┐      an allocation larger than 2 MB takes several numbers that lie
//               └──────────────┴──────── 18 bits ─────┘      side by side in memory
//
// The first chunks are small and each is as large as all before it, up to 2 MB: a memtable with a few entries takes a few
// hundred bytes, a large one wastes little. A small chunk uses the front of its number's range only.

internal import CisternPrimitives

/// Resolves references. A copy of one word; valid until the arena's next allocation.
@safe struct ArenaView {
    let chunks: UnsafeMutablePointer<UnsafeMutableRawPointer>

    @inline(__always)
    func address(_ reference: UInt32) -> UnsafeMutableRawPointer {
        let granule = reference & ((1 << Arena.chunkShift) &- 1)
        return unsafe chunks[Int(reference >> Arena.chunkShift)] + Int(granule) &* Arena.granuleBytes
    }
}

@safe struct Arena: ~Copyable {
    static let granuleBytes = 8
    /// Bit 31 of a reference is free for its holder's use.
    static let granulesMax = 1 << 31
    static let chunkShift: UInt32 = 18
    private static let chunkBytesMax = granuleBytes << Int(chunkShift)
    private static let chunkBytesMin = 512

    private let pool: MemoryPool
    private(set) var view: ArenaView
    private var chunkCapacity = 4
    private var chunkCount = 0
    /// The open chunk: next free byte, its reference, and where the chunk starts and ends.
    private var top: UnsafeMutableRawPointer
    private var end: UnsafeMutableRawPointer
    private var start: UnsafeMutableRawPointer
    private var topReference: UInt32 = 0
    /// Of the chunks before the open one, whole.
    private var closedBytes = 0
    /// What was taken from the pool.
    private(set) var heldBytes = 0
    /// What that is charged to.
    private var memoryClass = MemoryClass.memtables
    private let chunkBytesLimit: Int
    /// The blocks as they were taken, to be given back.
    private var blocks: [(base: UInt, bytes: Int)] = []

    /// Takes no memory from the pool before the first allocation.
    /// - Parameter budgetBytes: chunks are at most about a sixteenth of it, so that a small budget is kept closely.
    init(budgetBytes: Int, pool: MemoryPool) {
        self.pool = pool
        var limit = Arena.chunkBytesMin
        while limit < budgetBytes / 16 && limit < Arena.chunkBytesMax { limit *= 2 }
        chunkBytesLimit = limit
        let chunks = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: chunkCapacity)
        view = unsafe ArenaView(chunks: chunks)
        // An empty chunk, so that the first allocation opens one.
        unsafe start = UnsafeMutableRawPointer(chunks)
        unsafe top = unsafe start
        unsafe end = unsafe start
    }

    deinit {
        for block in blocks {
            if let base = unsafe UnsafeMutableRawPointer(bitPattern: block.base) {
                unsafe pool.giveBack(base, block.bytes, from: memoryClass)
            }
        }
        unsafe view.chunks.deallocate()
    }

    /// Bytes taken so far, the unused ends of closed chunks included.
    var byteCount: Int { unsafe closedBytes + (top - start) }

    @inline(__always)
    func address(_ reference: UInt32) -> UnsafeMutableRawPointer { unsafe view.address(reference) }

    /// `byteCount` bytes, aligned to 8, not cleared, and the reference to them, which is never 0.
    @inline(__always)
    mutating func allocate(_ byteCount: Int) -> (reference: UInt32, address: UnsafeMutableRawPointer) {
        let size = (byteCount &+ Arena.granuleBytes &- 1) & ~(Arena.granuleBytes &- 1)
        if unsafe end - top < size { openChunk(toHold: size) }
        unsafe MemoryPoison.unpoison(top, size)
        let found = unsafe (topReference, top)
        unsafe top += size
        topReference &+= UInt32(truncatingIfNeeded: size / Arena.granuleBytes)
        return unsafe found
    }

    mutating func charge(to newClass: MemoryClass) {
        pool.move(heldBytes, from: memoryClass, to: newClass)
        memoryClass = newClass
    }

    @inline(never)
    private mutating func openChunk(toHold size: Int) {
        // Reference 0 means "none": nothing lies at the very front of the first chunk.
        let skipped = chunkCount == 0 ? Arena.granuleBytes : 0
        var bytes = min(max(heldBytes, Arena.chunkBytesMin), chunkBytesLimit)
        while bytes < size + skipped && bytes < Arena.chunkBytesMax { bytes *= 2 }
        if bytes < size + skipped { bytes = size + skipped }
        bytes = MemoryPool.blockBytes(for: bytes)
        let numbers = (bytes + Arena.chunkBytesMax - 1) / Arena.chunkBytesMax
        invariant(
            (chunkCount + numbers) << Int(Arena.chunkShift) <= Arena.granulesMax, "a memtable outgrew 16 GiB")
        if chunkCount + numbers > chunkCapacity { growTable(toHold: chunkCount + numbers) }
        unsafe closedBytes += end - start
        let block = unsafe pool.take(bytes, for: memoryClass)
        blocks.append((UInt(bitPattern: block), bytes))
        heldBytes += bytes
        topReference = UInt32((chunkCount << Int(Arena.chunkShift)) + skipped / Arena.granuleBytes)
        for index in 0..<numbers {
            unsafe (view.chunks + chunkCount).initialize(to: block + index * Arena.chunkBytesMax)
            chunkCount += 1
        }
        unsafe start = unsafe block
        unsafe top = unsafe block + skipped
        unsafe end = unsafe block + bytes
        unsafe MemoryPoison.poison(block, bytes)
    }

    private mutating func growTable(toHold count: Int) {
        let capacity = max(count, chunkCapacity * 2)
        let larger = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: capacity)
        unsafe larger.initialize(from: view.chunks, count: chunkCount)
        unsafe view.chunks.deallocate()
        view = unsafe ArenaView(chunks: larger)
        chunkCapacity = capacity
    }
}
