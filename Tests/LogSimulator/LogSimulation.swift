// The front door: plays seeds and says what was found.

import CisternLogProtocol

/// Plays the production state machines of the log under a seeded scheduler, network, disks and metadata store.
package enum LogSimulation {
    package struct Outcome: Sendable {
        package let seed: UInt64
        package let scenario: Scenario
        /// nil: every rule held.
        package let violation: Violation?
        package let steps: Int
        /// What happened, line by line; empty when the run was not traced.
        package let trace: [String]
    }

    /// Plays one seed. The same seed and rules give the same outcome. A few milliseconds.
    package static func play(
        seed: UInt64, rules: ProtocolRules = .standard, isTraced: Bool = false
    ) -> Outcome {
        let world = World(seed: seed, rules: rules, isTraced: isTraced)
        world.run()
        return Outcome(
            seed: seed, scenario: world.scenario, violation: world.oracle.violation, steps: world.scheduler.steps,
            trace: world.lines)
    }

    /// The first of `seeds` that breaks a rule; nil when none does.
    package static func hunt(_ seeds: ClosedRange<UInt64>, rules: ProtocolRules = .standard) -> Outcome? {
        for seed in seeds {
            let outcome = play(seed: seed, rules: rules)
            if outcome.violation != nil { return outcome }
        }
        return nil
    }
}
