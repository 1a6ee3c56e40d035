// Seeds of random tests: printed, repeatable with CISTERN_SEED, more of them with CISTERN_SEEDS.

import Glibc

package enum Seeds {
    /// The seeds a random test runs with: `CISTERN_SEED` alone when it is set, else `count` from `first` on, or as many as
    /// `CISTERN_SEEDS` says.
    package static func seeds(from first: UInt64 = 1, count: Int) -> [UInt64] {
        if let text = environment("CISTERN_SEED"), let seed = UInt64(text) { return [seed] }
        let wanted = environment("CISTERN_SEEDS").flatMap { Int($0) } ?? count
        return (0..<UInt64(max(1, wanted))).map { first + $0 }
    }

    /// Prints the seed, so that a failure, even a crash, can be repeated.
    package static func announce(_ test: String, _ seed: UInt64) {
        print("\(test): CISTERN_SEED=\(seed)")
        fflush(nil)
    }

    private static func environment(_ name: String) -> String? {
        guard let value = getenv(name) else { return nil }
        return String(cString: value)
    }
}
