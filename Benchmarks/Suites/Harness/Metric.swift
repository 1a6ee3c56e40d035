// What a case is measured by. Raw values are the JSON's `metric`.

enum Metric: String, CaseIterable, Sendable {
    case cpuPerOp = "cpu_per_op"
    case wallPerOp = "wall_per_op"
    case throughputPerCore = "mb_per_s_core"
    case throughput = "mb_per_s"
    case cpuPerGigabyte = "cpu_s_per_gb"
    case p50 = "p50"
    case p99 = "p99"
    case getP99 = "get_p99"
    case putP99 = "put_p99"
    case longest = "longest"
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

    var unit: String {
        switch self {
        case .cpuPerOp, .wallPerOp, .fillCPU, .getCPU, .rmwCPU, .compactionCPU, .compressTime, .decompressTime: "ns"
        case .throughputPerCore, .throughput: "MB/s"
        case .cpuPerGigabyte: "s/GB"
        case .p50, .p99, .getP99, .putP99, .longest: "us"
        case .openTime, .openTimeSmall: "ms"
        case .ledgerGap, .writeAmplification, .spaceAmplification: "x"
        case .valueBytes, .diskBytes, .peakRSS, .bytesWritten: "bytes"
        case .cpuSeconds: "s"
        case .runs: "runs"
        }
    }

    var isHigherBetter: Bool { self == .throughputPerCore || self == .throughput }

    /// What only the JSON has: too much for a table.
    var isSecondary: Bool { self == .cpuSeconds || self == .peakRSS || self == .bytesWritten }

    /// Above 1: ours is better.
    func ratio(ours: Double, peer: Double) -> Double? {
        let (above, below) = isHigherBetter ? (ours, peer) : (peer, ours)
        return below > 0 ? above / below : nil
    }
}

/// One case of one side, measured once.
struct Measurement: Codable, Sendable {
    let name: String
    var values: [String: Double]

    init(_ name: String, _ values: [Metric: Double]) {
        self.name = name
        self.values = Dictionary(uniqueKeysWithValues: values.map { ($0.key.rawValue, $0.value) })
    }

    subscript(metric: Metric) -> Double? { values[metric.rawValue] }
}
