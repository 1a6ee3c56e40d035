// Measurements of all sides and repeats, as JSON lines: medians, and every value beside them.

import Foundation

/// One line: a metric of a case. `ratio` above 1 means that ours is better.
package struct ResultLine: Codable {
    package let suite: String
    package let caseName: String
    package let metric: String
    package let unit: String
    package let ours: Double
    package let peer: Double?
    package let peerName: String
    package let ratio: Double?
    package let load: Double
    /// What the ratio must at least be, on the metric that the case is judged by.
    package let bar: Double?
    package let oursAll: [Double]
    package let peerAll: [Double]

    package enum CodingKeys: String, CodingKey {
        case suite, metric, unit, ours, peer, ratio, load, bar
        case caseName = "case"
        case peerName = "peer_name"
        case oursAll = "ours_all"
        case peerAll = "peer_all"
    }

    package static func read(_ path: String) throws -> [ResultLine] {
        let decoder = JSONDecoder()
        return try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map {
            try decoder.decode(ResultLine.self, from: Data($0.utf8))
        }
    }

    package static func write(_ lines: [ResultLine], to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let text = try lines.map { String(decoding: try encoder.encode($0), as: UTF8.self) + "\n" }.joined()
        try text.write(toFile: path, atomically: true, encoding: .utf8)
    }
}

package struct Results {
    private let suite: String
    private let peerNames: [Side: String]
    private let bars: [String: CaseBar]
    /// Cases whose ours is another case's: the same operations, beside another peer.
    private let oursFrom: [String: String]
    /// Of a suite whose cases have peers of their own.
    private let peerNamesByCase: [String: String]
    private var order: [String] = []
    private var measured: [String: [Side: [CaseMeasurement]]] = [:]

    package init(
        suite: String, peerNames: [Side: String], bars: [String: CaseBar], oursFrom: [String: String] = [:],
        peerNamesByCase: [String: String] = [:]
    ) {
        self.suite = suite
        self.peerNames = peerNames
        self.bars = bars
        self.oursFrom = oursFrom
        self.peerNamesByCase = peerNamesByCase
    }

    package mutating func add(_ measurement: CaseMeasurement, _ side: Side) {
        if measured[measurement.name] == nil { order.append(measurement.name) }
        measured[measurement.name, default: [:]][side, default: []].append(measurement)
    }

    package func lines() -> [ResultLine] {
        let load = loadAverage()
        return order.flatMap { name in Metric.allCases.compactMap { line(name, $0, load) } }
    }

    private func line(_ name: String, _ metric: Metric, _ load: Double) -> ResultLine? {
        let ours = values(oursFrom[name] ?? name, .ours, metric)
        guard !ours.isEmpty else { return nil }
        let bar = bars[name].flatMap { $0.metric == metric ? $0 : nil }
        let peerSide = oursFrom[name] == nil ? Side.peer : .lmdb
        var theirs = values(name, peerSide, metric)
        var peerName = theirs.isEmpty ? "" : peerNamesByCase[name] ?? peerNames[peerSide] ?? ""
        if case .absolute(let most)? = bar?.kind {
            theirs = [most]
            peerName = "at \(metric.isHigherBetter ? "least" : "most") \(most) \(metric.unit)"
        }
        // A case of another peer says nothing about itself where that peer has not run.
        if theirs.isEmpty && peerSide == .lmdb { return nil }
        let peer = theirs.isEmpty ? nil : median(theirs)
        return ResultLine(
            suite: suite, caseName: name, metric: metric.rawValue, unit: metric.unit, ours: median(ours),
            peer: peer, peerName: peerName, ratio: peer.flatMap { metric.ratio(ours: median(ours), peer: $0) },
            load: load,
            bar: bar?.least, oursAll: ours, peerAll: theirs)
    }

    private func values(_ name: String, _ side: Side, _ metric: Metric) -> [Double] {
        (measured[name]?[side] ?? []).compactMap { $0[metric] }
    }

    private func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}
