// What the metadata of a file tells of what has expired in it, by the rules of the tree that refers to it. Never more than is
// certain: a file that says it is dead is dead, and one that says it holds expired entries loses them when it is rewritten.

package import CisternPrimitives

extension FileRecord {
    /// True when every put and append of the window has expired and nothing is deleted: reading it can only show what is dead.
    package func isExpired(_ clock: ExpiryClock, _ rules: ExpiryRules = ExpiryRules()) -> Bool {
        if summary.deleteCount > 0 { return false }
        if rules.areIdle { return isExpired(until: clock) }
        guard let shown = window.intersection(summary.keyGroups) else { return false }
        guard let states = summary.details?.states else { return isExpired(until: rules.over(in: shown, clock)) }
        return states.allSatisfy { state in
            let over = rules.over(state.state, in: shown, clock)
            return state.processing.latest <= over.until.processing && state.event.latest <= over.until.event
                && (state.neverExpiringCount == 0 || over.never != .never && over.until.isExpired(over.never))
        }
    }

    private func isExpired(until over: ExpiryClock) -> Bool {
        summary.neverExpiringCount == 0 && summary.maxExpiryProcessing <= over.processing
            && summary.maxExpiryEvent <= over.event
    }

    /// For how long, in milliseconds of its clock, the file has held an expired entry; nil when it may hold none.
    package func expiredSince(_ clock: ExpiryClock, _ rules: ExpiryRules = ExpiryRules()) -> UInt64? {
        guard let shown = window.intersection(summary.keyGroups) else { return nil }
        guard let states = summary.details?.states else {
            // Of a state whose entries live on longer by now nothing is known but that the last of all has expired.
            if !rules.areIdle {
                let over = rules.over(in: shown, clock)
                return older(over.age(processing: summary.maxExpiryProcessing, event: summary.maxExpiryEvent))
            }
            let hasEarliest = summary.formatVersion >= TableFormat.versionWithPrefixes
            return older(
                clock.age(
                    processing: hasEarliest ? summary.minExpiryProcessing : summary.maxExpiryProcessing,
                    event: hasEarliest ? summary.minExpiryEvent : summary.maxExpiryEvent))
        }
        return states.lazy.compactMap { $0.expiredSince(rules.over($0.state, in: shown, clock)) }.max()
    }

    /// The same by state, where the file tells.
    func expiredSinceByState(
        _ clock: ExpiryClock, _ rules: ExpiryRules, _ visit: (UInt16, UInt64) -> Void
    ) {
        guard let shown = window.intersection(summary.keyGroups), let states = summary.details?.states else { return }
        for state in states {
            if let age = state.expiredSince(rules.over(state.state, in: shown, clock)) { visit(state.state, age) }
        }
    }

    /// How many of the file's entries have expired, from 0 to 1, if expiries lie evenly between the earliest and the latest.
    package func expiredShare(_ clock: ExpiryClock, _ rules: ExpiryRules = ExpiryRules()) -> Double {
        guard summary.entryCount > 0, let shown = window.intersection(summary.keyGroups) else { return 0 }
        guard let states = summary.details?.states else { return rules.areIdle ? summary.expiredShare(clock) : 0 }
        var expired = 0.0
        for state in states {
            let over = rules.over(state.state, in: shown, clock)
            let share = max(
                state.processing.share(until: over.until.processing), state.event.share(until: over.until.event))
            expired += Double(state.expiringCount) * share
            if over.never != .never, over.until.isExpired(over.never) { expired += Double(state.neverExpiringCount) }
        }
        return expired / Double(summary.entryCount)
    }
}

extension StateSummary {
    fileprivate func expiredSince(_ over: (until: ExpiryClock, never: Expiry)) -> UInt64? {
        var age = older(over.until.age(processing: processing.earliest, event: event.earliest))
        if neverExpiringCount > 0, over.never != .never, over.until.isExpired(over.never) {
            let now = over.never.isEventTime ? over.until.event : over.until.processing
            age = max(age ?? 0, now - over.never.milliseconds)
        }
        return age
    }
}

extension TableSummary {
    /// Of files that do not tell of their states. Which share of the entries has expired, as far as can be told: between the earliest and the latest expiry of a clock
    /// they are taken to lie evenly.
    fileprivate func expiredShare(_ clock: ExpiryClock) -> Double {
        let expiring = entryCount - min(entryCount, neverExpiringCount.saturatingAdding(deleteCount))
        if entryCount == 0 || expiring == 0 { return 0 }
        let spans = [
            (minExpiryProcessing, maxExpiryProcessing, clock.processing), (minExpiryEvent, maxExpiryEvent, clock.event),
        ]
        // Whose clock an entry goes by is not counted: the clock that lets fewer go decides.
        let shares = spans.filter { $0.1 > 0 }.map { earliest, latest, now -> Double in
            if now >= latest { return 1 }
            if now <= earliest || earliest == 0 { return 0 }
            return Double(now - earliest) / Double(latest - earliest)
        }
        return (shares.min() ?? 0) * Double(expiring) / Double(entryCount)
    }
}

extension ExpirySpan {
    fileprivate func share(until over: UInt64) -> Double {
        if isEmpty || over < earliest { return 0 }
        if over >= latest { return 1 }
        return Double(over - earliest + 1) / Double(latest - earliest + 1)
    }
}

extension ExpiryClock {
    /// Ages of what expired at these times, where 0 is none.
    fileprivate func age(processing processingTime: UInt64, event eventTime: UInt64) -> (UInt64?, UInt64?) {
        (
            processingTime > 0 && processingTime <= processing ? processing - processingTime : nil,
            eventTime > 0 && eventTime <= event ? event - eventTime : nil
        )
    }
}

private func older(_ ages: (UInt64?, UInt64?)) -> UInt64? {
    guard let first = ages.0 else { return ages.1 }
    guard let second = ages.1 else { return first }
    return max(first, second)
}
