// The memory of memtables and of the scratch of their flushes, engine-wide: taken from the system once, touched once, used
// again and again. The first touch of a page costs as much as everything else a put does (docs/decisions/0020).
//
//   below 64 KB      the C allocator: small trees stay small
//   64 KB … 1 MB     powers of two, cut from slabs of 2 MB
//   from 2 MB        runs of whole slabs, side by side, with huge pages asked for
//
// What is given back stays warm up to `retainedBytesMax`; beyond that its pages go back to the system and its address range is
// kept. Where there is a lane, some slabs are touched ahead of need on it, and pages are given back there: who writes to a
// memtable should do neither (docs/decisions/0086).
//
// Threads: any; one mutex, held for the search only. A block belongs to whoever took it.

internal import CCisternShims
package import CisternPrimitives
internal import Glibc
internal import Synchronization

package final class MemoryPool: Sendable {
    package static let slabBytes = 2 << 20
    /// The smallest piece a slab is cut into.
    static let unitBytes = 64 << 10
    private static let unitsASlab = slabBytes / unitBytes
    /// Address space is reserved in pieces of this size. It costs nothing before it is touched.
    private static let extentBytes = 64 << 20
    /// What is kept warm and free for the next takers, once somebody takes much.
    private static let aheadBytes = 4 * slabBytes

    /// Slabs side by side.
    private struct Run {
        var start: UInt
        var bytes: Int
        /// Its pages are the system's until they are touched again.
        let isCold: Bool

        var end: UInt { start + UInt(bytes) }
    }

    /// A slab that is handed out in units; a set bit is a free unit.
    private struct CutSlab {
        let start: UInt
        var free: UInt32
    }

    private struct State {
        var extents: [Run] = []
        var runs: [Run] = []
        var cut: [CutSlab] = []
        /// Warm bytes that nobody has.
        var retainedBytes = 0
        /// The part of them that is in whole slabs.
        var warmBytes = 0
        var isTouching = false
        /// Bytes handed out, those of the C allocator included.
        var usedBytes = 0
    }

    private let retainedBytesMax: Int
    private let ledger: MemoryLedger
    private let lane: (any BackgroundLane)?
    private let state = Mutex(State())

    /// - Parameters:
    ///   - retainedBytesMax: free memory beyond it goes back to the system.
    ///   - lane: where memory is touched and given back; nil: where it is needed and freed.
    package init(
        retainedBytesMax: Int = 256 << 20, ledger: MemoryLedger = MemoryLedger(), lane: (any BackgroundLane)? = nil
    ) {
        self.retainedBytesMax = retainedBytesMax
        self.ledger = ledger
        self.lane = lane
    }

    deinit {
        let extents = state.withLock { $0.extents }
        for extent in extents {
            guard let start = unsafe UnsafeMutableRawPointer(bitPattern: extent.start) else { continue }
            // The addresses may be another's next.
            unsafe MemoryPoison.unpoison(start, extent.bytes)
            unsafe munmap(start, extent.bytes)
        }
    }

    /// Warm bytes that nobody uses.
    package var retainedBytes: Int { state.withLock { $0.retainedBytes } }
    package var usedBytes: Int { state.withLock { $0.usedBytes } }

    /// The size of the block that a request gets.
    static func blockBytes(for byteCount: Int) -> Int {
        if byteCount >= slabBytes / 2 + 1 { return (byteCount + slabBytes - 1) / slabBytes * slabBytes }
        if byteCount <= unitBytes / 2 { return max(byteCount, 16) }
        var size = unitBytes
        while size < byteCount { size *= 2 }
        return size
    }

    /// A block of `blockBytes(for: byteCount)` bytes, aligned to 16, not cleared, charged to a class.
    func take(_ byteCount: Int, for kind: MemoryClass) -> UnsafeMutableRawPointer {
        let size = MemoryPool.blockBytes(for: byteCount)
        ledger.charge(kind, size)
        if size < MemoryPool.unitBytes {
            // Who takes half a unit will soon take slabs.
            let wantsSlabs = state.withLock { state in
                state.usedBytes += size
                return size >= MemoryPool.unitBytes / 2 && beginTouching(&state)
            }
            if wantsSlabs { lane?.submit { [self] in touchAhead() } }
            return UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
        }
        let (start, wantsSlabs) = state.withLock { state in
            state.usedBytes += size
            let start = counted(&state) { size < MemoryPool.slabBytes ? takeUnits(size, &$0) : takeRun(size, &$0) }
            return (start, beginTouching(&state))
        }
        if wantsSlabs { lane?.submit { [self] in touchAhead() } }
        guard let block = unsafe UnsafeMutableRawPointer(bitPattern: start) else {
            preconditionFailure("the memory pool handed out address 0")
        }
        unsafe MemoryPoison.unpoison(block, size)
        return unsafe block
    }

    /// - Parameters:
    ///   - byteCount: what the block was taken with.
    ///   - kind: the class it is charged to.
    func giveBack(_ block: UnsafeMutableRawPointer, _ byteCount: Int, from kind: MemoryClass) {
        let size = MemoryPool.blockBytes(for: byteCount)
        ledger.release(kind, size)
        if size < MemoryPool.unitBytes {
            state.withLock { $0.usedBytes -= size }
            return unsafe block.deallocate()
        }
        unsafe MemoryPoison.poison(block, size)
        let start = UInt(bitPattern: block)
        let surplus = state.withLock { state in
            state.usedBytes -= size
            return counted(&state) { state in
                size < MemoryPool.slabBytes
                    ? giveBackUnits(start, size, &state)
                    : retain(Run(start: start, bytes: size, isCold: false), &state)
            }
        }
        guard let surplus else { return }
        if let lane { lane.submit { [self] in giveUp(surplus) } } else { giveUp(surplus) }
    }

    /// Gives the pages of a run that is in no list back to the system.
    private func giveUp(_ run: Run) {
        let isGone = unsafe madvise(UnsafeMutableRawPointer(bitPattern: run.start), run.bytes, MADV_DONTNEED) == 0
        state.withLock { state in
            counted(&state) { insert(Run(start: run.start, bytes: run.bytes, isCold: isGone), &$0) }
        }
    }

    /// Gives free memory back to the system until no more than so much is left, as far as it is in whole slabs. Blocks for
    /// some microseconds a slab: not for owners.
    func trim(to byteCount: Int) {
        while true {
            let run = state.withLock { state -> Run? in
                guard state.retainedBytes > byteCount else { return nil }
                let surplus = state.retainedBytes - byteCount
                guard let index = state.runs.firstIndex(where: { !$0.isCold }) else { return nil }
                let slabs = (surplus + MemoryPool.slabBytes - 1) / MemoryPool.slabBytes * MemoryPool.slabBytes
                let size = min(state.runs[index].bytes, slabs)
                return counted(&state) { cut(index, size, &$0) }
            }
            guard let run else { return }
            giveUp(run)
        }
    }

    // MARK: Touching ahead

    private var aheadBytesMax: Int { min(MemoryPool.aheadBytes, retainedBytesMax) }

    private func beginTouching(_ state: inout State) -> Bool {
        guard lane != nil, !state.isTouching, state.warmBytes + MemoryPool.slabBytes <= aheadBytesMax else {
            return false
        }
        state.isTouching = true
        return true
    }

    /// On the lane, a slab at a time.
    private func touchAhead() {
        while true {
            let slab = state.withLock { state -> Run? in
                guard state.warmBytes + MemoryPool.slabBytes <= aheadBytesMax else {
                    state.isTouching = false
                    return nil
                }
                let cold = coldRun(MemoryPool.slabBytes, &state)
                return cut(cold, MemoryPool.slabBytes, &state)
            }
            guard let slab else { return }
            if let start = unsafe UnsafeMutableRawPointer(bitPattern: slab.start) {
                unsafe cistern_touch(start, slab.bytes)
            }
            state.withLock { state in
                counted(&state) { insert(Run(start: slab.start, bytes: slab.bytes, isCold: false), &$0) }
            }
        }
    }

    /// Blocks change their class, `byteCount` bytes together.
    func move(_ byteCount: Int, from old: MemoryClass, to new: MemoryClass) {
        ledger.release(old, byteCount)
        ledger.charge(new, byteCount)
    }

    /// Tells the ledger by how much the free memory changes.
    private func counted<Result>(_ state: inout State, _ change: (inout State) -> Result) -> Result {
        let before = state.retainedBytes
        let result = change(&state)
        ledger.charge(.pool, state.retainedBytes - before)
        return result
    }

    // MARK: Slabs

    /// The smallest warm run that is large enough, else a cold one, else new address space.
    private func takeRun(_ size: Int, _ state: inout State) -> UInt {
        var best: Int?
        for index in state.runs.indices where !state.runs[index].isCold && state.runs[index].bytes >= size {
            if best.map({ state.runs[index].bytes < state.runs[$0].bytes }) ?? true { best = index }
        }
        let found = best ?? coldRun(size, &state)
        return cut(found, size, &state).start
    }

    private func coldRun(_ size: Int, _ state: inout State) -> Int {
        func smallest() -> Int? {
            var best: Int?
            for index in state.runs.indices where state.runs[index].isCold && state.runs[index].bytes >= size {
                if best.map({ state.runs[index].bytes < state.runs[$0].bytes }) ?? true { best = index }
            }
            return best
        }
        if let found = smallest() { return found }
        reserve(size, &state)
        guard let found = smallest() else { preconditionFailure("\(size) bytes that were reserved are not there") }
        return found
    }

    /// Takes the front of a run out of the list.
    private func cut(_ index: Int, _ size: Int, _ state: inout State) -> Run {
        let run = state.runs[index]
        if run.bytes == size {
            state.runs.swapAt(index, state.runs.count - 1)
            state.runs.removeLast()
        } else {
            state.runs[index].start += UInt(size)
            state.runs[index].bytes -= size
        }
        if !run.isCold {
            state.retainedBytes -= size
            state.warmBytes -= size
        }
        return Run(start: run.start, bytes: size, isCold: run.isCold)
    }

    private func reserve(_ size: Int, _ state: inout State) {
        let bytes = max(size, MemoryPool.extentBytes) + MemoryPool.slabBytes
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let mapped = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            preconditionFailure("\(bytes) bytes of address space could not be had (errno \(errno))")
        }
        // Best effort: without huge pages the memory works, only slower.
        _ = unsafe madvise(mapped, bytes, MADV_HUGEPAGE)
        unsafe MemoryPoison.poison(mapped, bytes)
        let start = UInt(bitPattern: mapped)
        state.extents.append(Run(start: start, bytes: bytes, isCold: true))
        let slab = UInt(MemoryPool.slabBytes)
        let aligned = (start + slab - 1) / slab * slab
        let usable = (start + UInt(bytes) - aligned) / slab * slab
        state.runs.append(Run(start: aligned, bytes: Int(usable), isCold: true))
    }

    /// Puts a warm run back, unless there is enough of free memory: then its pages are to be given up.
    private func retain(_ run: Run, _ state: inout State) -> Run? {
        if state.retainedBytes + run.bytes > retainedBytesMax { return run }
        insert(run, &state)
        return nil
    }

    /// Puts a run beside its neighbours.
    private func insert(_ run: Run, _ state: inout State) {
        if !run.isCold {
            state.retainedBytes += run.bytes
            state.warmBytes += run.bytes
        }
        var run = run
        var index = 0
        while index < state.runs.count {
            let other = state.runs[index]
            if other.isCold == run.isCold && (other.end == run.start || run.end == other.start) {
                run.start = min(run.start, other.start)
                run.bytes += other.bytes
                state.runs.swapAt(index, state.runs.count - 1)
                state.runs.removeLast()
            } else {
                index += 1
            }
        }
        state.runs.append(run)
    }

    // MARK: Units

    private static func unitMask(_ size: Int) -> UInt32 { UInt32((1 << (size / unitBytes)) - 1) }

    private func takeUnits(_ size: Int, _ state: inout State) -> UInt {
        let mask = MemoryPool.unitMask(size)
        let step = size / MemoryPool.unitBytes
        for index in state.cut.indices {
            for unit in stride(from: 0, to: MemoryPool.unitsASlab, by: step)
            where state.cut[index].free >> UInt32(unit) & mask == mask {
                state.cut[index].free &= ~(mask << UInt32(unit))
                state.retainedBytes -= size
                return state.cut[index].start + UInt(unit * MemoryPool.unitBytes)
            }
        }
        let start = takeRun(MemoryPool.slabBytes, &state)
        state.cut.append(CutSlab(start: start, free: ~mask))
        state.retainedBytes += MemoryPool.slabBytes - size
        return start
    }

    private func giveBackUnits(_ start: UInt, _ size: Int, _ state: inout State) -> Run? {
        let slab = start / UInt(MemoryPool.slabBytes) * UInt(MemoryPool.slabBytes)
        guard let index = state.cut.firstIndex(where: { $0.start == slab }) else {
            preconditionFailure("a block is given back to a pool that it is not of")
        }
        let unit = UInt32(start - slab) / UInt32(MemoryPool.unitBytes)
        state.cut[index].free |= MemoryPool.unitMask(size) << unit
        state.retainedBytes += size
        guard state.cut[index].free == .max else { return nil }
        state.cut.swapAt(index, state.cut.count - 1)
        state.cut.removeLast()
        state.retainedBytes -= MemoryPool.slabBytes
        return retain(Run(start: slab, bytes: MemoryPool.slabBytes, isCold: false), &state)
    }
}
