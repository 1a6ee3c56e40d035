// What the status page draws over time. Samples are taken while somebody looks, at most one a second, so an idle server stays
// idle.
//
// Threading: any; behind a mutex.

internal import CisternLSM
internal import Synchronization

struct StatusSample: Equatable, Sendable {
    let milliseconds: UInt64
    let entriesWritten: UInt64
    let debtBytes: UInt64
    let cacheHits: UInt64
    let cacheMisses: UInt64
    let memoryBytes: UInt64

    init(_ status: ServerStatus) {
        milliseconds = status.uptimeMilliseconds
        let sums = StoreSums.of(status)
        entriesWritten = sums.reduce(0) { $0 + $1.written }
        debtBytes = sums.reduce(0) { $0 + $1.debtBytes }
        cacheHits = status.cache.hits
        cacheMisses = status.cache.misses
        memoryBytes = UInt64(max(status.memory.totalBytes, 0))
    }
}

final class StatusHistory: Sendable {
    static let samplesMax = 180
    static let spacingMilliseconds: UInt64 = 1000

    private let samples = Mutex<[StatusSample]>([])

    /// Oldest first, the new one included unless it comes too soon after the last.
    func add(_ sample: StatusSample) -> [StatusSample] {
        samples.withLock { samples in
            if let last = samples.last,
                sample.milliseconds < last.milliseconds + StatusHistory.spacingMilliseconds
            {
                return samples
            }
            if samples.count == StatusHistory.samplesMax { samples.removeFirst() }
            samples.append(sample)
            return samples
        }
    }
}
