// What the engine's memory is used for, by class. Whoever takes memory for long charges it here and
// releases it when it is given back; what other parts count themselves (`Engine.memoryUse`) is added when somebody looks.
//
// Threads: any; one atomic a class. The sum of classes is not one moment's: it is for limits and operators, not for proofs.

internal import Synchronization

package enum MemoryClass: Int, CaseIterable, Sendable {
    /// Arenas that are written to, with their indexes.
    case memtables
    /// Arenas that wait for their flush.
    case sealedMemtables
    /// Sorting for flushes and scans, and the order that came out.
    case scratch
    /// Free memory of the pool that was touched and waits to be used again.
    case pool
    /// Blocks, index and filter partitions in the block cache.
    case blockCache
    /// Records on their way to the log.
    case logQueues
    /// Buffers of flushes and merges.
    case jobs
    /// Open tables: their top indexes and the slots that lead to their blocks.
    case tables
    /// Open trees, and the lists of files of trees and snapshots; an estimate.
    case metadata
}

package final class MemoryLedger: Sendable {
    private final class Counter: Sendable {
        let bytes = Atomic<Int>(0)
    }

    private let counters = MemoryClass.allCases.map { _ in Counter() }

    package init() {}

    package func charge(_ kind: MemoryClass, _ byteCount: Int) {
        counters[kind.rawValue].bytes.wrappingAdd(byteCount, ordering: .relaxed)
    }

    package func release(_ kind: MemoryClass, _ byteCount: Int) {
        counters[kind.rawValue].bytes.wrappingSubtract(byteCount, ordering: .relaxed)
    }

    /// What is charged at this moment.
    package func bytes(_ kind: MemoryClass) -> Int { counters[kind.rawValue].bytes.load(ordering: .relaxed) }
}

/// What one object is charged with, until it ends.
struct MemoryCharge: ~Copyable {
    private let ledger: MemoryLedger
    private let kind: MemoryClass
    private(set) var byteCount: Int

    init(_ ledger: MemoryLedger, _ kind: MemoryClass, _ byteCount: Int) {
        self.ledger = ledger
        self.kind = kind
        self.byteCount = byteCount
        ledger.charge(kind, byteCount)
    }

    @inline(__always)
    mutating func change(to newCount: Int) {
        if newCount == byteCount { return }
        ledger.charge(kind, newCount - byteCount)
        byteCount = newCount
    }

    deinit { ledger.release(kind, byteCount) }
}

/// Bytes by class.
package struct MemoryUse: Equatable, Sendable {
    private var counts = [Int](repeating: 0, count: MemoryClass.allCases.count)

    package init() {}

    package subscript(kind: MemoryClass) -> Int {
        get { counts[kind.rawValue] }
        set { counts[kind.rawValue] = newValue }
    }

    package var totalBytes: Int { counts.reduce(0, +) }
}
