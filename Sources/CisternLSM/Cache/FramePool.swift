// The cache's memory: one reservation of address space, cut into regions, a region into slabs, a slab into frames of one size
// class.
//
//   cold region ─► taken from the budget ─► touched, outside of the lock ─► its slabs are free ─► frames
//        ▲                                                                                          │
//        └──── its pages go back to the system ◄──── all of its frames came back ◄──── given up ◄───┘
//
// The first touch of memory costs more than filling it with a block does, and a huge page is touched as a whole, so nobody
// touches under the lock and some regions are touched ahead of need (`BlockCache`). A region is kept until the cache has to
// become smaller.
//
// Guarded by the cache's lock. Frames larger than half a slab are allocated one by one, out of the same budget.

internal import CCisternShims
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
    /// A region is a huge page where the budget has at least so many of them.
    private static let regionsWanted = 8
    /// Regions that are touched ahead of need, and which share of the budget they are at most: 1 / this.
    private static let regionsAheadMax = 4
    private static let aheadShare = 8
    /// Slabs that are compared when one is given up: their frames' headers are read for it.
    private static let drainCandidates = 16
    /// The same for regions.
    private static let regionCandidates = 4
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

    private struct Region {
        enum Phase {
            /// Its pages are the system's.
            case cold
            /// Somebody touches it, or gives its pages back.
            case between
            case warm
            /// Given up: slabs that come back are not handed out again.
            case leaving
        }
        var phase = Phase.cold
        /// Slabs that have a size class.
        var used = 0
    }

    /// What the pool was made for.
    let budgetBytes: Int
    /// What it may hold at the moment.
    private(set) var limitBytes: Int
    private let slabBytes: Int
    private let slabsARegion: Int
    private let slabCountMax: Int
    private let base: UnsafeMutableRawPointer?
    private let reservedBytes: Int
    /// Of the regions that were ever touched.
    private var slabs: [Slab] = []
    private var freeSlabs: [Int32] = []
    private var regions: [Region] = []
    private var coldRegions: [Int32] = []
    private var leavingCount = 0
    /// Where the search for a slab or a region to give up goes on.
    private var hand = 0
    private var regionHand = 0
    /// By size class: slabs with a frame to give, linked.
    private var partial: [Int32]
    private let sizes: [Int32]
    /// Memory that is the pool's: of regions that are not cold, and of single frames.
    private(set) var committedBytes = 0

    init(budgetBytes: Int) {
        self.budgetBytes = budgetBytes
        limitBytes = budgetBytes
        var slab = FramePool.slabBytesMin
        while slab < FramePool.slabBytesMax && slab * FramePool.slabsWanted * 2 <= budgetBytes { slab *= 2 }
        slabBytes = slab
        slabCountMax = budgetBytes < FramePool.budgetBytesMin ? 0 : budgetBytes / slab
        let hasHugePages = budgetBytes >= FramePool.hugePageBytes * FramePool.regionsWanted
        slabsARegion = hasHugePages ? FramePool.hugePageBytes / slab : 1
        reservedBytes = slabCountMax == 0 ? 0 : slabCountMax * slab + FramePool.hugePageBytes
        unsafe base = unsafe FramePool.reserve(reservedBytes, hasHugePages: hasHugePages)
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
        // The addresses may be another's next.
        unsafe MemoryPoison.unpoison(base, reservedBytes)
        unsafe munmap(base, reservedBytes)
    }

    private static func reserve(_ byteCount: Int, hasHugePages: Bool) -> UnsafeMutableRawPointer? {
        if byteCount == 0 { return nil }
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else { return nil }
        // A wish: without huge pages everything works, with more misses of the address cache.
        if hasHugePages { unsafe madvise(address, byteCount, MADV_HUGEPAGE) }
        unsafe MemoryPoison.poison(address, byteCount)
        return unsafe address
    }

    /// The first slab, on a huge page's border.
    private var origin: UnsafeMutableRawPointer? {
        guard let base = unsafe base else { return nil }
        let mask = UInt(FramePool.hugePageBytes - 1)
        return unsafe UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: base) + mask) & ~mask)
    }

    var overheadBytes: Int {
        slabs.capacity * MemoryLayout<Slab>.stride + freeSlabs.capacity * 4
            + regions.capacity * MemoryLayout<Region>.stride
    }

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
    /// - Parameter byteCount: what of it will be used.
    mutating func take(_ sizeClass: Int, byteCount: Int) -> CacheFrame? {
        if partial[sizeClass] < 0 {
            guard let free = freeSlabs.popLast() else { return nil }
            let slab = Int(free)
            slabs[slab] = Slab(sizeClass: Int32(sizeClass))
            regions[slab / slabsARegion].used += 1
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
        unsafe MemoryPoison.unpoison(frame.base, byteCount)
        frame.prepare(byteCount: size)
        return frame
    }

    /// Memory for one frame alone, when the budget has room.
    mutating func takeSingle(_ byteCount: Int) -> CacheFrame? {
        guard committedBytes + byteCount <= limitBytes else { return nil }
        committedBytes += byteCount
        return CacheFrame.allocate(byteCount: byteCount)
    }

    /// - Precondition: nobody reads the frame any more.
    mutating func give(_ frame: CacheFrame) {
        guard let slab = slab(of: frame) else {
            committedBytes -= frame.byteCount
            return frame.deallocate()
        }
        let size = Int(sizes[Int(slabs[slab].sizeClass)])
        let wasFull = slabs[slab].freeHead < 0 && Int(slabs[slab].carved) == slabBytes / size
        let place = unsafe (frame.base - address(slab)) / size
        frame.entry = CacheFrame.noEntry
        unsafe frame.base.storeBytes(
            of: slabs[slab].freeHead, toByteOffset: CacheFrame.layoutOffset, as: Int32.self)
        // The front of the header stays readable: it says that the frame is free, and links it.
        let readable = CacheFrame.layoutOffset + 8
        unsafe MemoryPoison.poison(frame.base + readable, size - readable)
        slabs[slab].freeHead = Int32(place)
        slabs[slab].used -= 1
        if slabs[slab].used == 0 {
            unsafe MemoryPoison.poison(address(slab), slabBytes)
            if !wasFull && !slabs[slab].isDraining { unlink(slab) }
            slabs[slab] = Slab()
            regions[slab / slabsARegion].used -= 1
            // A region that leaves keeps its slabs to itself until `takeDeparted` finds all of them free.
            if regions[slab / slabsARegion].phase == .warm { freeSlabs.append(Int32(slab)) }
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
        drain(slab)
        return slab
    }

    private mutating func drain(_ slab: Int) {
        let size = Int(sizes[Int(slabs[slab].sizeClass)])
        if slabs[slab].freeHead >= 0 || Int(slabs[slab].carved) < slabBytes / size { unlink(slab) }
        slabs[slab].isDraining = true
    }

    /// By memory, not by number: a slab of small frames holds more of them for the same bytes. As much as can be when a cursor
    /// stands on a block, because the slab would not become free.
    private func costOfLosing(_ slab: Int, _ metadataWeight: Int) -> Int {
        guard slabs[slab].sizeClass >= 0 else { return 0 }
        var blocks = Int(slabs[slab].metadata) * metadataWeight
        for frame in frames(ofSlab: slab) where frame.entry != CacheFrame.noEntry {
            if frame.isPinned { return .max }
            blocks += 1 + Int(frame.recentReads) * FramePool.readWeight
        }
        return blocks * Int(sizes[Int(slabs[slab].sizeClass)])
    }

    /// nil when a cursor stands on a block of the region.
    private func costOfLosing(region: Int, _ metadataWeight: Int) -> Int? {
        let (first, last) = slabRange(region)
        var sum = 0
        for slab in first..<last {
            let cost = costOfLosing(slab, metadataWeight)
            if cost == .max { return nil }
            sum += cost
        }
        return sum
    }

    /// Frames of a slab that were handed out at some time: whether they are in use, their header's entry says.
    func frames(ofSlab slab: Int) -> [CacheFrame] {
        guard slabs[slab].sizeClass >= 0 else { return [] }
        let size = Int(sizes[Int(slabs[slab].sizeClass)])
        return (0..<Int(slabs[slab].carved)).map { frame(slab, $0, size) }
    }

    // MARK: Regions

    /// Memory of a region, to be touched or given back by whoever was told of it.
    struct RegionMemory: Sendable {
        fileprivate let region: Int
        fileprivate let start: UInt
        fileprivate let byteCount: Int

        func touch() {
            guard let start = unsafe UnsafeMutableRawPointer(bitPattern: start) else { return }
            unsafe cistern_touch(start, byteCount)
        }

        func giveBack() {
            guard let start = unsafe UnsafeMutableRawPointer(bitPattern: start) else { return }
            unsafe madvise(start, byteCount, MADV_DONTNEED)
        }
    }

    private func memory(of region: Int) -> RegionMemory {
        let (first, last) = slabRange(region)
        return unsafe RegionMemory(
            region: region, start: UInt(bitPattern: address(first)), byteCount: (last - first) * slabBytes)
    }

    /// The last region may be smaller than the others.
    private func slabRange(_ region: Int) -> (first: Int, last: Int) {
        (region * slabsARegion, min((region + 1) * slabsARegion, slabCountMax))
    }

    /// Fewer slabs are free than should be touched ahead, and the limit leaves room for more.
    var wantsRegion: Bool {
        let regionsAhead = min(
            FramePool.regionsAheadMax, slabCountMax / slabsARegion / FramePool.aheadShare)
        return freeSlabs.count < regionsAhead * slabsARegion && nextColdRegion != nil
    }

    /// nil when there is none, or the limit leaves no room for it.
    private var nextColdRegion: Int? {
        let region = coldRegions.last.map { Int($0) } ?? regions.count
        let (first, last) = slabRange(region)
        return first < last && committedBytes + (last - first) * slabBytes <= limitBytes ? region : nil
    }

    /// Takes a region from the budget. The caller touches it and tells by `warmed`.
    mutating func beginRegion() -> RegionMemory? {
        guard let region = nextColdRegion else { return nil }
        if coldRegions.popLast() == nil {
            regions.append(Region())
            slabs.append(contentsOf: repeatElement(Slab(), count: slabRange(region).last - slabs.count))
        }
        regions[region].phase = .between
        let memory = memory(of: region)
        committedBytes += memory.byteCount
        return memory
    }

    mutating func warmed(_ memory: RegionMemory) {
        regions[memory.region].phase = .warm
        let (first, last) = slabRange(memory.region)
        for slab in (first..<last).reversed() { freeSlabs.append(Int32(slab)) }
    }

    // MARK: Becoming smaller

    mutating func setLimit(_ byteCount: Int) { limitBytes = min(max(byteCount, 0), budgetBytes) }

    /// Gives up a region: of a few on which no cursor stands, the one whose loss costs least. The caller evicts what is in its slabs, and takes it by
    /// `takeDeparted` when the last frame has come back.
    /// - Returns: the slabs that are in use; nil when there is no region to give up.
    mutating func drainRegion(metadataWeight: Int) -> [Int]? {
        var best: (region: Int, cost: Int)?
        var looked = 0
        for _ in regions.indices where looked < FramePool.regionCandidates {
            regionHand = (regionHand + 1) % regions.count
            guard regions[regionHand].phase == .warm,
                let cost = costOfLosing(region: regionHand, metadataWeight)
            else { continue }
            looked += 1
            if best.map({ cost < $0.cost }) ?? true { best = (regionHand, cost) }
        }
        guard let region = best?.region else { return nil }
        regions[region].phase = .leaving
        leavingCount += 1
        let (first, last) = slabRange(region)
        freeSlabs.removeAll { first..<last ~= Int($0) }
        let used = (first..<last).filter { slabs[$0].sizeClass >= 0 }
        for slab in used where !slabs[slab].isDraining { drain(slab) }
        return used
    }

    /// A region that was given up and is not in use any more. It counts no longer; the caller gives its pages back and tells
    /// by `cooled`.
    mutating func takeDeparted() -> RegionMemory? {
        guard leavingCount > 0,
            let region = regions.firstIndex(where: { $0.phase == .leaving && $0.used == 0 })
        else { return nil }
        leavingCount -= 1
        regions[region].phase = .between
        let memory = memory(of: region)
        committedBytes -= memory.byteCount
        return memory
    }

    var isAnyLeaving: Bool { leavingCount > 0 }

    /// A region that was given up and is not in use any more is taken back, when the limit allows it after all.
    mutating func keepDeparted() -> Bool {
        guard committedBytes <= limitBytes, let memory = takeDeparted() else { return false }
        committedBytes += memory.byteCount
        warmed(memory)
        return true
    }

    mutating func cooled(_ memory: RegionMemory) {
        regions[memory.region].phase = .cold
        coldRegions.append(Int32(memory.region))
    }

    // MARK: Slabs

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
