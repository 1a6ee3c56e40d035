// What a case is measured by. Raw values are the JSON's `metric`.

package enum Metric: String, CaseIterable, Sendable {
    case cpuPerOp = "cpu_per_op"
    case wallPerOp = "wall_per_op"
    case throughputPerCore = "mb_per_s_core"
    case throughput = "mb_per_s"
    case cpuPerGigabyte = "cpu_s_per_gb"
    case operationsPerSecond = "ops_per_s"
    case serverCPU = "server_cpu_per_op"
    case clientCPU = "client_cpu_per_op"
    case operationsPerRequest = "ops_per_request"
    case absentRequests = "absent_requests"
    case wireBytes = "wire_bytes_per_op"
    case valueShare = "value_bytes_to_raw"
    case p50 = "p50"
    case p99 = "p99"
    case getP99 = "get_p99"
    case putP99 = "put_p99"
    case p99Small = "p99_small"
    case longest = "longest"
    case largeToSmall = "large_to_small"
    case memoryToBudget = "rss_to_budget"
    case openTime = "open_time"
    case openTimeSmall = "open_time_small"
    case ledgerGap = "rss_to_ledger"
    case writeAmplification = "write_amplification"
    case spaceAmplification = "space_amplification"
    case fillCPU = "fill_cpu_per_op"
    case getCPU = "get_cpu_per_op"
    case rmwCPU = "rmw_cpu_per_op"
    case compactionCPU = "compaction_cpu_per_op"
    case compressTime = "compress_time"
    case decompressTime = "decompress_time"
    case valueBytes = "value_bytes"
    case diskBytes = "disk_bytes"
    /// Sorted runs that a read may have to look into when the case begins.
    case runs = "runs"
    case cpuSeconds = "cpu_seconds"
    case peakRSS = "peak_rss"
    case bytesWritten = "bytes_written"

    package var unit: String {
        switch self {
        case .cpuPerOp, .wallPerOp, .serverCPU, .clientCPU, .fillCPU, .getCPU, .rmwCPU, .compactionCPU, .compressTime,
            .decompressTime:
            "ns"
        case .throughputPerCore, .throughput: "MB/s"
        case .operationsPerSecond: "1/s"
        case .operationsPerRequest: "ops"
        case .absentRequests: "requests"
        case .cpuPerGigabyte: "s/GB"
        case .p50, .p99, .p99Small, .getP99, .putP99, .longest: "us"
        case .openTime, .openTimeSmall: "ms"
        case .ledgerGap, .largeToSmall, .memoryToBudget, .valueShare, .writeAmplification, .spaceAmplification: "x"
        case .valueBytes, .wireBytes, .diskBytes, .peakRSS, .bytesWritten: "bytes"
        case .cpuSeconds: "s"
        case .runs: "runs"
        }
    }

    package var isHigherBetter: Bool {
        switch self {
        case .throughputPerCore, .throughput, .operationsPerSecond, .operationsPerRequest: true
        default: false
        }
    }

    /// What only the JSON has: too much for a table.
    package var isSecondary: Bool { self == .cpuSeconds || self == .peakRSS || self == .bytesWritten }

    /// Above 1: ours is better.
    package func ratio(ours: Double, peer: Double) -> Double? {
        let (above, below) = isHigherBetter ? (ours, peer) : (peer, ours)
        return below > 0 ? above / below : nil
    }
}

/// One case of one side, measured once.
package struct CaseMeasurement: Codable, Sendable {
    package let name: String
    package var values: [String: Double]

    package init(_ name: String, _ values: [Metric: Double]) {
        self.name = name
        self.values = Dictionary(uniqueKeysWithValues: values.map { ($0.key.rawValue, $0.value) })
    }

    package subscript(metric: Metric) -> Double? { values[metric.rawValue] }
}
