import CisternClient
import CisternPrimitives
import Synchronization
import Testing

func user(_ number: Int) -> [UInt8] { Array("user-\(number)".utf8) }

@Suite struct SessionTests {
    @Test func theWorkerReadsItsOwnWritesBeforeAndAfterTheyAreSent() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server)
        let counts = try await session.valueState("counts", .int64)
        let tags = try await session.listState("tags", .string)
        for round in 0..<5 {
            for number in 0..<40 {
                try session.setCurrentKey(user(number))
                #expect(try await counts.value() == (round == 0 ? nil : Int64(number * 100 + round - 1)))
                try await counts.update(Int64(number * 100 + round))
                #expect(try await counts.value() == Int64(number * 100 + round))
                try await tags.add("r\(round)")
                #expect(try await tags.get() == (0...round).map { "r\($0)" })
            }
        }
        try await session.flush()
        #expect(server.violations == [])
        #expect(server.entryCount == 80)
        let metrics = session.metrics
        #expect(metrics.writeOperations == 400)
        #expect(metrics.writeRPCs < 80)
    }

    @Test func readingAbsentKeysCostsNoRequestOnceTheIndexIsLoaded() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server)
        let seen = try await session.valueState("seen", .int64)
        for number in 0..<200 {
            try session.setCurrentKey(user(number))
            #expect(try await seen.value() == nil)
            if number % 3 == 0 { try await seen.update(1) }
        }
        try await session.flush()
        for number in 0..<200 {
            try session.setCurrentKey(user(number))
            #expect(try await seen.value() == (number % 3 == 0 ? 1 : nil))
        }
        let metrics = session.metrics
        #expect(metrics.absentReads == 200 + 133)
        #expect(metrics.absentReadRPCs == 0)
        #expect(metrics.keyIndexKeys == 67)
    }

    @Test func withoutAnIndexAnAbsenceIsAskedForOnce() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server) { $0.keyIndex = .off }
        let seen = try await session.valueState("seen", .int64)
        try session.setCurrentKey(user(1))
        for _ in 0..<10 { #expect(try await seen.value() == nil) }
        #expect(server.multiGets == 1)
        #expect(session.metrics.cacheHits == 9)
    }

    @Test func verifyModeAsksAllTheSameAndFindsNoDisagreement() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server) { $0.keyIndex = .verify }
        let seen = try await session.valueState("seen", .int64)
        for number in 0..<300 {
            try session.setCurrentKey(user(number % 120))
            if try await seen.value() == nil {
                try await seen.update(1)
            } else if number % 5 == 0 {
                try await seen.clear()
            }
        }
        #expect(session.metrics.verifyChecks > 100)
        #expect(session.metrics.verifyDisagreements == 0)
    }

    @Test func verifyModeNoticesAServerThatHasAKeyTheIndexDoesNotKnow() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server) { $0.keyIndex = .verify }
        let seen = try await session.valueState("seen", .int64)
        try session.setCurrentKey(user(1))
        try await seen.update(5)
        try await session.flush()
        // Somebody puts a copy of the entry under the key of another user behind the session's back.
        server.state.withLock { state in
            let (key, stored) = state.entries.first!
            var other = key
            other[1] = UInt8(KeyGroup.group(ofKey: user(2), count: 8))
            other[other.count - 2] = UInt8(ascii: "2")
            state.entries[other] = stored
        }
        try session.setCurrentKey(user(2))
        #expect(try await seen.value() == 5)
        #expect(session.metrics.verifyDisagreements == 1)
    }

    @Test func aKnownValueIsReadWithoutWaiting() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server)
        let state = try await session.valueState("state", .string)
        try session.setCurrentKey(user(1))
        guard case .absent = try state.valueIfKnown() else {
            return #expect(Bool(false), "the index knows it is absent")
        }
        try await state.update("x")
        guard case .present("x") = try state.valueIfKnown() else { return #expect(Bool(false), "the buffer knows it") }
        try await session.flush()
        guard case .present("x") = try state.valueIfKnown() else { return #expect(Bool(false), "the cache knows it") }
        #expect(server.multiGets == 0)
    }

    @Test func additionsUnderEveryFaultAreAppliedExactlyOnce() async throws {
        for seed in UInt64(1)...12 {
            let server = ModelServer(time: ManualTime(), seed: seed)
            server.set(.many)
            let session = try await attach(server) { $0.valueCacheBytes = 0 }
            let list = try await session.listState("list", .int64)
            let sum = try await session.reducingState("sum", .int64) { $0 + $1 }
            for number in 0..<400 {
                try session.setCurrentKey(user(number % 7))
                try await list.add(Int64(number))
                try await sum.add(1)
            }
            try await session.flush()
            server.set(.none)
            for number in 0..<7 {
                try session.setCurrentKey(user(number))
                #expect(try await list.get() == (0..<400).filter { $0 % 7 == number }.map { Int64($0) })
                #expect(try await sum.get() == Int64((0..<400).filter { $0 % 7 == number }.count))
            }
            #expect(server.violations == [])
            #expect(session.metrics.batchesResent > 0)
        }
    }

    @Test func aFencedSessionStopsAndSaysWhoOwnsItsKeys() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server, epoch: 4)
        let state = try await session.valueState("state", .int64)
        try session.setCurrentKey(user(1))
        try await state.update(1)
        server.fence()
        let error = await #expect(throws: ClientError.self) { try await session.flush() }
        #expect(error?.code == .fenced && error?.advice == .stop && error?.currentEpoch == 1004)
        await #expect(throws: ClientError.self) { try await state.update(2) }
        await #expect(throws: ClientError.self) { _ = try await state.value() }
    }

    @Test func lostAcknowledgedWritesAreAnErrorThatAsksForARestore() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server)
        let state = try await session.valueState("state", .int64)
        try session.setCurrentKey(user(1))
        try await state.update(1)
        try await session.flush()
        server.forgetBatches()
        try await state.update(2)
        // The next batch skips a number for the server that forgot.
        let error = await #expect(throws: ClientError.self) { try await session.flush() }
        #expect(error?.code == .acknowledgedWritesLost && error?.advice == .restoreFromCheckpoint)
    }

    @Test func aServerThatStaysBusyIsAnErrorAfterTheDeadlineAndNothingIsLost() async throws {
        let time = ManualTime()
        let server = ModelServer(time: time)
        let session = try await attach(server, environment: time.environmentWithPauses) {
            $0.retryForMilliseconds = 5000
            $0.keyIndex = .off
        }
        let state = try await session.valueState("state", .int64)
        try session.setCurrentKey(user(1))
        try await state.update(1)
        server.set(Faults(busy: 1000))
        let error = await #expect(throws: ClientError.self) { try await session.flush() }
        #expect(error?.code == .unavailable && error?.advice == .retry)
        server.set(.none)
        #expect(try await state.value() == 1)
        try await session.flush()
        #expect(server.entryCount == 1)
    }

    @Test func aServerThatIsGoneIsAnErrorThatNamesTheEndpoint() async throws {
        let time = ManualTime()
        let server = ModelServer(time: time)
        server.set(Faults(attachFails: 1000))
        let error = await #expect(throws: ClientError.self) {
            _ = try await attach(server, environment: time.environmentWithPauses)
        }
        #expect(error?.code == .unreachable)
        #expect(error?.message.contains("model") == true)
    }

    @Test func aSessionOfAnEpochThatWasUsedIsRefused() async throws {
        let server = ModelServer(time: ManualTime())
        let first = try await attach(server, epoch: 3)
        let state = try await first.valueState("state", .int64)
        try first.setCurrentKey(user(1))
        try await state.update(1)
        try await first.flush()
        first.abandon()
        let error = await #expect(throws: ClientError.self) { _ = try await attach(server, epoch: 3) }
        #expect(error?.advice == .attachAgain)
        _ = try await attach(server, epoch: 4)
    }

    @Test func wrongUseIsRefusedWithAReason() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server, keyGroups: KeyGroupRange(first: 0, last: 0))
        let state = try await session.valueState("state", .string)
        await #expect(throws: ClientError.self) { try await state.update("no key yet") }
        let foreign = (0..<100).map { user($0) }.first { KeyGroup.group(ofKey: $0, count: 8) != 0 }!
        let own = (0..<100).map { user($0) }.first { KeyGroup.group(ofKey: $0, count: 8) == 0 }!
        #expect(throws: ClientError.self) { try session.setCurrentKey(foreign) }
        try session.setCurrentKey(own)
        await #expect(throws: ClientError.self) { _ = try await session.listState("state", .string) }
        await #expect(throws: ClientError.self) {
            _ = try await session.valueState("other", .string, StateOptions(dictionary: .trained(bytes: 8192)))
        }
        let tooLarge = await #expect(throws: ClientError.self) {
            try await state.update(String(repeating: "x", count: ClientLimits.valueBytesMax + 1))
        }
        #expect(tooLarge?.code == .limitExceeded)
        var configuration = ClientConfiguration(endpoint: "x")
        configuration.writeBufferBytes = ClientLimits.writeBufferBytesMax + 1
        #expect(throws: ClientError.self) { try configuration.validate() }
        try await session.detach()
        let closed = await #expect(throws: ClientError.self) { try await state.update("late") }
        #expect(closed?.code == .closed)
    }

    @Test func theBufferIsSentByAgeAndTheWriterWaitsForRoom() async throws {
        let time = ManualTime()
        let server = ModelServer(time: time)
        let session = try await attach(server) {
            $0.writeBufferBytes = 100_000; $0.writeBufferEntries = 1000
        }
        let state = try await session.valueState("state", .int64)
        try session.setCurrentKey(user(1))
        try await state.update(1)
        #expect(session.metrics.writeRPCs == 0)
        time.advance(milliseconds: 99)
        session.advanceWatermark(to: 1)
        #expect(session.metrics.writeRPCs == 0)
        time.advance(milliseconds: 1)
        session.advanceWatermark(to: 2)
        #expect(session.metrics.writeRPCs == 1)
    }

    @Test func anIndexThatOutgrowsItsBudgetIsGivenUpAndReadsStayRight() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server) { $0.keyIndexBytesMax = 100_000 }
        let state = try await session.valueState("state", .int64)
        for number in 0..<10_000 {
            try session.setCurrentKey(user(number))
            try await state.update(Int64(number))
        }
        #expect(session.metrics.keyIndexDropped)
        try session.setCurrentKey(user(10))
        #expect(try await state.value() == 10)
        try session.setCurrentKey(user(20_000))
        #expect(try await state.value() == nil)
    }

    @Test func namespacesAreApart() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server)
        let state = try await session.valueState("state", .int64)
        try session.setCurrentKey(user(1))
        for window in 0..<20 {
            session.namespace = Array("w\(window)".utf8)
            try await state.update(Int64(window))
        }
        for window in 0..<20 {
            session.namespace = Array("w\(window)".utf8)
            #expect(try await state.value() == Int64(window))
        }
        var seen: [String: Int64] = [:]
        try await session.forEach(state) { _, namespace, value in
            seen[String(decoding: namespace, as: UTF8.self)] = value
        }
        #expect(seen.count == 20 && seen["w7"] == 7)
    }

    @Test func mapEntriesMayBeRemovedWhileTheyAreRead() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server)
        let map = try await session.mapState("map", .string, .int64)
        try session.setCurrentKey(user(1))
        for number in 0..<60 { try await map.put("k\(100 + number)", Int64(number)) }
        let pages = try map.entries(pageSize: 5)
        var seen: [Int64] = []
        while let page = try await pages.next() {
            for entry in page {
                seen.append(entry.value)
                if entry.value % 2 == 0 { try await map.remove(entry.key) }
            }
        }
        #expect(seen == (0..<60).map { Int64($0) })
        #expect(try await map.get("k101") == 1)
        #expect(try await map.contains("k102") == false)
        #expect(try await map.isEmpty() == false)
        try await map.clear()
        #expect(try await map.isEmpty())
        try await session.flush()
        #expect(server.entryCount == 0)
    }
}

