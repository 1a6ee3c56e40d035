import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct KeyGroupVectorTests {
    /// The vectors were computed from the specification by a program in another language.
    @Test func groupsAndRangesOfEveryVectorAreTheRecordedOnes() throws {
        var checked = 0
        for line in try GoldenFile.text("key-groups.txt").split(separator: "\n") where !line.hasPrefix("#") {
            let words = line.split(separator: " ")
            let numbers = words.compactMap { Int($0) }
            if words[0] == "range" {
                let range = KeyGroup.range(ofWorker: numbers[0], parallelism: numbers[1], count: numbers[2])
                #expect(range == KeyGroupRange(first: UInt16(numbers[3]), last: UInt16(numbers[4])), "\(line)")
            } else {
                #expect(KeyGroup.group(ofHash: Int32(numbers[0]), count: numbers[1]) == numbers[2], "\(line)")
            }
            checked += 1
        }
        #expect(checked > 80)
    }
}
