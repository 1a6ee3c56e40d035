import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct QuorumTests {
    static let all = (1...5).flatMap { e in
        (1...e).flatMap { w in (1...w).map { QuorumSizes(ensemble: e, write: w, ack: $0) } }
    }

    @Test(arguments: all) func aWriteSetIsQwPositionsRoundRobin(sizes: QuorumSizes) {
        for id in 0..<Int64(12) {
            let positions = (0..<sizes.write).map { sizes.position(of: entry(id), attempt: $0) }
            #expect(Set(positions).count == sizes.write)
            #expect(positions[0] == Int(id) % sizes.ensemble)
            let set = sizes.writeSet(of: entry(id))
            for position in 0..<sizes.ensemble { #expect(set.contains(position) == positions.contains(position)) }
        }
    }

    /// The definition: no ack quorum can be chosen from nodes that did not answer.
    @Test(arguments: all) func coverageIsThatNoAckQuorumIsLeft(sizes: QuorumSizes) {
        for bits in 0..<UInt32(1) << UInt32(sizes.ensemble) {
            let answered = PositionSet(bits: bits)
            var quorumLeft = false
            for start in 0..<sizes.ensemble {
                let silent = sizes.writeSet(startingAt: start).subtracting(answered)
                if silent.count >= sizes.ack { quorumLeft = true }
            }
            #expect(sizes.covers(answered) == !quorumLeft)
            for id in 0..<Int64(sizes.ensemble) {
                let silent = sizes.writeSet(of: entry(id)).subtracting(answered)
                #expect(sizes.rulesOut(entry(id), negatives: answered) == (silent.count < sizes.ack))
            }
        }
    }

    @Test func theLargestEnsembleHasItsSets() {
        let sizes = QuorumSizes(ensemble: 32, write: 32, ack: 17)
        #expect(sizes.writeSet(of: entry(5)).count == 32)
        #expect(QuorumSizes(ensemble: 32, write: 3, ack: 2).writeSet(of: entry(31)).bits == 1 << 31 | 0b11)
    }
}
