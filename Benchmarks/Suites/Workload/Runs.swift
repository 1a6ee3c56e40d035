// What compaction is measured on: sorted runs that overlap, one a flush, none of them merged yet.

import CisternBenchKit
import CisternPrimitives

struct Runs {
    enum Shape: String, CaseIterable, Sendable {
        /// Every key once.
        case distinct
        /// Random keys out of twice as many as a run has: most entries are written over.
        case overwriting
        /// Half of the entries have expired when they are merged.
        case expiring
        /// Later runs delete half of what earlier ones put and write the other half over.
        case deleting
        /// Every key once, values of 4 KB.
        case large
    }

    static let largeValueBytes = 4096
    /// How long the half that expires lives.
    static let timeToLiveMilliseconds: UInt64 = 600_000
    private static let dayMilliseconds: UInt64 = 86_400_000

    let shape: Shape
    let entriesPerRun: Int
    let workload: Workload
    /// The peer keeps the time of writing in the value, as Flink does; ours has an expiry beside it.
    let stampsValues: Bool

    init(_ shape: Shape = .distinct, entriesPerRun: Int, seed: UInt64, stampsValues: Bool = false) {
        self.shape = shape
        self.entriesPerRun = entriesPerRun
        self.stampsValues = stampsValues && shape == .expiring
        workload = Workload(entries: entriesPerRun, seed: seed)
    }

    private var valueBytes: Int { shape == .large ? Runs.largeValueBytes : Workload.valueBytes }

    /// Writes a run and flushes it.
    func writeAndFlush(_ store: any BenchStore, run: Int, of count: Int) throws {
        try write(store, run: run, of: count)
        try store.flush()
    }

    func write(_ store: any BenchStore, run: Int, of count: Int) throws {
        let batch = WriteBatch(entriesMax: PointCases.batchEntries)
        let now = nowMilliseconds()
        try forEach(run: run, of: count) { position, index, isDelete in
            let expires = shape == .expiring && position % 2 == 0
            add(batch, index, version: UInt64(run), isDelete: isDelete, expires: expires, now: now)
            if batch.count == PointCases.batchEntries {
                try store.write(batch)
                batch.reset()
            }
        }
        if batch.count > 0 { try store.write(batch) }
    }

    private func add(
        _ batch: WriteBatch, _ index: UInt64, version: UInt64, isDelete: Bool, expires: Bool, now: UInt64
    ) {
        if isDelete {
            workload.valueKey(index, into: batch.add(.delete, keyBytes: Workload.keyBytes, valueBytes: 0).key)
            return
        }
        // The half that stays was, for the peer's filter, written a day later.
        let written = now + (expires ? 0 : Runs.dayMilliseconds)
        let stamp = stampsValues ? 8 : 0
        let expiry: Expiry =
            shape == .expiring && !stampsValues
            ? .processingTime(milliseconds: written + Runs.timeToLiveMilliseconds) : .never
        let (key, value) = batch.add(
            .put, keyBytes: Workload.keyBytes, valueBytes: stamp + valueBytes, expiry: expiry)
        workload.valueKey(index, into: key)
        if stampsValues { value.storeBytes(of: written.bigEndian, as: UInt64.self) }
        workload.value(index, version, bytes: valueBytes, into: value + stamp)
    }

    /// The operations of a run in its order.
    private func forEach(
        run: Int, of count: Int, _ body: (_ position: UInt64, _ index: UInt64, _ isDelete: Bool) throws -> Void
    ) rethrows {
        let seed = workload.seed &+ UInt64(run) &* 0x9E37
        let half = max(count / 2, 1)
        switch shape {
        case .distinct, .expiring, .large:
            for position in Orders.shuffled(entriesPerRun, seed: seed) {
                try body(UInt64(position), UInt64(position) * UInt64(count) + UInt64(run), false)
            }
        case .overwriting:
            for index in Orders.uniform(entriesPerRun, below: entriesPerRun * 2, seed: seed) {
                try body(UInt64(index), UInt64(index), false)
            }
        case .deleting:
            for position in Orders.shuffled(entriesPerRun, seed: seed) {
                let index = UInt64(position) * UInt64(half) + UInt64(run % half)
                try body(UInt64(position), index, run >= half && position % 2 == 0)
            }
        }
    }

    /// Bytes of keys and values that `count` runs hold, and that are alive when all are merged and half has expired.
    func bytes(of count: Int) -> (written: Double, live: Double) {
        let entry = Double(Workload.keyBytes + valueBytes)
        let all = Double(entriesPerRun * count) * entry
        switch shape {
        case .distinct, .large: return (all, all)
        case .expiring: return (all, all / 2)
        case .deleting:
            let half = max(count / 2, 1)
            let deleted = Double((entriesPerRun + 1) / 2 * (count - half)) * Double(valueBytes)
            return (all - deleted, Double(entriesPerRun / 2 * half) * entry)
        case .overwriting:
            var seen = [Bool](repeating: false, count: entriesPerRun * 2)
            for run in 0..<count { forEach(run: run, of: count) { _, index, _ in seen[Int(index)] = true } }
            return (all, Double(seen.reduce(0) { $0 + ($1 ? 1 : 0) }) * entry)
        }
    }

    /// Gets entries of the first run, which all must be there.
    /// - Precondition: every key is written once.
    func get(_ store: any BenchStore, _ positions: Range<Int>, of count: Int) throws {
        try withKey { key in
            let name = UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)
            for position in positions {
                let index = UInt64(position * 7919 % entriesPerRun) * UInt64(count)
                workload.valueKey(index, into: key)
                guard let value = try store.get(name), value.count == valueBytes else {
                    throw BenchFailure("\(shape): entry \(index) is missing or of another size")
                }
            }
        }
    }

    /// Looks for a wrong answer after a merge: an entry that must be there and is not, or the reverse.
    func verify(_ store: any BenchStore, of count: Int) throws {
        try withKey { key in
            let name = UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)
            for sample in 0..<1000 {
                let position = UInt64(sample * 7919 % entriesPerRun)
                let index =
                    switch shape {
                    case .distinct, .expiring, .large: position * UInt64(count)
                    case .deleting: position * UInt64(max(count / 2, 1))
                    case .overwriting: position
                    }
                let mustBeThere: Bool? =
                    switch shape {
                    case .distinct, .large: true
                    case .expiring, .deleting: position % 2 == 1
                    // Random: not every key was written.
                    case .overwriting: nil
                    }
                workload.valueKey(index, into: key)
                let found = try store.get(name) != nil
                if let mustBeThere, found != mustBeThere {
                    throw BenchFailure("\(shape): entry \(index) is \(found ? "there" : "missing") after the merge")
                }
            }
        }
    }
}
