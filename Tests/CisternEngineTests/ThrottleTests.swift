import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct ThrottleTests {
    @Test func delayGrowsWithoutCliffs() {
        let options = CompactionOptions()
        let throttle = WriteThrottle(options: options, sealedMemtablesMax: 3)
        var debt = WriteDebt()
        #expect(throttle.delayMilliseconds(debt) == 0)
        for raise in [
            { (debt: inout WriteDebt, share: Double) in
                debt.levelZeroDepth = Int(share * Double(options.levelZeroStop))
            },
            { (debt: inout WriteDebt, share: Double) in debt.memtables = share * 3.5 },
            { (debt: inout WriteDebt, share: Double) in debt.bytes = UInt64(share * Double(options.debtStopBytes)) },
        ] {
            debt = WriteDebt()
            var last: UInt64 = 0
            for step in 0...100 {
                raise(&debt, Double(step) / 100)
                let delay = throttle.delayMilliseconds(debt)
                #expect(delay >= last)
                #expect(delay - last <= options.writeDelayMaxMilliseconds / 5)
                last = delay
            }
            #expect(last == options.writeDelayMaxMilliseconds)
            raise(&debt, 0.2)
            #expect(throttle.delayMilliseconds(debt) == 0)
        }
    }

    @Test func writesOfATreeAreDelayedForItsOwnDebtOnly() throws {
        var options = smallOptions()
        options.compaction.levelZeroTrigger = 2
        options.compaction.levelZeroStop = 12
        let harness = try EngineHarness(options, fileSystem: MemoryFileSystem(), seed: 1)
        let left = TreeIdentity(store: "a", keyGroups: KeyGroupRange(first: 0, last: 63), keyGroupCount: 128)
        let right = TreeIdentity(store: "a", keyGroups: KeyGroupRange(first: 64, last: 127), keyGroupCount: 128)
        let tree = try harness.create(left)
        let other = try harness.create(right)
        // Nothing runs in the background meanwhile: memtables fill up.
        var delays: [UInt64] = []
        for number in 0..<10_000 {
            delays.append(tree.writeDelayMilliseconds)
            let batch = OwnedBatch([put(makeKey(1, "k\(number)"), String(repeating: "v", count: 500))])
            if case .busy(let reason, _) = try harness.write(tree, batch).outcome {
                #expect(reason == .flushBehind)
                break
            }
        }
        #expect(delays.count < 10_000)
        #expect(delays.first == 0 && delays == delays.sorted())
        #expect(try #require(delays.last) > 900)
        #expect(tree.statistics.writeDelayMilliseconds > 900)
        #expect(other.writeDelayMilliseconds == 0)
        harness.scheduler.runUntilIdle()
        #expect(tree.writeDelayMilliseconds == 0)
        #expect(tree.statistics.debtBytes == 0)
        harness.engine.close()
    }

    @Test func optionsThatContradictEachOtherAreRefusedWithTheRule() {
        let broken: [(String, (inout EngineOptions) -> Void)] = [
            ("before a compaction starts", { $0.compaction.levelZeroStop = $0.compaction.levelZeroTrigger }),
            ("without warning", { $0.compaction.debtStopBytes = $0.compaction.debtSlowBytes }),
            ("each part ends a file", { $0.compaction.partBytes = $0.compaction.targetFileBytes - 1 }),
            ("retryFirstMilliseconds", { $0.retryLastMilliseconds = $0.retryFirstMilliseconds - 1 }),
            ("backgroundBytesPerSecond", { $0.backgroundBytesPerSecond = 1000 }),
            ("upperRunsMax", { $0.compaction.upperRunsMax = 6 }),
        ]
        for (sentence, change) in broken {
            var options = EngineOptions(directory: "/data")
            change(&options)
            do throws(EngineError) {
                try options.validate()
                Issue.record("accepted: \(sentence)")
            } catch {
                #expect("\(error)".contains(sentence))
            }
        }
    }
}

@Suite struct BackgroundRateTests {
    private static let rate: UInt64 = 10 << 20

