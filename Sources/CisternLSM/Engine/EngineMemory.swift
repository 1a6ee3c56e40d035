// What the engine's memory is used for, and what happens when it runs out, in this order:
//
//   memtables take more than their part      the largest one of all trees is sealed and flushed early
//   all of it together reaches the limit     free memory goes back to the system, then the block cache becomes smaller,
//                                            down to a quarter, and larger again when there is room
//   flushes do not free memory fast enough   writes are answered busy
//
// Threads: any. A tree is asked through its mailbox, by whichever tree notices first; the cache is resized on the memory lane.

internal import CisternPrimitives
internal import Synchronization

/// Keeps trees from asking twice for the same memory.
final class MemoryRelief: Sendable {
    let isUnderWay = Atomic<Bool>(false)
    let isBalancing = Atomic<Bool>(false)
    /// What the block cache may take at the moment.
    let cacheBytes: Atomic<Int>

    init(cacheBytes: Int) { self.cacheBytes = Atomic(cacheBytes) }
}

extension Engine {
    /// Bytes by class at this moment.
    package var memoryUse: MemoryUse {
        var use = MemoryUse()
        for kind in MemoryClass.allCases { use[kind] = memory.bytes(kind) }
        let cache = cache.statistics
        use[.blockCache] = cache.committedBytes + cache.overheadBytes
        use[.logQueues] = openTrees.reduce(0) { $0 + ($1.log?.queuedBytes ?? 0) }
        use[.metadata] = metadataBytes
        return use
    }

    /// Trees and lists of files. Keys are shared by all lists that have a file.
    private var metadataBytes: Int {
        state.withLock { state in
            var files = 0
            for manifest in state.manifests.values {
                files += manifest.durableState.levels.reduce(0) { $0 + $1.count } * FileRecord.listsInMemory
            }
            for snapshot in state.snapshots.all { files += snapshot.record.levels.reduce(0) { $0 + $1.count } }
            return state.open.count * Tree.bytesInMemory + files * FileRecord.bytesInMemory
        }
    }

    /// What everything but the block cache may take without the cache being asked.
    private var memtableBytesLimit: Int { options.memoryBytesLimit - options.blockCacheBytes }

    /// The cache is not made smaller than this.
    private var cacheBytesMin: Int { options.blockCacheBytes / EngineOptions.cacheShareMin }

    /// Memtables that are written to take more than their part.
    @inline(__always)
    var isMemoryShort: Bool { memory.bytes(.memtables) > memtableBytesLimit / 2 }

    /// Waiting helps: memory is used up, the cache has given what it can, and flushes are on their way to free some.
    var isMemoryUsedUp: Bool {
        let sealed = memory.bytes(.sealedMemtables)
        return sealed > 0 && sealed + memory.bytes(.memtables) > options.memoryBytesLimit - cacheBytesMin
    }

    /// Asks the tree with the largest memtable to flush it, one at a time.
    func relieveMemory() {
        guard memoryRelief.isUnderWay.compareExchange(expected: false, desired: true, ordering: .relaxed).exchanged
        else { return }
        let largest = openTrees.max { $0.activeBytes < $1.activeBytes }
        guard let largest, largest.activeBytes > 0 else {
            return memoryRelief.isUnderWay.store(false, ordering: .relaxed)
        }
        largest.mailbox.post(to: largest) { tree in
            tree.flushForMemory()
            tree.engine.memoryRelief.isUnderWay.store(false, ordering: .relaxed)
        }
    }

    // MARK: The cache's part

    /// What is left for the cache and for free memory.
    private var spareBytes: Int {
        options.memoryBytesLimit - memory.bytes(.memtables) - memory.bytes(.sealedMemtables) - memory.bytes(.scratch)
            - memory.bytes(.jobs) - memory.bytes(.tables)
    }

    private func cacheBytes(spare: Int) -> Int { min(max(spare, cacheBytesMin), options.blockCacheBytes) }

    /// Changes the cache's part, and has the pool give free memory back, when either is due by a step. Cheap when not.
    @inline(__always)
    func balanceMemory() {
        let spare = spareBytes
        let wanted = cacheBytes(spare: spare)
        let now = memoryRelief.cacheBytes.load(ordering: .relaxed)
        let step = options.blockCacheBytes / EngineOptions.cacheSteps
        let isCacheOff = abs(wanted - now) > step || (wanted != now && wanted == options.blockCacheBytes)
        if isCacheOff || memory.bytes(.pool) > max(spare - now, 0) + step { startBalancing() }
    }

    @inline(never)
    private func startBalancing() {
        guard memoryRelief.isBalancing.compareExchange(expected: false, desired: true, ordering: .relaxed).exchanged
        else { return }
        memoryLane.submit { [self] in
            memoryRelief.isBalancing.store(false, ordering: .relaxed)
            let spare = spareBytes
            let wanted = cacheBytes(spare: spare)
            memoryPool.trim(to: max(spare - wanted, 0))
            if memoryRelief.cacheBytes.exchange(wanted, ordering: .relaxed) != wanted { cache.setLimit(wanted) }
        }
    }
}

extension Tree {
    /// What an open tree takes beside what is counted elsewhere: an estimate (docs/decisions/0088).
    static let bytesInMemory = 6 << 10

    /// What the active memtable held after the last write. Any thread may ask.
    var activeBytes: Int { memtableGauge.load(ordering: .relaxed) }

    /// After a write: tells what it takes, and has memory freed when there is little left.
    @inline(__always)
    func noteMemory() {
        memtableGauge.store(active.heldBytes, ordering: .relaxed)
        if engine.isMemoryShort { engine.relieveMemory() }
        engine.balanceMemory()
    }

    fileprivate func flushForMemory() {
        guard lifecycle == .open, !active.isEmpty else { return }
        counters.earlySeals += 1
        seal()
        startFlush()
    }
}

extension FileRecord {
    /// Lists with a record of each file of an open tree: the manifest's, the tree's, its version's.
    fileprivate static let listsInMemory = 3
    /// Of a record in a list, with its part of the keys.
    fileprivate static let bytesInMemory = MemoryLayout<FileRecord>.stride + 64
}