@Suite struct TimerTests {
    @Test func timersFireOnceInTimeOrderAlsoAfterARestore() async throws {
        var random = SeededRandom(seed: testSeed())
        let server = ModelServer(time: ManualTime())
        var session = try await attach(server)
        var timers = try await session.timerQueue("timers")
        var expected: Set<String> = []
        for _ in 0..<300 {
            let number = Int.random(in: 0..<20, using: &random)
            let time = Int64.random(in: -50...50, using: &random)
            try session.setCurrentKey(user(number))
            session.namespace = [UInt8(number % 3)]
            if Int.random(in: 0..<4, using: &random) == 0 {
                try await timers.delete(at: time)
                expected.remove("\(time) \(number)")
            } else {
                try await timers.register(at: time)
                try await timers.register(at: time)
                expected.insert("\(time) \(number)")
            }
        }
        #expect(timers.count == expected.count)
        let handle = try await session.snapshot(checkpoint: 1)
        session.abandon()

        session = try await attach(server, epoch: 2, restoring: [handle])
        timers = try await session.timerQueue("timers")
        #expect(timers.count == expected.count)
        var fired: [String] = []
        var last = Int64.min
        for until in [Int64(-20), 0, 0, 50] {
            try await timers.advance(to: until) { timer in
                #expect(timer.time >= last && timer.time <= until)
                last = timer.time
                #expect(session.currentKey == timer.key && session.namespace == timer.namespace)
                fired.append("\(timer.time) \(String(decoding: timer.key, as: UTF8.self).dropFirst(5))")
            }
        }
        #expect(fired.count == expected.count)
        #expect(Set(fired) == expected)
        #expect(timers.nextTime == nil)
        try await session.flush()
        #expect(server.entryCount == 0)
    }

