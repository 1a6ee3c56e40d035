// The cache's memory: one reservation of address space, cut into slabs, a slab into frames of one size class. Touched when a
// slab is first used and kept from then on: the first touch of memory costs more than filling it with a block does.
//
// Guarded by the cache's lock. Frames larger than half a slab are allocated one by one, out of the same budget.

internal import CisternPrimitives
internal import Glibc

@safe struct FramePool {
    /// Slabs are a share of the budget, so that a few of them suffice for every size class in use.
    private static let slabsWanted = 32
    private static let slabBytesMin = 32 << 10
    private static let slabBytesMax = 256 << 10
    /// A smaller budget has no slabs: with few of them, the size classes would fight for each.
    private static let budgetBytesMin = 16 * slabBytesMin
    private static let hugePageBytes = 2 << 20
    /// Slabs that are compared when one is given up: their frames' headers are read for it.
    private static let drainCandidates = 16
    /// A recent read counts as much as so many blocks that nobody read.
    private static let readWeight = 4

    private struct Slab {
        /// -1: free.
        var sizeClass: Int32 = -1
        /// Frames handed out.
        var used: Int32 = 0
        /// Frames that were ever handed out since the slab got its class.
        var carved: Int32 = 0
        var freeHead: Int32 = -1
        var previous: Int32 = -1
        var next: Int32 = -1
        /// Published frames of metadata: a reason not to give the slab up.
        var metadata: Int32 = 0
        /// Given up: frames that come back are not handed out again.
        var isDraining = false
    }

    let budgetBytes: Int
    private let slabBytes: Int
    private let base: UnsafeMutableRawPointer?
    private let reservedBytes: Int
    private var slabs: [Slab] = []
    private var freeSlabs: [Int32] = []
    /// Where the search for a slab to give up goes on.
    private var hand = 0
    /// By size class: slabs with a frame to give, linked.
    private var partial: [Int32]
    private let sizes: [Int32]
    private(set) var committedSlabs = 0
    private(set) var singleBytes = 0

    init(budgetBytes: Int) {
        self.budgetBytes = budgetBytes
        var slab = FramePool.slabBytesMin
        while slab < FramePool.slabBytesMax && slab * FramePool.slabsWanted * 2 <= budgetBytes { slab *= 2 }
        slabBytes = slab
        let slabCount = budgetBytes < FramePool.budgetBytesMin ? 0 : budgetBytes / slab
        reservedBytes = slabCount == 0 ? 0 : slabCount * slab + FramePool.hugePageBytes
        unsafe base = unsafe FramePool.reserve(reservedBytes)
        var sizes: [Int32] = []
        while true {
            let size = FramePool.size(ofClass: sizes.count)
            if size > slab / 2 { break }
            sizes.append(Int32(size))
        }
        self.sizes = sizes
        partial = .init(repeating: -1, count: sizes.count)
    }

    /// Called once, when no frame is in use.
    func unmap() {
        guard let base = unsafe base else { return }
        unsafe munmap(base, reservedBytes)
    }

    private static func reserve(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        if byteCount == 0 { return nil }
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else { return nil }
        // A wish: without huge pages everything works, with more misses of the address cache.
        unsafe madvise(address, byteCount, MADV_HUGEPAGE)
        return unsafe address
    }

