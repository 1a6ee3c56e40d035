import CisternServer
import NIOCore
import NIOPosix
import Testing

@Suite struct WritePaceTests {
    @Test func answersComeInOrderAndNotBeforeTheirTime() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let answered: [(number: Int, after: TimeAmount)] = try await withCheckedThrowingContinuation { continuation in
            loop.execute {
                let pace = WritePace()
                let start = loop.now
                var answered: [(number: Int, after: TimeAmount)] = []
                for (number, delay) in [20, 5, 0, 30].enumerated() {
                    pace.hold(milliseconds: UInt64(delay), on: loop) {
                        answered.append((number, loop.now - start))
                        if number == 3 { continuation.resume(returning: answered) }
                    }
                    if pace.isIdle { continuation.resume(throwing: CancellationError()) }
                }
            }
        }
        #expect(answered.map(\.number) == [0, 1, 2, 3])
        #expect(answered[2].after >= .milliseconds(20))
        #expect(answered[3].after >= .milliseconds(30))
    }
}
