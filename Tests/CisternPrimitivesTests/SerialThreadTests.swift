import CisternPrimitives
import Synchronization
import Testing

private final class Counter: Sendable {
    private let stored = Atomic(0)
    var value: Int { stored.load(ordering: .sequentiallyConsistent) }
    func add() { stored.add(1, ordering: .sequentiallyConsistent) }
}

@Suite struct SerialThreadTests {
    @Test func drainReturnsWhenWhatWasSubmittedHasRun() {
        let thread = SerialThread(name: "test")
        let counter = Counter()
        for round in 1...100 {
            for _ in 0..<10 { thread.submit { counter.add() } }
            thread.drain()
            #expect(counter.value == round * 10)
        }
        thread.stop()
        thread.submit { counter.add() }
        thread.drain()
        #expect(counter.value == 1000)
    }
}