    /// The first slab, on a huge page's border.
    private var origin: UnsafeMutableRawPointer? {
        guard let base = unsafe base else { return nil }
        let mask = UInt(FramePool.hugePageBytes - 1)
        return unsafe UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: base) + mask) & ~mask)
    }

    private var slabCountMax: Int {
        unsafe base == nil ? 0 : (reservedBytes - FramePool.hugePageBytes) / slabBytes
    }

    /// Memory that is or was in use and is not given back.
    var committedBytes: Int { committedSlabs * slabBytes + singleBytes }

    // MARK: Size classes: steps of 64 bytes up to 1 KiB, then sixteen steps a doubling.

    private static func size(ofClass number: Int) -> Int {
        if number < 16 { return (number + 1) * 64 }
        let doubling = (number - 16) / 16
        return (1024 << doubling) + ((number - 16) % 16 + 1) * (64 << doubling)
    }

    private static func sizeClass(of byteCount: Int) -> Int {
        if byteCount <= 1024 { return (byteCount + 63) / 64 - 1 }
        let exponent = Int.bitWidth - 1 - (byteCount - 1).leadingZeroBitCount
        return 16 + (exponent - 10) * 16 + ((byteCount - 1) >> (exponent - 4)) - 16
    }

    /// nil when a frame of this size is allocated by itself.
    func sizeClass(for byteCount: Int) -> Int? {
        if unsafe base == nil { return nil }
        let number = FramePool.sizeClass(of: byteCount)
        return number < sizes.count ? number : nil
    }

    // MARK: Frames

    /// A frame of the class, if one is free or a slab is.
    mutating func take(_ sizeClass: Int) -> CacheFrame? {
        if partial[sizeClass] < 0 {
            guard let slab = takeSlab() else { return nil }
            slabs[slab] = Slab(sizeClass: Int32(sizeClass))
            link(slab)
        }
        let slab = Int(partial[sizeClass])
        let size = Int(sizes[sizeClass])
        let place: Int
        if slabs[slab].freeHead >= 0 {
            place = Int(slabs[slab].freeHead)
            slabs[slab].freeHead = nextFree(slab, place, size)
        } else {
            place = Int(slabs[slab].carved)
            slabs[slab].carved += 1
        }
        slabs[slab].used += 1
        if slabs[slab].freeHead < 0 && Int(slabs[slab].carved) == slabBytes / size { unlink(slab) }
        let frame = frame(slab, place, size)
        frame.prepare(byteCount: size)
        return frame
    }

    /// Memory for one frame alone, when the budget has room.
    mutating func takeSingle(_ byteCount: Int) -> CacheFrame? {
        while committedBytes + byteCount > budgetBytes {
            guard let slab = freeSlabs.popLast() else { return nil }
            unsafe madvise(address(Int(slab)), slabBytes, MADV_DONTNEED)
            decommitted.append(slab)
            committedSlabs -= 1
        }
        singleBytes += byteCount
        return CacheFrame.allocate(byteCount: byteCount)
    }
    /// Slabs whose memory went back to the system.
    private var decommitted: [Int32] = []

    /// - Precondition: nobody reads the frame any more.
    mutating func give(_ frame: CacheFrame) {
        guard let slab = slab(of: frame) else {
            singleBytes -= frame.byteCount
            return frame.deallocate()
        }
        let size = Int(sizes[Int(slabs[slab].sizeClass)])
        let wasFull = slabs[slab].freeHead < 0 && Int(slabs[slab].carved) == slabBytes / size
        let place = unsafe (frame.base - address(slab)) / size
        frame.entry = CacheFrame.noEntry
        unsafe frame.base.storeBytes(
            of: slabs[slab].freeHead, toByteOffset: CacheFrame.layoutOffset, as: Int32.self)
        slabs[slab].freeHead = Int32(place)
        slabs[slab].used -= 1
        if slabs[slab].used == 0 {
            if !wasFull && !slabs[slab].isDraining { unlink(slab) }
            slabs[slab] = Slab()
            freeSlabs.append(Int32(slab))
        } else if wasFull && !slabs[slab].isDraining {
            link(slab)
        }
    }

    mutating func countMetadata(_ frame: CacheFrame, _ change: Int32) {
        if let slab = slab(of: frame) { slabs[slab].metadata += change }
    }

    func sizeClass(of frame: CacheFrame) -> Int? { slab(of: frame).map { Int(slabs[$0].sizeClass) } }

    // MARK: Giving a slab to another class

    /// Gives up a slab of another class: of a few, the one whose loss costs least. The caller evicts what is in it; when the
    /// last frame has come back, the slab is free for any class.
    /// - Parameter metadataWeight: how many blocks of data a block of metadata is worth.
    mutating func drainSlab(exceptClass sizeClass: Int?, metadataWeight: Int) -> Int? {
        var best: (slab: Int, cost: Int)?
        var looked = 0
        for _ in slabs.indices where looked < FramePool.drainCandidates {
            hand = (hand + 1) % slabs.count
            guard slabs[hand].sizeClass >= 0, !slabs[hand].isDraining else { continue }
            if let sizeClass, Int(slabs[hand].sizeClass) == sizeClass { continue }
            looked += 1
            let cost = costOfLosing(hand, metadataWeight)
            if best.map({ cost < $0.cost }) ?? true { best = (hand, cost) }
        }
        guard let slab = best?.slab else { return nil }
        let size = Int(sizes[Int(slabs[slab].sizeClass)])
        if slabs[slab].freeHead >= 0 || Int(slabs[slab].carved) < slabBytes / size { unlink(slab) }
        slabs[slab].isDraining = true
        return slab
    }

    /// By memory, not by number: a slab of small frames holds more of them for the same bytes.
    private func costOfLosing(_ slab: Int, _ metadataWeight: Int) -> Int {
        var blocks = Int(slabs[slab].metadata) * metadataWeight
        for frame in frames(ofSlab: slab) where frame.entry != CacheFrame.noEntry {
            blocks += 1 + Int(frame.recentReads) * FramePool.readWeight
        }
        return blocks * Int(sizes[Int(slabs[slab].sizeClass)])
    }

    /// Frames of a slab that were handed out at some time: whether they are in use, their header's entry says.
    func frames(ofSlab slab: Int) -> [CacheFrame] {
        guard slabs[slab].sizeClass >= 0 else { return [] }
        let size = Int(sizes[Int(slabs[slab].sizeClass)])
        return (0..<Int(slabs[slab].carved)).map { frame(slab, $0, size) }
    }

    // MARK: Slabs

    private mutating func takeSlab() -> Int? {
        if let free = freeSlabs.popLast() { return Int(free) }
        guard committedBytes + slabBytes <= budgetBytes else { return nil }
        if let slab = decommitted.popLast() {
            committedSlabs += 1
            return Int(slab)
        }
        guard slabs.count < slabCountMax else { return nil }
        committedSlabs += 1
        slabs.append(Slab())
        return slabs.count - 1
    }

    private func slab(of frame: CacheFrame) -> Int? {
        guard let origin = unsafe origin else { return nil }
        let offset = unsafe frame.base - origin
        return offset >= 0 && offset < slabs.count * slabBytes ? offset / slabBytes : nil
    }

    private func address(_ slab: Int) -> UnsafeMutableRawPointer {
        guard let origin = unsafe origin else { preconditionFailure("a slab of a pool without slabs") }
        return unsafe origin + slab * slabBytes
    }

    private func frame(_ slab: Int, _ place: Int, _ size: Int) -> CacheFrame {
        unsafe CacheFrame(address(slab) + place * size)
    }

    private func nextFree(_ slab: Int, _ place: Int, _ size: Int) -> Int32 {
        let frame = frame(slab, place, size)
        return unsafe frame.base.load(fromByteOffset: CacheFrame.layoutOffset, as: Int32.self)
    }

    private mutating func link(_ slab: Int) {
        let head = partial[Int(slabs[slab].sizeClass)]
        slabs[slab].previous = -1
        slabs[slab].next = head
        if head >= 0 { slabs[Int(head)].previous = Int32(slab) }
        partial[Int(slabs[slab].sizeClass)] = Int32(slab)
    }

    private mutating func unlink(_ slab: Int) {
        let (previous, next) = (slabs[slab].previous, slabs[slab].next)
        if previous >= 0 {
            slabs[Int(previous)].next = next
        } else {
            partial[Int(slabs[slab].sizeClass)] = next
        }
        if next >= 0 { slabs[Int(next)].previous = previous }
        slabs[slab].previous = -1
        slabs[slab].next = -1
    }
}
