import CisternClient
import CisternPrimitives
import Synchronization
import Testing

@Suite struct RecoveryTests {
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
