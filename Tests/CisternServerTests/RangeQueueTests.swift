import CisternPrimitives
import CisternServer
import CisternTestKit
import Testing

private func range(_ first: UInt16, _ last: UInt16) -> KeyGroupRange { KeyGroupRange(first: first, last: last) }

@Test func disjointRangesRunTogetherAndOverlappingOnesWait() {
    var queue = RangeQueue()
    let a = queue.enter(range(0, 3))
    let b = queue.enter(range(4, 7))
    let c = queue.enter(range(3, 4))
    #expect(queue.startable(trees: []) == [a, b])
    queue.leave(a)
    #expect(queue.startable(trees: []).isEmpty)
    queue.leave(b)
    #expect(queue.startable(trees: []) == [c])
    queue.leave(c)
    #expect(queue.isIdle)
}

@Test func operationsThatReplaceOneTreeRunOneAfterTheOther() {
    var queue = RangeQueue()
    let a = queue.enter(range(0, 3))
    let b = queue.enter(range(4, 7))
    #expect(queue.startable(trees: [range(0, 7)]) == [a])
    queue.leave(a)
    #expect(queue.startable(trees: [range(0, 3)]) == [b])
}

@Test func aWaitingOperationIsNotOvertaken() {
    var queue = RangeQueue()
    let a = queue.enter(range(0, 3))
    #expect(queue.startable(trees: []) == [a])
    let b = queue.enter(range(3, 7))
    let c = queue.enter(range(6, 7))
    #expect(queue.startable(trees: []).isEmpty)
    queue.leave(a)
    #expect(queue.startable(trees: []) == [b])
    queue.leave(b)
    #expect(queue.startable(trees: []) == [c])
}

@Test(arguments: Seeds.seeds(count: 50))
func everyOperationRunsOnceAndNoTwoOverlap(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var queue = RangeQueue()
    var ranges: [UInt64: KeyGroupRange] = [:]
    var running: [RangeQueue.Ticket] = []
    var finished = 0
    for step in 0..<400 {
        if step < 200, Bool.random(using: &random) {
            let first = UInt16.random(in: 0..<16, using: &random)
            let wanted = range(first, UInt16.random(in: first..<16, using: &random))
            ranges[queue.enter(wanted).number] = wanted
        } else if let index = running.indices.randomElement(using: &random) {
            queue.leave(running.remove(at: index))
            finished += 1
        }
        running += queue.startable(trees: [range(0, 7), range(8, 11)].filter { _ in Bool.random(using: &random) })
        for (index, one) in running.enumerated() {
            for other in running[(index + 1)...] {
                #expect(!ranges[one.number]!.overlaps(ranges[other.number]!), "CISTERN_SEED=\(seed)")
            }
        }
    }
    while let ticket = running.popLast() {
        queue.leave(ticket)
        finished += 1
        running += queue.startable(trees: [])
    }
    #expect(finished == ranges.count, "CISTERN_SEED=\(seed)")
    #expect(queue.isIdle)
}
