// What the requests of one event loop came to: how many of each kind, what was refused and why, how long writes waited for
// their acknowledgement. One object a loop, so that counting never contends; whoever looks adds them up.
//
// Threading: written by its event loop alone, read from anywhere; relaxed atomics, because only sums are of interest.

package import CisternWire
internal import Synchronization

// Unchecked: the pointer is to atomics and lives as long as the object.
@safe package final class RequestCounters: @unchecked Sendable {
    /// Upper bounds of the latency buckets are powers of two, in microseconds: 1, 2, 4 … about 8 s, and one for the rest.
    package static let latencyBuckets = 24

    private static let opcodeBase = 0
    private static let errorBase = opcodeBase + 256
    private static let errorsMax = 64
    private static let latencyBase = errorBase + errorsMax
    private static let latencySum = latencyBase + latencyBuckets + 1
    private static let bytesReceived = latencySum + 1
    private static let readsPutAside = bytesReceived + 1
    private static let readsThatWaited = readsPutAside + 1
    private static let count = readsThatWaited + 1

    private let cells: UnsafeMutablePointer<Atomic<UInt64>>

    package init() {
        unsafe cells = .allocate(capacity: RequestCounters.count)
        for index in 0..<RequestCounters.count { unsafe (cells + index).initialize(to: Atomic(0)) }
    }

    deinit {
        unsafe cells.deinitialize(count: RequestCounters.count)
        unsafe cells.deallocate()
    }

    @inline(__always)
    private func add(_ cell: Int, _ amount: UInt64) {
        // One writer: no read-modify-write is needed.
        let value = unsafe cells[cell].load(ordering: .relaxed)
        unsafe cells[cell].store(value &+ amount, ordering: .relaxed)
    }

    @inline(__always)
    func noteRequest(_ opcode: UInt8, bodyBytes: Int) {
        add(RequestCounters.opcodeBase + Int(opcode), 1)
        add(RequestCounters.bytesReceived, UInt64(bodyBytes))
    }

    func noteRefusal(_ code: ErrorCode?) {
        add(RequestCounters.errorBase + Int(code?.rawValue ?? 0), 1)
    }

    /// A write batch was acknowledged so long after it came.
    func noteWrite(nanoseconds: UInt64) {
        let microseconds = nanoseconds / 1000
        let bucket = min(64 - microseconds.leadingZeroBitCount, RequestCounters.latencyBuckets)
        add(RequestCounters.latencyBase + bucket, 1)
        add(RequestCounters.latencySum, microseconds)
    }

    /// A read was put aside until the disk had what it takes; once for each time.
    func noteReadPutAside() { add(RequestCounters.readsPutAside, 1) }

    /// A read was let wait for the disk on its event loop.
    func noteReadThatWaited() { add(RequestCounters.readsThatWaited, 1) }

    /// Adds what was counted so far.
    func add(to sum: inout RequestSums) {
        for opcode in Opcode.allCases {
            sum.requests[opcode, default: 0] += read(RequestCounters.opcodeBase + Int(opcode.rawValue))
        }
        for code in ErrorCode.allCases {
            let refusals = read(RequestCounters.errorBase + Int(code.rawValue))
            if refusals > 0 { sum.refusals[code, default: 0] += refusals }
        }
        for bucket in 0...RequestCounters.latencyBuckets {
            sum.writeLatency[bucket] += read(RequestCounters.latencyBase + bucket)
        }
        sum.writeMicroseconds += read(RequestCounters.latencySum)
        sum.bytesReceived += read(RequestCounters.bytesReceived)
        sum.readsPutAside += read(RequestCounters.readsPutAside)
        sum.readsThatWaited += read(RequestCounters.readsThatWaited)
    }

    private func read(_ cell: Int) -> UInt64 { unsafe cells[cell].load(ordering: .relaxed) }
}

/// The counters of all event loops together, since the start.
package struct RequestSums: Equatable, Sendable {
    package var requests: [Opcode: UInt64] = [:]
    package var refusals: [ErrorCode: UInt64] = [:]
    /// Acknowledged write batches by the time from arrival to acknowledgement; bucket `n` holds those below 2^n microseconds,
    /// the last one the rest.
    package var writeLatency = [UInt64](repeating: 0, count: RequestCounters.latencyBuckets + 1)
    package var writeMicroseconds: UInt64 = 0
    /// Bodies of requests.
    package var bytesReceived: UInt64 = 0
    /// Times that a read was put aside until the disk had what it takes.
    package var readsPutAside: UInt64 = 0
    /// Reads that were put aside so often that the last time they were let wait on their event loop.
    package var readsThatWaited: UInt64 = 0

    package init() {}
}
