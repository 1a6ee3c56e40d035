import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct EntrySetTests {
    @Test(arguments: 0..<20) func holdsWhatWasInsertedAndNotRemovedInAnyOrder(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var set = EntrySet()
        var model = Set<Int64>()
        for _ in 0..<200 {
            let id = Int64.random(in: 0..<64, using: &random)
            if Int.random(in: 0..<3, using: &random) == 0 {
                #expect(set.remove(EntryID(id)) == (model.remove(id) != nil))
            } else {
                #expect(set.insert(EntryID(id)) == model.insert(id).inserted)
            }
            for other in 0..<Int64(66) { #expect(set.contains(EntryID(other)) == model.contains(other)) }
            #expect(set.count == model.count)
            #expect(set.last.rawValue == model.max() ?? -1)
            for (run, next) in zip(set.runs, set.runs.dropFirst()) { #expect(run.upperBound + 1 < next.lowerBound) }
        }
    }
}
