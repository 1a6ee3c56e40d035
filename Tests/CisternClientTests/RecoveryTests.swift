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
