// The simulator's clock and its queue of things to come. Nothing runs by itself: time is what the next event says.

/// Runs closures in the order of their times; those of one time in the order in which they were added.
final class Scheduler {
    private struct Event {
        let time: Int
        let order: Int
        let work: () -> Void
    }

    private(set) var now = 0
    private(set) var steps = 0
    private var order = 0
    /// A binary heap, the next event in front.
    private var heap: [Event] = []

    func after(_ delay: Int, _ work: @escaping () -> Void) {
        order += 1
        heap.append(Event(time: now + max(0, delay), order: order, work: work))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard comesBefore(child, parent) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    /// Runs the next event; false when there is none, or none before `end`.
    func step(before end: Int) -> Bool {
        guard let next = heap.first, next.time < end else { return false }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            sink()
        }
        now = next.time
        steps += 1
        next.work()
        return true
    }

    private func comesBefore(_ left: Int, _ right: Int) -> Bool {
        (heap[left].time, heap[left].order) < (heap[right].time, heap[right].order)
    }

    private func sink() {
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && comesBefore(child, least) {
                least = child
            }
            if least == parent { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
