// Ranks by Zipf's law, by the rejection-free approximation of Gray et al., "Quickly generating billion-record synthetic
// databases" (SIGMOD 1994).

import CisternPrimitives
import Glibc

package struct Zipf {
    private let count: Double
    private let theta: Double
    private let alpha: Double
    private let zeta: Double
    private let eta: Double
    private var random: SeededRandom

    package init(count: Int, theta: Double, seed: UInt64) {
        self.count = Double(count)
        self.theta = theta
        var sum = 0.0
        for rank in 1...count { sum += pow(Double(rank), -theta) }
        zeta = sum
        alpha = 1 / (1 - theta)
        eta = (1 - pow(2 / Double(count), 1 - theta)) / (1 - (1 + pow(2, -theta)) / sum)
        random = SeededRandom(seed: seed)
    }

    package mutating func next() -> UInt64 {
        let u = Double(random.next() >> 11) / Double(1 << 53)
        let scaled = u * zeta
        if scaled < 1 { return 0 }
        if scaled < 1 + pow(2, -theta) { return 1 }
        return UInt64(min(count - 1, count * pow(eta * u - eta + 1, alpha)))
    }
}
