// What the engine's memory is used for, and what happens when it runs out: the largest memtable of all trees is sealed and
// flushed early, and writes are answered busy when flushes do not free memory as fast as they take it.
//
//   memoryBytes = block cache + memtables (half) + sealed memtables, sorting, records on their way to the log (half)
//
// Threads: any. A tree is asked through its mailbox, by whichever tree notices first.

internal import CisternPrimitives
internal import Synchronization

/// Keeps trees from asking twice for the same memory.
final class MemoryRelief: Sendable {
    let isUnderWay = Atomic<Bool>(false)
}

extension Engine {
    /// Bytes by class at this moment.
    package var memoryUse: MemoryUse {
        var use = MemoryUse()
        for kind in MemoryClass.allCases { use[kind] = memory.bytes(kind) }
        use[.blockCache] = cache.statistics.committedBytes
        use[.logQueues] = openTrees.reduce(0) { $0 + ($1.log?.queuedBytes ?? 0) }
        return use
    }

    /// What everything but the block cache may take.
    private var memtableBytesLimit: Int { options.memoryBytesLimit - options.blockCacheBytes }

    /// Memtables that are written to take more than their part.
    @inline(__always)
    var isMemoryShort: Bool { memory.bytes(.memtables) > memtableBytesLimit / 2 }

    /// Waiting helps: memory is used up, and flushes are on their way to free some.
    var isMemoryUsedUp: Bool {
        let sealed = memory.bytes(.sealedMemtables)
        return sealed > 0 && sealed + memory.bytes(.memtables) > memtableBytesLimit
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
}

extension Tree {
    /// What the active memtable held after the last write. Any thread may ask.
    var activeBytes: Int { memtableGauge.load(ordering: .relaxed) }

    /// After a write: tells what it takes, and has memory freed when there is little left.
    @inline(__always)
    func noteMemory() {
        memtableGauge.store(active.heldBytes, ordering: .relaxed)
        if engine.isMemoryShort { engine.relieveMemory() }
    }

    fileprivate func flushForMemory() {
        guard lifecycle == .open, !active.isEmpty else { return }
        counters.earlySeals += 1
        seal()
        startFlush()
    }
}
