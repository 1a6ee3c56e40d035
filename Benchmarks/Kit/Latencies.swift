// Latencies of single operations, and the open loop that measures them: operations begin at fixed times whatever the store
// does, and a latency counts from when its operation should have begun.

package struct Latencies {
    private var nanoseconds: [UInt64] = []

    package init() {}

    package var count: Int { nanoseconds.count }

    package mutating func reserve(_ count: Int) { nanoseconds.reserveCapacity(count) }

    package mutating func add(_ value: Double) { nanoseconds.append(UInt64(max(0, value))) }

    package mutating func add(contentsOf other: Latencies) { nanoseconds += other.nanoseconds }

    /// In nanoseconds; `share` 0.99 is p99, 1 the longest.
    package func quantile(_ share: Double) -> Double {
        guard !nanoseconds.isEmpty else { return 0 }
        let sorted = nanoseconds.sorted()
        let rank = Int((share * Double(sorted.count)).rounded(.up)) - 1
        return Double(sorted[min(max(rank, 0), sorted.count - 1)])
    }
}

package struct OpenLoop {
    private let operationsPerSecond: Double

    package init(operationsPerSecond: Double) { self.operationsPerSecond = operationsPerSecond }

    /// Runs `operation` at its times until `goesOn` says no; `operation` gets its number and when it should begin. Waits by
    /// spinning: a wake-up of a sleeping thread costs more than what is measured.
    /// - Parameter between: runs while there is nothing to do.
    package func run(
        while goesOn: (Int) -> Bool, between: () throws -> Void, operation: (Int, Double) throws -> Void
    ) throws {
        let interval = 1e9 / operationsPerSecond
        let start = wallNanoseconds()
        var number = 0
        while goesOn(number) {
            let due = start + Double(number) * interval
            while wallNanoseconds() < due { try between() }
            try operation(number, due)
            number += 1
        }
    }
}
