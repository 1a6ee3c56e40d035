// A set of entry ids as runs. Entries come nearly in order, so adding is nearly always making the last run longer; a ledger
// with E = Qw has one run.

package import CisternPrimitives

package struct EntrySet: Hashable, Sendable {
    /// Ascending, with at least one missing id between two runs.
    package private(set) var runs: [ClosedRange<Int64>] = []

    package init() {}

    package var isEmpty: Bool { runs.isEmpty }
    package var last: EntryID { EntryID(runs.last?.upperBound ?? -1) }
    package var count: Int { runs.reduce(0) { $0 + $1.count } }

    /// O(log runs).
    package func contains(_ entry: EntryID) -> Bool {
        let index = firstRun(endingAtOrAfter: entry.rawValue)
        return index < runs.count && runs[index].contains(entry.rawValue)
    }

    /// False when it was there. O(1) at the end, O(runs) before it.
    @discardableResult
    package mutating func insert(_ entry: EntryID) -> Bool {
        let id = entry.rawValue
        guard let last = runs.last, id <= last.upperBound else {
            if let last = runs.last, last.upperBound + 1 == id {
                runs[runs.count - 1] = last.lowerBound...id
            } else {
                runs.append(id...id)
            }
            return true
        }
        let index = firstRun(endingAtOrAfter: id)
        if runs[index].contains(id) { return false }
        let joinsNext = runs[index].lowerBound == id + 1
        let joinsPrevious = index > 0 && runs[index - 1].upperBound + 1 == id
        switch (joinsPrevious, joinsNext) {
        case (true, true):
            runs[index - 1] = runs[index - 1].lowerBound...runs[index].upperBound
            runs.remove(at: index)
        case (true, false): runs[index - 1] = runs[index - 1].lowerBound...id
        case (false, true): runs[index] = id...runs[index].upperBound
        case (false, false): runs.insert(id...id, at: index)
        }
        return true
    }

    /// False when it was not there. O(runs).
    @discardableResult
    package mutating func remove(_ entry: EntryID) -> Bool {
        let id = entry.rawValue
        let index = firstRun(endingAtOrAfter: id)
        guard index < runs.count, runs[index].contains(id) else { return false }
        let run = runs.remove(at: index)
        if id < run.upperBound { runs.insert(id + 1...run.upperBound, at: index) }
        if id > run.lowerBound { runs.insert(run.lowerBound...id - 1, at: index) }
        return true
    }

    private func firstRun(endingAtOrAfter id: Int64) -> Int {
        var low = 0
        var high = runs.count
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].upperBound < id { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
