// What the stored expiries of one state mean: entries hold when they expire by the time to live they were written with, and
// a rule moves that to the one that holds by now. So a change of a time to live is a change of a rule, and nothing is rewritten.
//
//   stored = write time + `storedTTL` ─► current = write time + `ttl`
//
// Writes are moved the other way when they come in, so all stored expiries of a state are counted with one `storedTTL`, whenever
// they were written. What was over when a time to live changed stays over: `ended…`. Page: proto-spec/entries.md.

/// The time to live that a state's writer gives it.
package struct StateTimeToLive: Equatable, Sendable {
    /// 0: none, entries live on.
    package let milliseconds: UInt64
    /// The clock that entries without an expiry are given one by.
    package let isEventTime: Bool

    package init(milliseconds: UInt64, isEventTime: Bool = false) {
        self.milliseconds = milliseconds
        self.isEventTime = isEventTime
    }

    package static let none = StateTimeToLive(milliseconds: 0)
    /// Keeps sums with clocks far below bit 63.
    package static let millisecondsMax: UInt64 = 1 << 50
}

package struct ExpiryRule: Equatable, Sendable {
    /// Where it holds. Trees that were united may have changed at different times.
    package var keyGroups: KeyGroupRange
    package let state: UInt16
    /// What stored expiries are counted with, in milliseconds; never 0, never changed.
    package let storedTTL: UInt64
    /// What holds, in milliseconds; 0: entries live on.
    package var ttl: UInt64
    package var isEventTime: Bool
    /// Stored expiries up to here, in milliseconds of each clock, were over when a time to live changed.
    package var endedProcessing: UInt64 = 0
    package var endedEvent: UInt64 = 0
    /// The stored expiry of entries that were written without one, before the state had a time to live: as if they were written
    /// when it got one. `.never` when there are none.
    package var expiryOfNever = Expiry.never

    /// - Precondition: `storedTTL` is not 0.
    package init(keyGroups: KeyGroupRange, state: UInt16, storedTTL: UInt64, ttl: UInt64, isEventTime: Bool) {
        precondition(storedTTL > 0, "stored expiries of state \(state) are counted with no time to live")
        self.keyGroups = keyGroups
        self.state = state
        self.storedTTL = storedTTL
        self.ttl = ttl
        self.isEventTime = isEventTime
    }

    /// True when stored expiries are the current ones.
    package var isPlain: Bool { ttl == storedTTL && endedProcessing == 0 && endedEvent == 0 && expiryOfNever == .never }

    /// What a stored expiry means. `Expiry.past` for what is over for good.
    package func current(_ stored: Expiry) -> Expiry {
        let stored = materialized(stored)
        if stored == .never { return .never }
        if stored.milliseconds <= (stored.isEventTime ? endedEvent : endedProcessing) { return .past }
        if ttl == 0 { return .never }
        return stored.moved(from: storedTTL, to: ttl) ?? .past
    }

    /// The stored expiry, also of an entry that was stored without one.
    package func materialized(_ stored: Expiry) -> Expiry { stored == .never ? expiryOfNever : stored }

    /// How an entry is stored that is written with an expiry by the time to live that holds.
    /// - Parameter clock: of this moment. An entry that lives by it lives when it is stored, even if the clock went back since
    ///   the time to live changed.
    package func stored(_ current: Expiry, _ clock: ExpiryClock) -> Expiry {
        if current == .never {
            // Written with the state's time to live switched off. The time of the write counts when it is switched on again.
            if ttl == 0 || expiryOfNever != .never { return beyondEnded(writtenNow(clock)) }
            return .never
        }
        if ttl == 0 { return beyondEnded(current) }
        let stored = current.moved(from: ttl, to: storedTTL) ?? Expiry(milliseconds: 1, like: current)
        return clock.isExpired(current) ? stored : beyondEnded(stored)
    }

    private func beyondEnded(_ stored: Expiry) -> Expiry {
        let ended = stored.isEventTime ? endedEvent : endedProcessing
        return stored.milliseconds > ended ? stored : Expiry(milliseconds: ended + 1, like: stored)
    }

    /// Stored expiries up to this, by each clock, are over.
    package func over(_ clock: ExpiryClock) -> ExpiryClock {
        ExpiryClock(
            processing: max(endedProcessing, over(clock.processing)), event: max(endedEvent, over(clock.event)))
    }

    private func over(_ now: UInt64) -> UInt64 {
        if ttl == 0 { return 0 }
        if ttl <= storedTTL { return sum(now, storedTTL - ttl) }
        return now - min(now, ttl - storedTTL)
    }

    /// - Returns: false when nothing changes.
    package mutating func change(to new: StateTimeToLive, _ clock: ExpiryClock) -> Bool {
        if new.milliseconds == ttl && (ttl == 0 || new.isEventTime == isEventTime) { return false }
        let over = over(clock)
        // Expiries have 63 bits, whatever a watermark may be.
        endedProcessing = min(over.processing, Expiry.millisecondsMax)
        endedEvent = min(over.event, Expiry.millisecondsMax)
        ttl = new.milliseconds
        if new.milliseconds > 0 { isEventTime = new.isEventTime }
        return true
    }

    /// When what is written at this moment expires, by the stored time to live.
    package func writtenNow(_ clock: ExpiryClock) -> Expiry {
        let now = isEventTime ? clock.event : clock.processing
        let like: Expiry = isEventTime ? .eventTime(milliseconds: 1) : .processingTime(milliseconds: 1)
        return Expiry(milliseconds: sum(now, storedTTL), like: like)
    }

    /// True when the two say the same about neighbouring key groups.
    package func continues(_ left: ExpiryRule) -> Bool {
        var joined = left
        joined.keyGroups = keyGroups
        return joined == self && UInt32(left.keyGroups.last) + 1 == UInt32(keyGroups.first)
    }
}

extension Expiry {
    /// Over by any clock.
    package static let past = Expiry.eventTime(milliseconds: 0)

    /// Neither 0 milliseconds nor more than fit: those mean something else.
    package init(milliseconds: UInt64, like other: Expiry) {
        let bounded = min(milliseconds, Expiry.millisecondsMax)
        self = other.isEventTime ? .eventTime(milliseconds: bounded) : .processingTime(milliseconds: bounded)
    }

    fileprivate static let millisecondsMax = UInt64(Int64.max)

    /// nil when that is not after the clock's beginning.
    fileprivate func moved(from old: UInt64, to new: UInt64) -> Expiry? {
        if new >= old { return Expiry(milliseconds: sum(milliseconds, new - old), like: self) }
        return milliseconds > old - new ? Expiry(milliseconds: milliseconds - (old - new), like: self) : nil
    }
}

/// The largest number where the sum does not fit.
private func sum(_ left: UInt64, _ right: UInt64) -> UInt64 {
    let (sum, isTooLarge) = left.addingReportingOverflow(right)
    return isTooLarge ? .max : sum
}
