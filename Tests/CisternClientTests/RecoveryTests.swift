import CisternClient
import CisternPrimitives
import Synchronization
import Testing

@Suite struct RecoveryTests {
    @Test func aBatchCountsAsAcknowledgedOnlyWhenTheServerSaidSo() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server) { $0.keyIndex = .off }
        let list = try await session.listState("list", .int64)
        try session.setCurrentKey(user(1))
        try await list.add(1)
        // The tree holds the batch when the session comes back, but perhaps not yet its log.
        server.state.withLock { $0.cutsAfterNextBatch = true }
        try await session.flush()
        #expect(server.state.withLock { $0.acknowledged } == 1)
        #expect(server.state.withLock { $0.batchesApplied } == 1)
        #expect(try await list.get() == [1])
        try await list.add(2)
        try await session.flush()
        #expect(try await list.get() == [1, 2])
        #expect(session.metrics.batchesResent == 1)
    }

    /// Attaching works and nothing else does.
    @Test func aConnectionThatIsLostAgainAndAgainIsAnErrorAfterTheDeadline() async throws {
        let time = ManualTime()
        let server = ModelServer(time: time)
        let session = try await attach(server, environment: time.environmentWithPauses) {
            $0.retryForMilliseconds = 5000
            $0.keyIndex = .off
        }
        let state = try await session.valueState("state", .int64)
        server.set(Faults(lostBefore: 1000))
        server.state.withLock { $0.attachesMax = 1000 }
        try session.setCurrentKey(user(2))
        let read = await #expect(throws: ClientError.self) { _ = try await state.value() }
        #expect(read?.code == .unavailable && read?.advice == .retry)
        server.state.withLock { $0.attachesMax = 1000 }
        try session.setCurrentKey(user(1))
        try await state.update(1)
        let write = await #expect(throws: ClientError.self) { try await session.flush() }
        #expect(write?.code == .unavailable && write?.advice == .retry)
        // Nothing was lost by giving up.
        server.set(.none)
        try await session.flush()
        #expect(server.entryCount == 1)
    }

    @Test func anAttachWhoseKeyIndexNeverComesIsAnErrorAfterTheDeadline() async throws {
        for refuses in [false, true] {
            let time = ManualTime()
            let server = ModelServer(time: time)
            if refuses {
                server.state.withLock { $0.keyIndexRefusals = Int.max }
            } else {
                server.set(Faults(lostBefore: 1000))
            }
            server.state.withLock { $0.attachesMax = 1000 }
            let error = await #expect(throws: ClientError.self) {
                _ = try await attach(server, environment: time.environmentWithPauses) {
                    $0.retryForMilliseconds = 5000
                }
            }
            #expect(error?.code == .unavailable && error?.advice == .retry)
        }
    }

    @Test func aKeyIndexThatWasRefusedIsLoadedLater() async throws {
        let server = ModelServer(time: ManualTime())
        server.state.withLock { $0.keyIndexRefusals = 3 }
        let session = try await attach(server) {
            $0.keyIndexLoadsInBackground = true
            $0.valueCacheBytes = 0
        }
        let seen = try await session.valueState("seen", .int64)
        try session.setCurrentKey(user(1))
        for _ in 0..<20_000 where session.metrics.indexSkips == 0 {
            #expect(try await seen.value() == nil)
            await Task.yield()
        }
        #expect(session.metrics.indexSkips > 0)
    }

    @Test func aDamagedPageOfTheKeyIndexIsFetchedAgain() async throws {
        try await withModelService { server, configuration in
            var changed = configuration
            changed.keyIndex = .off
            let first = try await StateClient.connect(changed).attach(
                store: "store", keyGroupCount: 8, keyGroups: KeyGroupRange(first: 0, last: 7), epoch: 1, writer: "w",
                restoring: nil)
            let state = try await first.valueState("state", .int64)
            for number in 0..<60 {
                try first.setCurrentKey(user(number))
                try await state.update(Int64(number))
            }
            try await first.detach()
            server.state.withLock { $0.damagedIndexPage = 3 }
            changed.keyIndex = .keys
            let second = try await StateClient.connect(changed).attach(
                store: "store", keyGroupCount: 8, keyGroups: KeyGroupRange(first: 0, last: 7), epoch: 2, writer: "w",
                restoring: nil)
            let again = try await second.valueState("state", .int64)
            for number in 0..<60 {
                try second.setCurrentKey(user(number))
                #expect(try await again.value() == Int64(number))
            }
            #expect(second.metrics.reconnects == 1)
            second.abandon()
        }
    }

    @Test func aSessionWithTimersIsFreedWhenNobodyUsesIt() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await useTimersAndLetGo(server)
        #expect(session.value == nil)
    }

    private struct Weak { weak var value: KeyedStateSession? }

    private func useTimersAndLetGo(_ server: ModelServer) async throws -> Weak {
        let session = try await attach(server)
        var timers: TimerQueue? = try await session.timerQueue("timers")
        try session.setCurrentKey(user(1))
        try await timers?.register(at: 5)
        timers = nil
        // The timers are the session's: asking for the queue again finds them.
        let again = try await session.timerQueue("timers")
        #expect(again.count == 1 && again.nextTime == 5)
        return Weak(value: session)
    }
}
