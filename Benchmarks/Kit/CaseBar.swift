// What a case must show.

package struct CaseBar {
    package enum Kind {
        /// Ours against the side, in the same run.
        case ratio(Side)
        /// Ours against a fixed figure.
        case absolute(Double)
    }
    package let metric: Metric
    /// The ratio that is asked for.
    package let least: Double
    package let kind: Kind

    package static func ratio(_ least: Double, _ metric: Metric = .cpuPerOp, against side: Side = .peer) -> CaseBar {
        CaseBar(metric: metric, least: least, kind: .ratio(side))
    }
    package static func atMost(_ value: Double, _ metric: Metric) -> CaseBar {
        CaseBar(metric: metric, least: 1, kind: .absolute(value))
    }

    package static func atLeast(_ value: Double, _ metric: Metric) -> CaseBar {
        CaseBar(metric: metric, least: 1, kind: .absolute(value))
    }
}

package enum Side: String, CaseIterable, Codable, Sendable { case ours, peer, lmdb }
