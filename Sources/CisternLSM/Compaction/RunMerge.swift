// The inputs of a compaction, newest first, as one: a folded entry a key, in key order, as the merged files must hold it.
//
// The inputs are kept sorted by their next key, in a short array: after a step the first one is compared with the second,
// and moves down only when it is not the smallest any more. A long run from one input costs one comparison an entry, and
// equal keys are neighbours. Beside each input stand the first 24 bytes of its key as numbers, because keys of one
// map agree in 16 and more; what those do not decide is compared in place.
//
// Owned by one thread.

package import CisternPrimitives

/// What is written of an entry when older ones of its key may exist elsewhere.
struct Retention {
    let clock: ExpiryClock
    let rules: ExpiryRules
    /// Nothing outside holds older entries of the keys.
    let isBottommost: Bool

    /// A delete stays unless nothing older exists; an expired entry becomes a delete, because it hides what is older; appends
    /// without a base stay appends while an older source may hold it.
    /// - Parameter isOpen: appends, and no base was found below them.
    @inline(__always)
    func kept(_ newest: EntryView, value: UnsafeRawBufferPointer, isOpen: Bool) -> EntryView? {
        if !rules.areIdle { return unsafe keptByRule(newest, value: value, isOpen: isOpen) }
        if newest.kind == .delete || (newest.expiry != .never && clock.isExpired(newest.expiry)) {
            return deletion(of: newest)
        }
        let kind: EntryKind = isOpen && !isBottommost ? .append : .put
        return unsafe EntryView(
            key: newest.key, kind: kind, isPointer: newest.isPointer, expiry: newest.expiry, value: value)
    }

    /// Expiries stay as they are stored; an entry without one gets the one that counts for it, so that files tell when they are
    /// dead.
    @inline(never)
    private func keptByRule(_ newest: EntryView, value: UnsafeRawBufferPointer, isOpen: Bool) -> EntryView? {
        if newest.kind == .delete { return deletion(of: newest) }
        let rule = unsafe rules.rule(for: newest.key)
        if clock.isExpired(rule?.current(newest.expiry) ?? newest.expiry) { return deletion(of: newest) }
        let kind: EntryKind = isOpen && !isBottommost ? .append : .put
        let expiry = rule?.materialized(newest.expiry) ?? newest.expiry
        return unsafe EntryView(
            key: newest.key, kind: kind, isPointer: newest.isPointer, expiry: expiry, value: value)
    }

    private func deletion(of entry: EntryView) -> EntryView? {
        if isBottommost { return nil }
        return unsafe EntryView(
            key: entry.key, kind: .delete, expiry: .never, value: UnsafeRawBufferPointer(start: nil, count: 0))
    }
}