    @Test func aTimerMayRegisterAnother() async throws {
        let session = try await attach(ModelServer(time: ManualTime()))
        let timers = try await session.timerQueue("timers")
        try session.setCurrentKey(user(1))
        try await timers.register(at: 1)
        var fired: [Int64] = []
        try await timers.advance(to: 5) { timer in
            fired.append(timer.time)
            try await timers.register(at: timer.time + 1)
        }
        #expect(fired == [1, 2, 3, 4, 5])
        #expect(timers.nextTime == 6)
        #expect(session.currentKey == user(1))
    }
}

@Suite struct DictionaryTests {
    @Test func aDictionaryIsTrainedFromLiveValuesUsedAndFoundAgainAfterARestore() async throws {
        var random = SeededRandom(seed: testSeed())
        let server = ModelServer(time: ManualTime())
        let options = StateOptions(codec: .zstd(level: 1), dictionary: .trained(bytes: 1024))
        var session = try await attach(server) {
            $0.writeBufferBytes = 20_000; $0.writeBufferEntries = 200
        }
        var state = try await session.valueState("json", .string, options)
        func text(_ number: Int) -> String {
            "{\"user\":\"user-\(number)\",\"country\":\"\(["DE", "FR", "PL", "US"][number % 4])\",\"visits\":\(number * 7),"
                + "\"last_page\":\"/catalog/item/\(number * 31 % 977)\",\"premium\":\(number % 2 == 0)}"
        }
        var number = 0
        // Bounded: training takes tens of milliseconds, and a round trip of a few thousand writes about as long.
        while session.metrics.dictionariesTrained == 0, number < 400_000 {
            try session.setCurrentKey(user(number))
            try await state.update(text(number))
            if number % 200 == 0 { await Task.yield() }
            number += 1
        }
        #expect(session.metrics.dictionariesTrained == 1)
        let before = session.metrics
        for extra in 0..<1000 {
            try session.setCurrentKey(user(number + extra))
            try await state.update(text(number + extra))
        }
        try await session.flush()
        let after = session.metrics
        let ratio =
            Double(after.bytesAfterCompression - before.bytesAfterCompression)
            / Double(after.bytesBeforeCompression - before.bytesBeforeCompression)
        print("bytes with dictionary: \(ratio) of raw")
        #expect(ratio < 0.6)
        let handle = try await session.snapshot(checkpoint: 1)
        session.abandon()

        session = try await attach(server, epoch: 2, restoring: [handle]) { $0.keyIndex = .off }
        state = try await session.valueState("json", .string, options)
        for _ in 0..<200 {
            let sample = Int.random(in: 0..<(number + 1000), using: &random)
            try session.setCurrentKey(user(sample))
            #expect(try await state.value() == text(sample))
        }
    }
}