    @Test func writersBelowLevelZeroWaitForWhatAllHaveWritten() {
        let time = ManualTime(wallMilliseconds: 1000)
        let rate = BackgroundRate(bytesPerSecond: BackgroundRateTests.rate, time: time)
        // The burst.
        #expect(rate.charge(1 << 20, .deep) == 0)
        #expect(rate.charge(5 << 20, nil) == 0)
        #expect(rate.charge(5 << 20, .levelZero) == 0)
        #expect(rate.charge(0, .deep) > 0)
        time.advance(milliseconds: 900)
        #expect(rate.charge(0, .cleanup) > 0)
        #expect(rate.charge(0, .levelZero) == 0)
        time.advance(milliseconds: 99)
        rate.noteBatch()
        #expect(rate.charge(0, .cleanup) > 0)
        time.advance(milliseconds: 2)
        #expect(rate.charge(0, .cleanup) == 0)
    }

    @Test func overTimeTheRateIsKept() {
        let time = ManualTime(wallMilliseconds: 1000)
        let rate = BackgroundRate(bytesPerSecond: BackgroundRateTests.rate, time: time)
        var written: UInt64 = 0
        let end = time.monotonicNanoseconds + 10_000_000_000
        while time.monotonicNanoseconds < end {
            rate.noteBatch()
            var wait = rate.charge(100_000, .deep)
            written += 100_000
            while wait > 0 {
                #expect(wait <= 50_000_001)
                time.advance(milliseconds: max(wait / 1_000_000, 1))
                rate.noteBatch()
                wait = rate.charge(0, .deep)
            }
        }
        #expect(abs(Double(written) / Double(10 * BackgroundRateTests.rate) - 1) < 0.05)
    }

    @Test func nobodyWaitsWhileNobodyWrites() {
        let time = ManualTime(wallMilliseconds: 1000)
        let rate = BackgroundRate(bytesPerSecond: BackgroundRateTests.rate, time: time)
        _ = rate.charge(100 << 20, .deep)
        #expect(rate.charge(0, .deep) > 0)
        time.advance(milliseconds: 1000)
        #expect(rate.charge(100 << 20, .deep) == 0)
        rate.noteBatch()
        #expect(rate.charge(100 << 20, .deep) > 0)
        let unlimited = BackgroundRate(bytesPerSecond: 0, time: time)
        #expect(unlimited.charge(.max, .deep) == 0)
    }
}

@Suite struct CompactionPoolTests {
    @Test func levelZeroAlwaysHasAThread() {
        let scheduler = SteppedScheduler(seed: 1)
        let pool = CompactionPool(lanes: [scheduler.makeLane(), scheduler.makeLane()])
        let order = Guarded<[String]>([])
        let record = { @Sendable (name: String) in order.withLock { $0.append(name) } }
        pool.submit(.deep) {
            // While it runs, everything else that may run does.
            scheduler.runUntilIdle()
            record("deep 1")
        }
        pool.submit(.deep) { record("deep 2") }
        pool.submit(.levelZero) { record("level 0") }
        pool.submit(.levelZero) { record("level 0 too") }
        scheduler.runUntilIdle()
        #expect(order.withLock { $0 } == ["level 0", "level 0 too", "deep 1", "deep 2"])
    }

    @Test func oneThreadDoesEverythingByPriority() {
        let scheduler = SteppedScheduler(seed: 1)
        let pool = CompactionPool(lanes: [scheduler.makeLane()])
        let order = Guarded<[Int]>([])
        for priority in [CompactionPriority.cleanup, .cleanup, .deep, .levelZero] {
            pool.submit(priority) { order.withLock { $0.append(priority.rawValue) } }
        }
        scheduler.runUntilIdle()
        #expect(order.withLock { $0 } == [2, 0, 1, 2])
        pool.stop()
        pool.submit(.levelZero) { order.withLock { $0.append(9) } }
        scheduler.runUntilIdle()
        #expect(order.withLock { $0.count } == 4)
    }
}
