// The engine's background threads. Each lane runs one job at a time, so what a lane owns needs no lock; a flush never waits
// behind a compaction, and a log sync behind neither. Compactions have several threads, and so has the opening of trees: workers
// that are restored together must not wait for each other's logs.

package import CisternPrimitives
internal import Glibc
internal import Synchronization

/// Lanes for jobs that need no order among each other: each job goes to the lane with the fewest.
package final class LanePool: Sendable {
    private let lanes: [any BackgroundLane]
    /// Jobs of each lane that have not ended.
    private let loads: Mutex<[Int]>

    /// - Precondition: there is at least one lane, and nobody else uses them.
    package init(lanes: [any BackgroundLane]) {
        precondition(!lanes.isEmpty, "a pool without a lane")
        self.lanes = lanes
        loads = Mutex([Int](repeating: 0, count: lanes.count))
    }

    package func submit(_ job: @escaping @Sendable () -> Void) {
        let lane = loads.withLock { loads -> Int in
            var least = 0
            for index in loads.indices where loads[index] < loads[least] { least = index }
            loads[least] += 1
            return least
        }
        lanes[lane].submit { [self] in
            job()
            loads.withLock { $0[lane] -= 1 }
        }
    }

    /// Drops what has not begun and returns when what runs has ended.
    package func stop() { for lane in lanes { lane.stop() } }
}

package struct EngineLanes: Sendable {
    /// Log appends and syncs of all trees.
    package let log: any BackgroundLane
    /// Manifests, snapshot records, removal of files.
    package let metadata: any BackgroundLane
    package let flush: any BackgroundLane
    package let compaction: CompactionPool
    /// Opening of trees, which reads their logs.
    package let recovery: LanePool
    /// Memory that is touched before it is needed, and what owners let go of: closed tables, flushed memtables, versions.
    package let memory: any BackgroundLane

    package init(
        log: any BackgroundLane, metadata: any BackgroundLane, flush: any BackgroundLane,
        compaction: CompactionPool, recovery: LanePool, memory: any BackgroundLane
    ) {
        self.log = log
        self.metadata = metadata
        self.flush = flush
        self.compaction = compaction
        self.recovery = recovery
        self.memory = memory
    }

    /// Each of them may fill a memtable, so there are not many.
    private static let recoveryThreadsMax = 8

    private static var recoveryThreads: Int {
        max(2, min(sysconf(Int32(_SC_NPROCESSORS_ONLN)) / 2, recoveryThreadsMax))
    }

    /// A thread for each lane, so many for compactions, and for recovery as many as half the processors.
    package static func threads(compactions: Int) -> EngineLanes {
        EngineLanes(
            log: SerialThread(name: "cistern-log"), metadata: SerialThread(name: "cistern-meta"),
            flush: SerialThread(name: "cistern-flush"),
            compaction: CompactionPool(
                lanes: (0..<compactions).map { SerialThread(name: "cistern-merge-\($0)") }),
            recovery: LanePool(lanes: (0..<recoveryThreads).map { SerialThread(name: "cistern-open-\($0)") }),
            memory: SerialThread(name: "cistern-memory"))
    }

    /// Work that feeds other lanes stops first. What was asked of the metadata lane is finished: a released snapshot must not
    /// come back because the engine closed.
    func stop() {
        recovery.stop()
        compaction.stop()
        flush.stop()
        log.stop()
        memory.stop()
        metadata.drain()
        metadata.stop()
    }
}
