import CisternLogProtocol
import CisternTestKit
import LogSimulator
import Testing

@Suite struct LogSimulationTests {
    /// More behind `make soak`, and any from any seed by `cistern-simulator --seed N --count M`.
    @Test func everyRuleHoldsWhateverHappens() {
        for seed in Seeds.seeds(count: 3000) {
            guard let violation = LogSimulation.play(seed: seed).violation else { continue }
            Issue.record("seed \(seed) (cistern-simulator --seed \(seed) --trace): \(violation)")
            return
        }
    }

    /// A simulation that finds nothing proves nothing unless it finds what is there.
    @Test(arguments: ProtocolRules.Rule.allCases) func aBrokenRuleIsFound(rule: ProtocolRules.Rule) {
        let found = LogSimulation.hunt(1...bound(of: rule), rules: ProtocolRules(breaking: rule))
        #expect(found != nil, "\(rule) is broken and \(bound(of: rule)) seeds do not show it")
        if let found, let violation = found.violation { print("\(rule): seed \(found.seed), \(violation.rule)") }
    }

    /// Seeds within which a mutant must be found: some five times what it takes.
    private func bound(of rule: ProtocolRules.Rule) -> UInt64 {
        switch rule {
        // Two nodes without the entry, a third that is slow, and a recovery whose second batch comes after the loss of a node.
        case .recoveryReadsOriginalEnsemble: 20_000
        default: 5_000
        }
    }

    @Test func aSeedPlaysTheSameRunAgain() {
        for seed in Seeds.seeds(count: 20) {
            let first = LogSimulation.play(seed: seed, isTraced: true)
            let second = LogSimulation.play(seed: seed, isTraced: true)
            #expect(first.trace == second.trace)
            #expect(first.steps == second.steps)
        }
    }

    @Test func runsGetFarEnoughToMeanSomething() {
        var closed = 0
        var recoveries = 0
        var limbos = 0
        var repairs = 0
        for seed in UInt64(1)...200 {
            let trace = LogSimulation.play(seed: seed, isTraced: true).trace
            closed += trace.count { $0.contains("closed L") }
            recoveries += trace.count { $0.contains("closed at") }
            limbos += trace.count { $0.contains("in limbo") }
            repairs += trace.count { $0.contains("is whole again") }
        }
        #expect(
            closed > 50 && recoveries > 200 && limbos > 50 && repairs > 50,
            "\(closed) \(recoveries) \(limbos) \(repairs)")
    }
}
