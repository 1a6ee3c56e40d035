// The timers of one name in memory, earliest first. It knows nothing of the session, which owns it: a queue holds the session,
// so a session that held its queues would never be freed.

final class TimerHeap {
    struct Timer {
        var time: Int64
        var storeKey: [UInt8]

        /// By time; equal times by key group and key, so that a restored worker fires in the same order.
        func fires(before other: Timer) -> Bool {
            time != other.time ? time < other.time : storeKey.lexicographicallyPrecedes(other.storeKey)
        }
    }

    /// Deleted timers kept beyond the number of live ones before the heap is made anew.
    private static let deletedSlack = 1024

    /// Binary heap, earliest first. Deleted timers stay until they come up or outnumber the others.
    private var heap: [Timer] = []
    private var live: Set<[UInt8]> = []

    var count: Int { live.count }

    func contains(_ storeKey: [UInt8]) -> Bool { live.contains(storeKey) }

    /// The earliest timer.
    var first: Timer? {
        dropDeleted()
        return heap.first
    }

    /// Nothing happens when it is here already.
    func insert(_ storeKey: [UInt8], time: Int64) {
        if live.insert(storeKey).inserted { push(Timer(time: time, storeKey: storeKey)) }
    }

    func remove(_ storeKey: [UInt8]) {
        live.remove(storeKey)
        if heap.count > live.count * 2 + Self.deletedSlack { rebuild() }
    }

    func removeFirst() {
        dropDeleted()
        guard let first = heap.first else { return }
        live.remove(first.storeKey)
        popFirst()
    }

    /// A deleted and registered-again timer is in the heap twice and live once: the first one fires, the second is dropped.
    private func dropDeleted() {
        while let first = heap.first, !live.contains(first.storeKey) { popFirst() }
    }

    private func push(_ timer: Timer) {
        heap.append(timer)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].fires(before: heap[parent]) else { return }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private func popFirst() {
        guard let last = heap.popLast() else { return }
        if heap.isEmpty { return }
        heap[0] = last
        siftDown(from: 0)
    }

    private func siftDown(from start: Int) {
        var parent = start
        while true {
            let left = parent * 2 + 1
            guard left < heap.count else { return }
            let right = left + 1
            let child = right < heap.count && heap[right].fires(before: heap[left]) ? right : left
            guard heap[child].fires(before: heap[parent]) else { return }
            heap.swapAt(child, parent)
            parent = child
        }
    }

    private func rebuild() {
        var kept: Set<[UInt8]> = []
        heap = heap.filter { live.contains($0.storeKey) && kept.insert($0.storeKey).inserted }
        for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { siftDown(from: index) }
    }
}
