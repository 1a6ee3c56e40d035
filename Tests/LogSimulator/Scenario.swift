// What one seed plays: sizes, how long, and how often each kind of fault strikes.

import CisternLogProtocol
import CisternPrimitives

package struct Scenario: Sendable, CustomStringConvertible {
    package var sizes: QuorumSizes
    package var nodes: Int
    /// Attempts of the job that take the log over one after the other; earlier ones may still run.
    package var attempts: Int
    package var entriesPerAttempt: Int
    /// Entries after which an attempt rolls to a new ledger.
    package var entriesPerLedger: Int
    /// Ticks until all faults end and the run must come to rest.
    package var duration: Int
    package var faults: Faults

    /// Chances in 1,000.
    package struct Faults: Sendable {
        package var drop = 0
        package var duplicate = 0
        /// A message that takes long.
        package var slow = 0
        package var metadataLoss = 0
        package var readError = 0
        /// Of a crash: that the node loses something that was durable.
        package var damage = 0
        /// Of a crash with damage: that the node never comes back.
        package var death = 0
        /// Ticks between two crashes of nodes, on average; 0: none.
        package var crashEvery = 0
        /// Ticks between two times that entries rot on a node, on average; 0: none.
        package var rotEvery = 0
        /// Ticks between two cuts of the network, on average; 0: none.
        package var cutEvery = 0
        /// Ticks between two stops (SIGSTOP) of a client, on average; 0: none.
        package var stopEvery = 0
        /// Ticks between two recoveries that nobody needed, on average; 0: none.
        package var recoverEvery = 0
        /// Ticks between two trims of the log, on average; 0: none.
        package var trimEvery = 0
        /// Ticks between two delete hints for ledgers that exist, on average; 0: none.
        package var hintEvery = 0
    }

    package init(random: inout SeededRandom) {
        let shapes = [
            (3, 3, 2), (3, 3, 2), (3, 3, 2), (4, 3, 2), (5, 3, 2), (3, 2, 2), (2, 2, 1), (5, 5, 3), (3, 3, 3),
            (1, 1, 1),
        ]
        let shape = shapes[Int.random(in: 0..<shapes.count, using: &random)]
        sizes = QuorumSizes(ensemble: shape.0, write: shape.1, ack: shape.2)
        nodes = shape.0 + Int.random(in: 0...2, using: &random)
        attempts = Int.random(in: 1...3, using: &random)
        entriesPerAttempt = Int.random(in: 2...14, using: &random)
        entriesPerLedger = Bool.random(using: &random) ? 1000 : Int.random(in: 2...6, using: &random)
        duration = Int.random(in: 150...700, using: &random)
        var faults = Faults()
        // One kind of fault is often enough; all of them at once hide each other.
        func sometimes(_ range: ClosedRange<Int>) -> Int {
            Int.random(in: 0..<3, using: &random) == 0 ? 0 : Int.random(in: range, using: &random)
        }
        faults.drop = sometimes(1...60)
        faults.duplicate = sometimes(1...60)
        faults.slow = sometimes(10...150)
        faults.metadataLoss = sometimes(10...150)
        faults.readError = sometimes(10...150)
        faults.damage = sometimes(200...900)
        faults.death = sometimes(50...300)
        faults.crashEvery = sometimes(25...200)
        faults.rotEvery = sometimes(60...300)
        faults.cutEvery = sometimes(30...200)
        faults.stopEvery = sometimes(40...200)
        faults.recoverEvery = sometimes(20...150)
        faults.trimEvery = sometimes(50...200)
        faults.hintEvery = sometimes(50...200)
        self.faults = faults
    }

    package var description: String {
        "\(sizes) on \(nodes) nodes, \(attempts) attempts of \(entriesPerAttempt) entries, \(entriesPerLedger) a ledger, "
            + "\(duration) ticks, \(faults)"
    }
}
