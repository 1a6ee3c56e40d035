// The expiry rules of a tree: a part of its durable state, of its snapshots, and of what is made from them. A tree whose times to
// live have never changed has none that matter, and pays nothing.
//
// Keys begin with key group and state, which is all that a rule is found by.

package import CisternPrimitives

package struct ExpiryRules: Equatable, Sendable {
    /// By state, then by key groups; those of one state do not overlap.
    package private(set) var all: [ExpiryRule] = []
    /// Changes so far that moved what was stored. Whoever keeps expiries that he read compares it.
    package private(set) var changes: UInt64 = 0
    /// Those that move expiries.
    private var moving: [ExpiryRule] = []

    package init() {}

    /// nil unless the rules are in order.
    init?(_ rules: [ExpiryRule], changes: UInt64) {
        for (left, right) in zip(rules, rules.dropFirst()) where !ExpiryRules.isInOrder(left, right) { return nil }
        all = rules
        self.changes = changes
        moving = rules.filter { !$0.isPlain }
    }

    private static func isInOrder(_ left: ExpiryRule, _ right: ExpiryRule) -> Bool {
        left.state != right.state ? left.state < right.state : left.keyGroups.last < right.keyGroups.first
    }

    /// True when nothing needs to be stored.
    package var isEmpty: Bool { all.isEmpty && changes == 0 }
    /// True when all stored expiries are the current ones.
    @inline(__always)
    package var areIdle: Bool { moving.isEmpty }

    // MARK: Entries

    /// - Returns: nil when the stored expiry is the current one.
    func rule(for key: UnsafeRawBufferPointer) -> ExpiryRule? {
        guard key.count >= EngineLimits.keyBytesMin else { return nil }
        return unsafe rule(of: stateNumber(of: key), in: keyGroup(of: key))
    }

    private func rule(of state: UInt16, in group: UInt16) -> ExpiryRule? {
        var low = 0
        var high = moving.count
        while low < high {
            let middle = (low + high) / 2
            let rule = moving[middle]
            if rule.state < state || (rule.state == state && rule.keyGroups.last < group) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        guard low < moving.count, moving[low].state == state, moving[low].keyGroups.contains(group) else { return nil }
        return moving[low]
    }

    /// What a reader is told of a stored expiry.
    @inline(__always)
    func current(_ stored: Expiry, of key: UnsafeRawBufferPointer) -> Expiry {
        areIdle ? stored : unsafe moved(stored, of: key)
    }

    @inline(never)
    private func moved(_ stored: Expiry, of key: UnsafeRawBufferPointer) -> Expiry {
        unsafe rule(for: key)?.current(stored) ?? stored
    }

    // MARK: Files

    /// What is over of a state in all of a range of key groups: stored expiries up to `until`; and entries without one when
    /// `never`, the expiry that counts for them, is among those. `.never` unless all of them have one.
    func over(
        _ state: UInt16, in groups: KeyGroupRange, _ clock: ExpiryClock
    ) -> (until: ExpiryClock, never: Expiry) {
        var until: ExpiryClock?
        var nevers: [Expiry] = []
        var covered = 0
        for rule in moving where rule.state == state {
            guard let shared = rule.keyGroups.intersection(groups) else { continue }
            let over = rule.over(clock)
            until = until?.earlier(over) ?? over
            nevers.append(rule.expiryOfNever)
            covered += shared.count
        }
        guard let until else { return (clock, .never) }
        if covered < groups.count { return (until.earlier(clock), .never) }
        let areOfOneClock = nevers.allSatisfy { $0 != .never && $0.isEventTime == nevers[0].isEventTime }
        return (until, areOfOneClock ? nevers.max { $0.rawValue < $1.rawValue } ?? .never : .never)
    }

    /// The same of all states together, and without those that have no expiry.
    func over(in groups: KeyGroupRange, _ clock: ExpiryClock) -> ExpiryClock {
        var until = clock
        for rule in moving where rule.keyGroups.overlaps(groups) { until = until.earlier(rule.over(clock)) }
        return until
    }

    // MARK: Changes

    /// Those of a state that move expiries, by key groups.
    package func moving(_ state: UInt16) -> [ExpiryRule] { moving.filter { $0.state == state } }

    /// Gives a state a time to live, in all of a tree.
    /// - Parameters:
    ///   - clock: of this moment: what is over by it stays over.
    ///   - holdsData: false when no entry is older than this.
    /// - Returns: false when no rule changes.
    package mutating func declare(
        _ state: UInt16, _ ttl: StateTimeToLive, in groups: KeyGroupRange, _ clock: ExpiryClock, holdsData: Bool
    ) -> Bool {
        var hasChanged = false
        var hasMoved = false
        var next = UInt32(groups.first)
        var rules: [ExpiryRule] = []
        /// Key groups of the state that have had no time to live.
        func begin(until end: UInt32) {
            guard ttl.milliseconds > 0, next < end else { return }
            let range = KeyGroupRange(first: UInt16(next), last: UInt16(end - 1))
            var rule = ExpiryRule(
                keyGroups: range, state: state, storedTTL: ttl.milliseconds, ttl: ttl.milliseconds,
                isEventTime: ttl.isEventTime)
            // As if written at this moment.
            if holdsData {
                rule.expiryOfNever = rule.writtenNow(clock)
                hasMoved = true
            }
            rules.append(rule)
            hasChanged = true
        }
        for var rule in all where rule.state == state && rule.keyGroups.overlaps(groups) {
            begin(until: UInt32(rule.keyGroups.first))
            if rule.change(to: ttl, clock) {
                hasChanged = true
                hasMoved = true
            }
            rules.append(rule)
            next = UInt32(rule.keyGroups.last) + 1
        }
        begin(until: UInt32(groups.last) + 1)
        if hasChanged {
            replace(all.filter { $0.state != state } + rules, changes: changes + (hasMoved ? 1 : 0))
        }
        return hasChanged
    }

    /// Takes the rules of a part of a tree that is put together.
    mutating func unite(_ other: ExpiryRules, clippedTo groups: KeyGroupRange) {
        let clipped = other.all.compactMap { rule -> ExpiryRule? in
            guard let shared = rule.keyGroups.intersection(groups) else { return nil }
            var rule = rule
            rule.keyGroups = shared
            return rule
        }
        replace(all + clipped, changes: max(changes, other.changes))
    }

    private mutating func replace(_ rules: [ExpiryRule], changes newChanges: UInt64) {
        var joined: [ExpiryRule] = []
        for rule in rules.sorted(by: ExpiryRules.isInOrder) {
            if let last = joined.last, rule.continues(last) {
                joined[joined.count - 1].keyGroups = KeyGroupRange(
                    first: last.keyGroups.first, last: rule.keyGroups.last)
            } else {
                joined.append(rule)
            }
        }
        all = joined
        changes = newChanges
        moving = joined.filter { !$0.isPlain }
    }
}

extension ExpiryClock {
    fileprivate func earlier(_ other: ExpiryClock) -> ExpiryClock {
        ExpiryClock(processing: min(processing, other.processing), event: min(event, other.event))
    }
}

extension ExpiryRules {
    /// `varint` changes, `varint` count, then for each: `u16` first and last key group, `u16` state, `varint` stored and current
    /// time to live, `u8` 1 for event time, `varint` ended by each clock, `u64` expiry of entries without one.
    func encode(into writer: inout ByteWriter) {
        writer.writeVarint(changes)
        writer.writeVarint(UInt64(all.count))
        for rule in all {
            writer.writeInteger(rule.keyGroups.first)
            writer.writeInteger(rule.keyGroups.last)
            writer.writeInteger(rule.state)
            writer.writeVarint(rule.storedTTL)
            writer.writeVarint(rule.ttl)
            writer.writeUInt8(rule.isEventTime ? 1 : 0)
            writer.writeVarint(rule.endedProcessing)
            writer.writeVarint(rule.endedEvent)
            writer.writeInteger(rule.expiryOfNever.rawValue)
        }
    }

    static func decode(_ reader: inout ByteReader) -> ExpiryRules? {
        guard let changes = reader.readVarint(), changes <= EngineLimits.numberMax, let count = reader.readVarint(),
            count <= UInt64(reader.remaining)
        else { return nil }
        var rules: [ExpiryRule] = []
        for _ in 0..<count {
            guard let rule = ExpiryRule.decode(&reader) else { return nil }
            rules.append(rule)
        }
        return ExpiryRules(rules, changes: changes)
    }
}

extension ExpiryRule {
    fileprivate static func decode(_ reader: inout ByteReader) -> ExpiryRule? {
        let range = StateTimeToLive.millisecondsMax
        guard let first = reader.readInteger(as: UInt16.self), let last = reader.readInteger(as: UInt16.self),
            first <= last, let state = reader.readInteger(as: UInt16.self), let stored = reader.readVarint(),
            (1...range).contains(stored), let ttl = reader.readVarint(), ttl <= range,
            let isEventTime = reader.readUInt8(), isEventTime <= 1,
            let processing = reader.readVarint(), processing < 1 << 63, let event = reader.readVarint(),
            event < 1 << 63, let never = reader.readInteger(as: UInt64.self)
        else { return nil }
        var rule = ExpiryRule(
            keyGroups: KeyGroupRange(first: first, last: last), state: state, storedTTL: stored, ttl: ttl,
            isEventTime: isEventTime == 1)
        rule.endedProcessing = processing
        rule.endedEvent = event
        rule.expiryOfNever = Expiry(rawValue: never)
        return rule
    }
}
