// The suite: its groups, each run by a side in a process of its own, and what each case must show.

import CisternBenchKit
import Foundation

/// Cases that share a state.
enum RemoteGroup: String, CaseIterable {
    case wire, counter1m, counter10m, dedup, codec

    var cases: [String] {
        switch self {
        case .wire:
            ["put_batch_1000", "put_batch_100", "get_p50", "get_cpu", "get_pipelined_100", "multiget_100"]
        case .counter1m: ["counter_1m", "write_rpcs"]
        case .counter10m: ["counter_10m"]
        case .dedup: ["dedup_sparse", "dedup_rpcs"]
        case .codec: ["codec_bytes", "codec_disk"]
        }
    }
}

enum RemoteSuite {
    static let name = "remote"

    static let bars: [String: CaseBar] = [
        "get_p50": .ratio(0.87, .p50), "get_cpu": .ratio(0.87, .serverCPU),
        "get_pipelined_100": .ratio(1.5, .operationsPerSecond), "multiget_100": .ratio(1.5, .operationsPerSecond),
        "put_batch_100": .ratio(1.7, .operationsPerSecond), "put_batch_1000": .ratio(2.5, .operationsPerSecond),
        "counter_1m": .ratio(1.5, .operationsPerSecond), "counter_10m": .ratio(1.5, .operationsPerSecond),
        "dedup_sparse": .ratio(5, .operationsPerSecond), "dedup_rpcs": .atMost(0, .absentRequests),
        "write_rpcs": .atLeast(200, .operationsPerRequest),
        // At most 0.45 of what the same values take without a codec.
        "codec_bytes": .ratio(2.22, .wireBytes), "codec_disk": .ratio(2.22, .diskBytes),
    ]

    static func peerNames() throws -> [String: String] {
        let rocks = try EmbeddedRocks.name()
        var names: [String: String] = [:]
        for name in ["counter_1m", "counter_10m", "dedup_sparse"] { names[name] = rocks }
        for name in ["codec_bytes", "codec_disk"] { names[name] = "the same without a codec" }
        return names
    }
}

/// One side, one repeat, a directory of its own.
final class RemoteContext {
    let side: Side
    let isQuick: Bool
    let seed: UInt64
    let directory: String
    private let filter: String
    private(set) var measurements: [CaseMeasurement] = []

    init(side: Side, isQuick: Bool, seed: UInt64, directory: String, filter: String) {
        self.side = side
        self.isQuick = isQuick
        self.seed = seed
        self.directory = directory
        self.filter = filter
    }

    /// False for what is not asked for and prepares nothing for others.
    func wants(_ names: String...) -> Bool { names.contains { $0.hasPrefix(filter) } }

    /// A tenth in a quick run.
    func scaled(_ full: Int) -> Int { isQuick ? full / 10 : full }

    func record(_ name: String, _ values: [Metric: Double]) { measurements.append(CaseMeasurement(name, values)) }

    /// An empty directory for a server or a store.
    func makeDirectory(_ name: String) throws -> String {
        let path = URL(fileURLWithPath: directory).appendingPathComponent(name).path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        return path
    }
}

/// Time and CPU of a loop, of this process and of the server.
struct RemoteMeter {
    private let served: Served?
    private let wallStart: Double
    private let clientStart: Double
    private let serverStart: Double

    init(_ served: Served?) {
        self.served = served
        serverStart = served?.cpuNanoseconds ?? 0
        clientStart = processCPUNanoseconds()
        wallStart = wallNanoseconds()
    }

    func values(operations: Int) -> [Metric: Double] {
        let wall = wallNanoseconds() - wallStart
        let client = processCPUNanoseconds() - clientStart
        let count = Double(operations)
        var values: [Metric: Double] = [.operationsPerSecond: count / wall * 1e9, .clientCPU: client / count]
        if let served { values[.serverCPU] = (served.cpuNanoseconds - serverStart) / count }
        return values
    }
}

/// The same keys and values for all sides, from one seed.
struct RemoteData: Sendable {
    static let userKeyBytes = 18
    static let storeKeyBytes = 24
    static let valueBytes = 100

    let seed: UInt64

    /// 18 bytes that no two numbers share.
    func userKey(_ number: UInt64) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: RemoteData.userKeyBytes) { memory, count in
            fill(UnsafeMutableRawBufferPointer(memory), number)
            count = RemoteData.userKeyBytes
        }
    }

    private func fill(_ memory: UnsafeMutableRawBufferPointer, _ number: UInt64) {
        memory.storeBytes(of: scatter(number ^ seed), as: UInt64.self)
        memory.storeBytes(of: number.bigEndian, toByteOffset: 8, as: UInt64.self)
        memory.storeBytes(of: 0x6B79, toByteOffset: 16, as: UInt16.self)
    }

    /// The user key with the six bytes that ours has around it, so that both sides store keys of one size.
    func withStoreKey<Value>(_ number: UInt64, _ body: (UnsafeRawBufferPointer) throws -> Value) rethrows -> Value {
        try withUnsafeTemporaryAllocation(byteCount: RemoteData.storeKeyBytes, alignment: 8) { memory in
            memory.storeBytes(of: UInt16(truncatingIfNeeded: number % 128).bigEndian, as: UInt16.self)
            memory.storeBytes(of: UInt16(1).bigEndian, toByteOffset: 2, as: UInt16.self)
            memory.storeBytes(of: 18, toByteOffset: 4, as: UInt8.self)
            fill(UnsafeMutableRawBufferPointer(rebasing: memory[5..<23]), number)
            memory.storeBytes(of: 0, toByteOffset: 23, as: UInt8.self)
            return try body(UnsafeRawBufferPointer(memory))
        }
    }

    /// Half random, half from a small alphabet; begins with the number, by which reads are checked.
    func writeValue(_ number: UInt64, into memory: UnsafeMutableRawBufferPointer) {
        var word = scatter(number &+ 1)
        for offset in stride(from: 0, to: RemoteData.valueBytes - 7, by: 8) {
            memory.storeBytes(
                of: offset % 16 == 0 ? word : 0x2263_6974_7922_3A22, toByteOffset: offset, as: UInt64.self)
            word = word &* 0x5851_F42D_4C95_7F2D &+ 1
        }
        memory.storeBytes(of: 0x7D7D_7D7D, toByteOffset: 96, as: UInt32.self)
        memory.storeBytes(of: number, as: UInt64.self)
    }

    static func check(_ value: UnsafeRawBufferPointer?, _ number: UInt64) throws {
        guard let value, value.count == valueBytes, value.loadUnaligned(as: UInt64.self) == number else {
            throw BenchFailure("entry \(number) is missing or has another's value")
        }
    }
}

func scatter(_ value: UInt64) -> UInt64 {
    var z = value &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
}
