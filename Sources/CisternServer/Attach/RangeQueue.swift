// Lets operations on disjoint key-group ranges of a store run at the same time, and those that touch a common range one after
// the other in the order they came. Attaching, closing and retiring trees go through it; reading and writing never do.

package import CisternPrimitives

/// Pure: who may start is decided here, starting is the caller's. Guarded by the registry's lock.
package struct RangeQueue {
    package struct Ticket: Equatable, Sendable {
        package let number: UInt64
    }

    private struct Waiting {
        let ticket: Ticket
        let range: KeyGroupRange
    }

    private var running: [(ticket: Ticket, extent: KeyGroupRange)] = []
    private var waiting: [Waiting] = []
    private var nextNumber: UInt64 = 0

    package init() {}

    package var isIdle: Bool { running.isEmpty && waiting.isEmpty }

    package mutating func enter(_ range: KeyGroupRange) -> Ticket {
        nextNumber += 1
        let ticket = Ticket(number: nextNumber)
        waiting.append(Waiting(ticket: ticket, range: range))
        return ticket
    }

    package mutating func leave(_ ticket: Ticket) {
        running.removeAll { $0.ticket == ticket }
    }

    /// Takes from the queue what may start, oldest first. `trees` are the store's trees: an operation reaches as far as the
    /// trees that its range overlaps, because it may retire them.
    package mutating func startable(trees: [KeyGroupRange]) -> [Ticket] {
        var blocked = running.map(\.extent)
        var started: [Ticket] = []
        waiting.removeAll { operation in
            let extent = trees.filter { $0.overlaps(operation.range) }.reduce(operation.range) { hull($0, $1) }
            let mayStart = !blocked.contains { $0.overlaps(extent) }
            // One that has to wait also holds back later ones: nobody is overtaken for ever.
            blocked.append(extent)
            if mayStart {
                running.append((operation.ticket, extent))
                started.append(operation.ticket)
            }
            return mayStart
        }
        return started
    }
}

private func hull(_ left: KeyGroupRange, _ right: KeyGroupRange) -> KeyGroupRange {
    KeyGroupRange(first: min(left.first, right.first), last: max(left.last, right.last))
}
