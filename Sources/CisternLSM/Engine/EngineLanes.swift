// The engine's background threads. Each lane runs one job at a time, so what a lane owns needs no lock; a flush never waits
// behind a compaction, and a log sync behind neither. Compactions have several threads.

package import CisternPrimitives

package struct EngineLanes: Sendable {
    /// Log appends and syncs of all trees.
    package let log: any BackgroundLane
    /// Manifests, snapshot records, removal of files.
    package let metadata: any BackgroundLane
    package let flush: any BackgroundLane
    package let compaction: CompactionPool
    /// Opening of trees, which reads their logs.
    package let recovery: any BackgroundLane
    /// Memory that is touched before it is needed, and what owners let go of: closed tables, flushed memtables, versions.
    package let memory: any BackgroundLane

    package init(
        log: any BackgroundLane, metadata: any BackgroundLane, flush: any BackgroundLane,
        compaction: CompactionPool, recovery: any BackgroundLane, memory: any BackgroundLane
    ) {
        self.log = log
        self.metadata = metadata
        self.flush = flush
        self.compaction = compaction
        self.recovery = recovery
        self.memory = memory
    }

    /// A thread for each lane, and so many for compactions.
    package static func threads(compactions: Int) -> EngineLanes {
        EngineLanes(
            log: SerialThread(name: "cistern-log"), metadata: SerialThread(name: "cistern-meta"),
            flush: SerialThread(name: "cistern-flush"),
            compaction: CompactionPool(
                lanes: (0..<compactions).map { SerialThread(name: "cistern-merge-\($0)") }),
            recovery: SerialThread(name: "cistern-open"), memory: SerialThread(name: "cistern-memory"))
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
