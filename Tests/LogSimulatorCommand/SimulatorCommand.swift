// `cistern-simulator`: plays seeds of the changelog service's simulation.

import ArgumentParser
import CisternLogProtocol
import LogSimulator

@main
struct SimulatorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cistern-simulator",
        abstract: "Plays the log's protocol under faults from a seed and checks every rule of safety.",
        discussion: "A seed that breaks a rule is played again with its trace by --seed N --trace.")

    @Option(help: "The first seed.")
    var seed: UInt64 = 1

    @Option(help: "How many seeds from there on.")
    var count: UInt64 = 1

    @Option(help: "Break one rule of the protocol; `list` names them. The simulation should find it.")
    var mutant: String?

    @Flag(help: "Print what happens, line by line.")
    var trace = false

    @Flag(help: "Go on after a seed that breaks a rule.")
    var all = false

    func run() throws {
        if mutant == "list" {
            for rule in ProtocolRules.Rule.allCases { print("\(rule)") }
            return
        }
        var rules = ProtocolRules.standard
        if let mutant {
            guard let rule = ProtocolRules.Rule.allCases.first(where: { "\($0)" == mutant }) else {
                throw ValidationError("no rule is called '\(mutant)'; --mutant list names them")
            }
            rules = ProtocolRules(breaking: rule)
        }
        let clock = ContinuousClock()
        let start = clock.now
        var steps = 0
        var found = 0
        for number in seed..<seed + max(1, count) {
            let outcome = LogSimulation.play(seed: number, rules: rules, isTraced: trace)
            steps += outcome.steps
            if trace {
                print(outcome.scenario)
                for line in outcome.trace { print(line) }
            }
            if let violation = outcome.violation {
                print("seed \(number): \(violation)")
                found += 1
                if !all { throw ExitCode.failure }
            }
        }
        let sum = "\(max(1, count)) seeds, \(steps) steps, \(clock.now - start)"
        print(found == 0 ? "\(sum): every rule held" : "\(sum): \(found) seeds break a rule")
        if found > 0 { throw ExitCode.failure }
    }
}
