// Merging that nothing forces, as the tree's owner sees it: when it looks whether there is some, and what gives way to what.
//
//   flush, compaction, open ─► not one run yet ─► a look after `quietMilliseconds`, then after twice as long, and so on
//   no batch since the last look ─► quiet: the credit of writes and of time may be spent
//   many reads ─► a look at once: the credit of reads may be spent
//   level 0 or a full compaction is due and a merge of this kind is in its way ─► the merge is given up
//
// Quiet is told by the number of batches, so that writes need no clock. Every method runs on the owner's executor.

internal import CisternPrimitives

struct TreeRest {
    var credit = RestCredit()
    /// Batches when the tree was seen to be quiet, which it is as long as there are no more.
    var quietBatches: UInt64?
    /// The look that counts; earlier ones were put off.
    var look: UInt64 = 0
    var isLookScheduled = false
    var lookDelay: UInt64 = 0
    var batchesAtLook: UInt64 = 0
    var lookScheduledAt: UInt64 = 0
    /// What of the reads is in the credit.
    var passes: UInt64 = 0
    var scans: UInt64 = 0
}

extension Tree {
    /// A power of two.
    static let readsPerLook: UInt64 = 1 << 16
    private static let lookDelayMax: UInt64 = 60_000

    /// Runs that a read may have to look into.
    var runs: Int { levelZeroDepth + state.levels.dropFirst().count { !$0.isEmpty } }

    /// Called when nothing is due and nothing runs.
    func startRest() {
        guard options.compaction.restPercent > 0, lifecycle == .open, compactions.isEmpty, sealed.isEmpty, !isFlushing,
            failures.cause == nil, failures.compactionBlock == nil
        else { return }
        countReads()
        let isQuiet = rest.quietBatches == counters.batches
        let budget = rest.credit.budget(isQuiet: isQuiet)
        if budget.whole > 0,
            let plan = picker.restPlan(
                state.levels, clock: clock, rules: state.expiryRules, budget: budget)
        {
            if plan.kind == .merge { rest.credit.spend(plan.inputBytes) }
            counters.restCompactions += 1
            start(plan, isRequested: false)
        } else if runs > 1 {
            scheduleLook()
        }
    }

    /// New files: quiet is looked for anew, soon.
    func restAfterFlush(_ bytes: UInt64) {
        rest.credit.flushed(bytes, percent: options.compaction.restPercent, treeBytes: treeBytes)
        rest.look += 1
        rest.isLookScheduled = false
        rest.lookDelay = 0
    }

    /// Takes the credit for as much as is lost, so that what cannot be merged is not tried again and again.
    func restFailed() { rest.credit = RestCredit() }

    /// Called for every `readsPerLook` reads.
    @inline(never)
    func lookAfterReads() {
        guard rest.isLookScheduled else { return }
        mailbox.post { $0.startRest() }
    }

    /// Gives up a merge of this kind that keeps more urgent work from starting.
    func interruptRest() {
        for compaction in compactions where compaction.plan.priority == .rest && !compaction.isCommitFailed {
            compaction.isInterrupted = true
            compaction.cancellation.cancel()
        }
    }

    /// Level 0 has enough runs beside those that are being merged, and none of its compactions could start.
    var isRestInTheWay: Bool {
        guard compactions.contains(where: { $0.plan.priority == .rest }),
            !compactions.contains(where: { $0.plan.priority == .levelZero })
        else { return false }
        let taken = compactions.reduce(0) { $0 + $1.plan.inputs.count { $0.level == 0 } }
        return state.levels[0].count - taken >= options.compaction.levelZeroTrigger
    }

    private var treeBytes: UInt64 { state.files.windowedBytes }

    private func countReads() {
        let passes = cacheReader.passes - rest.passes
        let scans = (counters.scans - rest.scans) * UInt64(RestCredit.passesPerScan * max(runs - 1, 0))
        rest.passes += passes
        rest.scans = counters.scans
        if passes + scans > 0 { rest.credit.passed(passes + scans, treeBytes: treeBytes) }
    }

    private func scheduleLook() {
        if rest.isLookScheduled { return }
        rest.isLookScheduled = true
        let first = options.compaction.quietMilliseconds
        rest.lookDelay = rest.lookDelay == 0 ? first : max(first, min(rest.lookDelay * 2, Tree.lookDelayMax))
        rest.batchesAtLook = counters.batches
        rest.lookScheduledAt = engine.time.monotonicNanoseconds
        rest.look += 1
        let (look, mailbox) = (rest.look, self.mailbox)
        engine.lanes.metadata.submit(afterMilliseconds: rest.lookDelay) {
            mailbox.post { $0.lookForRest(look) }
        }
    }

    private func lookForRest(_ look: UInt64) {
        guard lifecycle == .open, look == rest.look else { return }
        rest.isLookScheduled = false
        if counters.batches == rest.batchesAtLook {
            let now = engine.time.monotonicNanoseconds
            let idle = (now - min(rest.lookScheduledAt, now)) / 1_000_000
            rest.quietBatches = counters.batches
            rest.credit.idled(milliseconds: idle, treeBytes: treeBytes)
        }
        startCompaction()
    }
}