@safe package final class RunMerge {
    /// An input's place in the order: its next key, the first 24 bytes of it as numbers, zero behind a shorter key.
    @safe private struct Place {
        static let numberBytes = 24

        let head: UInt128
        let tail: UInt64
        let key: UnsafeRawBufferPointer
        let input: Int

        @inline(__always)
        init(_ key: UnsafeRawBufferPointer, input: Int) {
            unsafe self.key = unsafe key
            self.input = input
            head = unsafe keyHead(key)
            tail = unsafe keyWord(key, at: keyHeadBytes)
        }

        @inline(__always)
        func isBefore(_ other: Place) -> Bool {
            if head != other.head { return head < other.head }
            if tail != other.tail { return tail < other.tail }
            let order = orderBehindNumbers(other)
            return order != 0 ? order < 0 : input < other.input
        }

        @inline(__always)
        func hasKey(of other: Place) -> Bool {
            head == other.head && tail == other.tail && orderBehindNumbers(other) == 0
        }

        @inline(__always)
        private func orderBehindNumbers(_ other: Place) -> Int {
            // Both keys are in the numbers; where one ends, the other can only go on with zeros.
            if unsafe key.count <= Place.numberBytes && other.key.count <= Place.numberBytes {
                return unsafe key.count &- other.key.count
            }
            return longOrder(other)
        }

        @inline(never)
        private func longOrder(_ other: Place) -> Int {
            let isDecided = unsafe min(key.count, other.key.count) >= Place.numberBytes
            return unsafe compareInPlace(key, other.key, skip: isDecided ? Place.numberBytes : 0)
        }
    }

    private let readers: [RunReader]
    private let retention: Retention
    /// By input.
    private let rows: UnsafeMutablePointer<BlockRows>
    /// The inputs that have entries left, by key, then newest first.
    private let order: UnsafeMutablePointer<Place>
    private var liveCount = 0
    private var isStarted = false
    private let fold = FoldBuffer()
    /// Whether reads find the newest part of the last entry in the cache.
    private(set) var isHot = false

    /// - Parameters:
    ///   - runs: newest first; the tables of one are in key order and do not overlap.
    ///   - bottommost: no source outside of these holds older entries of their keys.
    package init(
        _ runs: [[TableWindow]], clock: ExpiryClock, rules: ExpiryRules = ExpiryRules(), bottommost: Bool
    ) {
        readers = runs.map { RunReader($0) }
        retention = Retention(clock: clock, rules: rules, isBottommost: bottommost)
        let capacity = max(runs.count, 1)
        unsafe rows = .allocate(capacity: capacity)
        unsafe order = .allocate(capacity: capacity)
        for input in 0..<runs.count { unsafe (rows + input).initialize(to: readers[input].emptyRows) }
    }

    deinit {
        unsafe rows.deallocate()
        unsafe order.deallocate()
    }

    /// The next entry to write, valid until the next call; nil at the end and from then on.
    package func next() throws(EngineError) -> EntryView? {
        while true {
            if !isStarted { try start() } else if liveCount > 0 { try advance(0) }
            guard liveCount > 0 else { return nil }
            let newest = unsafe rows[order[0].input].entry
            isHot = unsafe rows[order[0].input].isHot
            if newest.kind == .append {
                if let kept = try foldAppends(newest) { return kept }
                continue
            }
            while hasDuplicate() { try advance(1) }
            if let kept = unsafe retention.kept(newest, value: newest.value, isOpen: false) { return kept }
        }
    }

    @inline(never)
    private func foldAppends(_ newest: EntryView) throws(EngineError) -> EntryView? {
        fold.reset()
        _ = fold.add(newest)
        while hasDuplicate() {
            if !fold.isComplete { try add(input: unsafe order[1].input) }
            try advance(1)
        }
        return unsafe retention.kept(newest, value: fold.value(), isOpen: fold.isOpen)
    }

    /// Adds the entry of an older input to the fold.
    private func add(input: Int) throws(EngineError) {
        let entry = unsafe rows[input].entry
        guard entry.isPointer, let table = readers[input].reader else {
            _ = fold.add(entry)
            return
        }
        try fold.add(entry, hash: unsafe Hash64.hash(entry.key), of: table)
    }

    // MARK: Order

    private func start() throws(EngineError) {
        isStarted = true
        // Oldest first: each is put before those that are greater or equal, so that of equal keys the newest leads.
        for input in stride(from: readers.count - 1, through: 0, by: -1) {
            guard unsafe try readers[input].nextBlock(&rows[input]) else { continue }
            for place in stride(from: liveCount, to: 0, by: -1) { unsafe order[place] = unsafe order[place - 1] }
            liveCount += 1
            sink(unsafe Place(rows[input].key, input: input), from: 0)
        }
    }

    /// Moves the input at `place` to its next entry and to where that belongs.
    @inline(__always)
    private func advance(_ place: Int) throws(EngineError) {
        let input = unsafe order[place].input
        unsafe rows[input].position &+= 1
        if unsafe rows[input].position == rows[input].count, unsafe try !readers[input].nextBlock(&rows[input]) {
            return remove(place)
        }
        sink(unsafe Place(rows[input].key, input: input), from: place)
    }

    /// Fills the free place with `moved`, after the places behind it that come before it have moved up.
    @inline(__always)
    private func sink(_ moved: Place, from free: Int) {
        var free = free
        while free &+ 1 < liveCount, unsafe order[free &+ 1].isBefore(moved) {
            unsafe order[free] = unsafe order[free &+ 1]
            free &+= 1
        }
        unsafe order[free] = moved
    }

    private func remove(_ place: Int) {
        liveCount -= 1
        for next in place..<max(place, liveCount) { unsafe order[next] = unsafe order[next + 1] }
    }

    /// True when the second input has the first one's key.
    @inline(__always)
    private func hasDuplicate() -> Bool { unsafe liveCount > 1 && order[0].hasKey(of: order[1]) }
}
