import CisternFileSystem
import CisternLogNode
import CisternLogProtocol
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct JournalCrashTests {
    private static let ledgers = (1...4).map { LedgerID(UInt64($0)) }

    /// What a node has answered.
    private struct Answered {
        var entries: Set<Pair> = []
        var fenced: Set<LedgerID> = []

        struct Pair: Hashable {
            let ledger: LedgerID
            let entry: Int64
        }
    }

    private func check(_ node: NodeHarness, _ answered: Answered, _ context: String) {
        for pair in answered.entries {
            let answer = node.read(pair.entry, in: pair.ledger)?.answers.first
            if answer != .present(body(pair.entry, in: pair.ledger, count: 60)) {
                Issue.record("\(context): \(pair.ledger):\(pair.entry) is \(String(describing: answer))")
                return
            }
        }
        for ledger in answered.fenced {
            #expect(node.add(10_000, [1], in: ledger) == .some(.fenced), "\(context): \(ledger)")
        }
    }

    /// Random adds and fences, a power cut at a random sync, again and again on the same disk.
    @Test func whatIsAnsweredSurvivesEveryPowerCut() throws {
        for seed in Seeds.seeds(count: 40) {
            Seeds.announce("whatIsAnsweredSurvivesEveryPowerCut", seed)
            var random = SeededRandom(seed: seed)
            let node = NodeHarness(seed: seed)
            node.ledgers.withLock { $0 = Set(JournalCrashTests.ledgers) }
            var answered = Answered()
            var next: [LedgerID: Int64] = [:]
            // The cookie is there before anything can be lost.
            try node.start()
            node.run()
            for round in 0..<6 {
                node.disk.failPower(atSync: node.disk.syncCount + Int.random(in: 1...25, using: &random))
                var sent: [(UInt64, Answered.Pair)] = []
                var fences: [(UInt64, LedgerID)] = []
                for _ in 0..<200 where !node.disk.isDead {
                    let ledger = JournalCrashTests.ledgers.randomElement(using: &random)!
                    if Int.random(in: 0..<60, using: &random) == 0 && !answered.fenced.contains(ledger) {
                        let request = ReadLACRequest(ledger: ledger, fence: true)
                        fences.append((node.send(.readLAC(request)), ledger))
                    } else {
                        let id = next[ledger, default: 0]
                        next[ledger] = id + 1
                        let request = node.addRequest(id, body(id, in: ledger, count: 60), in: ledger)
                        sent.append((node.send(request), Answered.Pair(ledger: ledger, entry: id)))
                    }
                    for _ in 0..<Int.random(in: 0...12, using: &random) { node.scheduler.step() }
                }
                for _ in 0..<Int.random(in: 0...40, using: &random) { node.scheduler.step() }
                for (call, pair) in sent {
                    if case .add(let reply)? = node.client[call], reply.refusal == nil { answered.entries.insert(pair) }
                }
                for (call, ledger) in fences {
                    if case .lac(let reply)? = node.client[call], reply.isFenced { answered.fenced.insert(ledger) }
                }
                node.cutPower()
                try node.start()
                #expect(node.host.damage.isEmpty, "seed \(seed), round \(round): \(node.host.damage)")
                check(node, answered, "seed \(seed), round \(round)")
            }
        }
    }

    /// Flips each byte of a small journal once: nothing wrong is said, and nothing that was stored is called absent.
    @Test func noFlippedByteMakesAWrongAnswer() throws {
        let node = NodeHarness()
        try node.start()
        var count: Int64 = 0
        // Two segments: a sealed one with its index, and the last one.
        while node.status.segments < 2 {
            _ = node.add(count, body(count, count: 900))
            count += 1
        }
        for _ in 0..<2 {
            _ = node.add(count, body(count, count: 900))
            count += 1
        }
        node.run()
        node.kill()
        let files = node.disk.paths.filter { !$0.contains("spare") && !$0.hasSuffix("lock") }
        #expect(files.count == 4, "\(files)")
        var limbos = 0
        for path in files {
            let original = node.disk.contents(path)!
            let used = original.lastIndex { $0 != 0 } ?? 0
            for offset in stride(from: 0, through: used, by: used > 600 ? 7 : 1) {
                var damaged = original
                damaged[offset] ^= UInt8(1 << (offset % 8))
                let copy = node.copy()
                copy.disk.setContents(path, damaged)
                do {
                    try copy.start()
                } catch {
                    #expect(path.hasSuffix("cookie"), "\(path) at \(offset): \(error)")
                    continue
                }
                copy.run()
                if !copy.host.damage.isEmpty { limbos += 1 }
                let reply = copy.read(0, count: Int(count) + 1)
                let answers = reply?.answers ?? []
                for (index, answer) in answers.enumerated() where index < Int(count) {
                    switch answer {
                    case .present(let found):
                        #expect(found == body(Int64(index), count: 900), "\(path) at \(offset): entry \(index)")
                    case .absent: Issue.record("\(path) at \(offset): entry \(index) is called absent")
                    case .unknown: break
                    }
                }
                #expect(answers.count > 0)
                // An entry that was never there is not known to be absent where something is missing.
                if answers.contains(.unknown) && copy.host.damage.isEmpty {
                    #expect(answers.count { $0 == .unknown } == 1, "\(path) at \(offset): only the entry itself")
                }
            }
        }
        #expect(limbos > 10)
    }
}
