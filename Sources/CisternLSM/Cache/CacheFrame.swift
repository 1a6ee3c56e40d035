// A block in memory: a header of one cache line, then the payload. Frames of the cache and frames that one reader loaded for
// itself look the same, so that whoever reads a block needs not know where it lies.
//
//    0 u32 entry in the cache's table │ 4 u32 size of the frame │ 8 u32 pins │ 12 u8 recent reads │ 13 3 unused
//    16 48 what was found out about the payload when it was loaded: `DataLayout`, `IndexLayout` or `FilterLayout`
//    64 payload
//
// Threads: entry and size belong to the cache's lock; pins and recent reads are atomic; layout and payload are written by
// the one thread that loads the block, before it is published, and never again until every reader has left.

internal import Synchronization

// Unchecked: the header says whose each byte is.
@safe struct CacheFrame: @unchecked Sendable {
    static let headerBytes = 64
    static let layoutOffset = 16
    static let layoutBytesMax = headerBytes - layoutOffset
    static let alignment = 64
    /// What `entry` says of a frame that is not in the cache's table.
    static let noEntry = UInt32.max
    /// Reads beyond this many count for nothing; see `CacheQueues`.
    static let readsMax: UInt8 = 3

    let base: UnsafeMutableRawPointer

    @inline(__always)
    init(_ base: UnsafeMutableRawPointer) { unsafe self.base = unsafe base }

    /// - Precondition: `bits` is the address of a frame, with anything above its 48 bits.
    @inline(__always)
    init(bits: UInt) {
        unsafe base = unsafe UnsafeMutableRawPointer(bitPattern: bits & CacheFrame.addressMask).unsafelyUnwrapped
    }

    /// User addresses have 47 bits; slots may keep a number above them.
    static let addressMask: UInt = (1 << 48) - 1
    @inline(__always)
    var bits: UInt { unsafe UInt(bitPattern: base) }

    /// Memory of its own, for a block that the cache does not take.
    static func allocate(byteCount: Int) -> CacheFrame {
        let frame = unsafe CacheFrame(.allocate(byteCount: byteCount, alignment: alignment))
        frame.prepare(byteCount: byteCount)
        return frame
    }

    func deallocate() { unsafe base.deallocate() }

    /// Header of a frame that is in no table and that nobody reads.
    func prepare(byteCount: Int) {
        unsafe base.storeBytes(of: CacheFrame.noEntry, as: UInt32.self)
        unsafe base.storeBytes(of: UInt32(byteCount), toByteOffset: 4, as: UInt32.self)
        unsafe pins.pointee.store(0, ordering: .relaxed)
        unsafe reads.pointee.store(0, ordering: .relaxed)
    }

    var entry: UInt32 {
        get { unsafe base.load(as: UInt32.self) }
        nonmutating set { unsafe base.storeBytes(of: newValue, as: UInt32.self) }
    }

    var byteCount: Int { unsafe Int(base.load(fromByteOffset: 4, as: UInt32.self)) }

    var payload: UnsafeMutableRawPointer {
        @inline(__always) get { unsafe base + CacheFrame.headerBytes }
    }

    @inline(__always)
    func layout<Layout: BitwiseCopyable>(as type: Layout.Type = Layout.self) -> Layout {
        unsafe base.load(fromByteOffset: CacheFrame.layoutOffset, as: Layout.self)
    }

    func setLayout<Layout: BitwiseCopyable>(_ layout: Layout) {
        unsafe base.storeBytes(of: layout, toByteOffset: CacheFrame.layoutOffset, as: Layout.self)
    }

    // MARK: Atomics. Frames are aligned, and their headers stay headers for as long as the memory is the cache's.

    @inline(__always)
    private var pins: UnsafeMutablePointer<Atomic<UInt32>> {
        unsafe (base + 8).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    @inline(__always)
    private var reads: UnsafeMutablePointer<Atomic<UInt8>> {
        unsafe (base + 12).assumingMemoryBound(to: Atomic<UInt8>.self)
    }

    /// Keeps the frame's content until `unpin`. Relaxed: a pin is taken inside an epoch, and the cache looks at pins only
    /// when that epoch's readers have left, which orders the two.
    @inline(__always)
    func pin() { _ = unsafe pins.pointee.add(1, ordering: .relaxed) }

    /// Releasing: what was read comes before the cache's writes into the frame.
    @inline(__always)
    func unpin() { _ = unsafe pins.pointee.subtract(1, ordering: .releasing) }

    var isPinned: Bool { unsafe pins.pointee.load(ordering: .acquiring) != 0 }

    /// Remembers a read. Two readers at once may count as one: it is a hint. A block that is read all the time is not
    /// written to, so its line stays shared.
    @inline(__always)
    func touch() {
        let count = unsafe reads.pointee.load(ordering: .relaxed)
        if count < CacheFrame.readsMax { unsafe reads.pointee.store(count &+ 1, ordering: .relaxed) }
    }

    /// Has the header's line loaded while the caller does something else. Through an atomic byte: the bytes beside it belong to
    /// the cache's lock, and may be written meanwhile.
    @inline(__always)
    func prefetchHeader() { _ = unsafe reads.pointee.load(ordering: .relaxed) }

    var recentReads: UInt8 {
        get { unsafe reads.pointee.load(ordering: .relaxed) }
        nonmutating set { unsafe reads.pointee.store(newValue, ordering: .relaxed) }
    }
}

/// A block that one reader may use until `release`: pinned in the cache, or in memory of its own.
@safe struct BlockHold {
    let frame: CacheFrame
    private let isPrivate: Bool

    /// - Precondition: the caller has pinned the frame.
    @inline(__always)
    init(pinned frame: CacheFrame) {
        self.frame = frame
        isPrivate = false
    }

    init(private frame: CacheFrame) {
        self.frame = frame
        isPrivate = true
    }

    /// Exactly once.
    @inline(__always)
    func release() {
        if isPrivate { frame.deallocate() } else { frame.unpin() }
    }
}

/// Where a table keeps the address of a block's frame: 0 while the block is not in memory.
typealias BlockSlot = UnsafeMutablePointer<Atomic<UInt>>
