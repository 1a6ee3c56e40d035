// How far compaction and flushes are behind, and by how much writes are slowed down for it. Pure.
//
//   0 ········ slow ──────────► stop
//   no delay   delay grows with   busy
//              the square
//
// The engine is owned by an event loop and never sleeps: the delay is a number that the server adds to the answer of a batch,
// and a client, which keeps a bounded number of batches in flight, slows down by itself. A tree is delayed for its own debt
// only.

package struct WriteDebt: Equatable, Sendable {
    /// Runs of level 0 a read may have to look into.
    package var levelZeroDepth = 0
    /// Sealed memtables, and how full the active one is, from 0 to 1.
    package var memtables = 0.0
    /// What compactions that are due have to read.
    package var bytes: UInt64 = 0

    package init() {}
}

package struct WriteThrottle: Sendable {
    private let options: CompactionOptions
    private let sealedMemtablesMax: Int

    package init(options: CompactionOptions, sealedMemtablesMax: Int) {
        self.options = options
        self.sealedMemtablesMax = sealedMemtablesMax
    }

    /// 0 while nothing is behind, 1 where writes stop.
    package func pressure(_ debt: WriteDebt) -> Double {
        let stop = Double(options.levelZeroStop)
        let slow = Double(options.levelZeroTrigger) + (stop - Double(options.levelZeroTrigger)) / 4
        // Writes stop when the last memtable is half full; that all but one wait for their flush is a burst and passes.
        let memtablesStop = Double(sealedMemtablesMax) + 0.5
        let memtablesSlow = memtablesStop - 1
        return max(
            share(Double(debt.levelZeroDepth), slow, stop), share(debt.memtables, memtablesSlow, memtablesStop),
            share(Double(debt.bytes), Double(options.debtSlowBytes), Double(options.debtStopBytes)))
    }

    private func share(_ value: Double, _ slow: Double, _ stop: Double) -> Double {
        if value >= stop { return 1 }
        return slow < stop ? min(max((value - slow) / (stop - slow), 0), 1) : 0
    }

    /// The square keeps the delay small while compaction may still catch up, and steep before the stop.
    package func delayMilliseconds(_ debt: WriteDebt) -> UInt64 {
        let pressure = pressure(debt)
        return UInt64((pressure * pressure * Double(options.writeDelayMaxMilliseconds)).rounded(.up))
    }
}

/// The way of level 0 over the last flushes, to tell when writes would stop.
struct StallForecast {
    private static let samplesMax = 16
    private var samples: [(milliseconds: UInt64, depth: Int)] = []

    mutating func record(depth: Int, at milliseconds: UInt64) {
        if samples.count == StallForecast.samplesMax { samples.removeFirst() }
        samples.append((milliseconds, depth))
    }

    /// nil while level 0 does not grow.
    func millisecondsToStall(stop: Int) -> UInt64? {
        guard let first = samples.first, let last = samples.last, last.depth > first.depth else { return nil }
        if last.depth >= stop { return 0 }
        let elapsed = Double(last.milliseconds - min(first.milliseconds, last.milliseconds))
        return UInt64(elapsed * Double(stop - last.depth) / Double(last.depth - first.depth))
    }
}
