import CisternPrimitives
import CisternServer
import Testing

private let writers = ["a", "b"]

/// Every range within four key groups.
private let ranges: [KeyGroupRange] = (0..<4).flatMap { first in
    (first..<4).map { KeyGroupRange(first: UInt16(first), last: UInt16($0)) }
}

private func requests() -> [AttachRequest] {
    ranges.flatMap { range in
        [1, 2, 3].flatMap { epoch in
            writers.flatMap { writer in
                [false, true].map {
                    AttachRequest(range: range, epoch: UInt64(epoch), writer: writer, isRestoring: $0)
                }
            }
        }
    }
}

/// Sets of up to three trees that do not overlap, with every epoch 1...3 and writer.
private func treeSets() -> [[TreeClaim]] {
    var sets: [[TreeClaim]] = [[]]
    var frontier: [[TreeClaim]] = [[]]
    for _ in 0..<3 {
        var next: [[TreeClaim]] = []
        for set in frontier {
            for range in ranges where range.first > (set.last.map { $0.range.last } ?? 0) || set.isEmpty {
                for epoch in [UInt64(1), 2, 3] {
                    for writer in writers {
                        next.append(
                            set + [TreeClaim(id: UInt64(set.count + 1), range: range, epoch: epoch, writer: writer)])
                    }
                }
            }
        }
        sets += next
        frontier = next
    }
    return sets
}

/// The rule once more, written as the sentences of the contract rather than as the code.
private func expected(_ request: AttachRequest, _ trees: [TreeClaim]) -> AttachDecision {
    let over = trees.filter { $0.range.overlaps(request.range) }
    if over.isEmpty { return request.isRestoring ? .restore(replacing: []) : .fresh }
    if let same = over.first(where: {
        $0.range == request.range && $0.epoch == request.epoch && $0.writer == request.writer
    }) {
        return .resume(tree: same.id)
    }
    let newest = over.reduce(over[0]) { $1.epoch >= $0.epoch ? $1 : $0 }
    if newest.epoch > request.epoch { return .fenced(by: newest) }
    if request.isRestoring {
        return newest.epoch == request.epoch ? .fenced(by: newest) : .restore(replacing: over.map(\.id))
    }
    if over.count == 1, over[0].range == request.range {
        return over[0].epoch < request.epoch ? .takeOver(tree: over[0].id) : .fenced(by: over[0])
    }
    return .mismatch(with: over.map(\.range))
}

@Test func everyAttachToEverySetOfTreesIsDecidedAsWritten() {
    var seen: [String: Int] = [:]
    let all = requests()
    for trees in treeSets() {
        for request in all {
            let decision = AttachRules.decide(request, trees: trees)
            let wanted = expected(request, trees)
            if decision != wanted, !sameFence(decision, wanted) {
                Issue.record("\(request) on \(trees): \(decision), wanted \(wanted)")
                return
            }
            seen[String("\(decision)".prefix { $0 != "(" }), default: 0] += 1
        }
    }
    #expect(Set(seen.keys) == ["fresh", "resume", "takeOver", "restore", "fenced", "mismatch"])
}

/// Which of two owners with the same epoch is named does not matter.
private func sameFence(_ left: AttachDecision, _ right: AttachDecision) -> Bool {
    if case .fenced(let a) = left, case .fenced(let b) = right { return a.epoch == b.epoch }
    return false
}

@Test func anOlderEpochIsNeverLetIn() {
    for trees in treeSets() {
        for request in requests() {
            let newest = trees.filter { $0.range.overlaps(request.range) }.map(\.epoch).max() ?? 0
            guard newest > request.epoch else { continue }
            guard case .fenced = AttachRules.decide(request, trees: trees) else {
                Issue.record("\(request) on \(trees) was let in")
                return
            }
        }
    }
}

@Test func restoreCoverageFindsEveryGapAndOverlap() {
    for range in ranges {
        for first in ranges {
            for second in ranges {
                var counts = [Int](repeating: 0, count: 4)
                for part in [first, second] { for group in part.first...part.last { counts[Int(group)] += 1 } }
                let inside = (range.first...range.last).map { counts[Int($0)] }
                let coverage = RestoreCoverage.of(range, by: [first, second])
                #expect((coverage == .complete) == inside.allSatisfy { $0 == 1 })
                if case .missing(let group) = coverage { #expect(counts[Int(group)] == 0) }
                if case .ambiguous(let group) = coverage { #expect(counts[Int(group)] == 2) }
            }
        }
        #expect(RestoreCoverage.of(range, by: []) == .complete)
    }
    let highest = KeyGroupRange(first: 0, last: .max)
    #expect(RestoreCoverage.of(highest, by: [highest]) == .complete)
}
