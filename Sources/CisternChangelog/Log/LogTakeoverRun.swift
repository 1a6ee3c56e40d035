// Carries out what `LogTakeover` decides: reads the list, recovers the last two ledgers, makes one of its own, swaps the list.

internal import CisternLogProtocol
internal import CisternPrimitives

struct LogTakeoverRun {
    let name: String
    let attempt: UInt64
    let client: LedgerClient
    let metadata: any LogMetadataService
    let options: ChangelogOptions

    struct Taken {
        let list: Versioned<LogMetadata>
        let ledger: LedgerID
        let metadata: Versioned<LedgerMetadata>
    }

    func run() async throws(ChangelogError) -> Taken {
        let deadline = ContinuousClock.now + options.takeoverTimeout
        var machine = LogTakeover(attempt: attempt)
        var created: [LedgerID: Versioned<LedgerMetadata>] = [:]
        var actions: [LogTakeover.Action] = []
        machine.start(into: &actions)
        var next = 0
        while next < actions.count {
            guard ContinuousClock.now < deadline else { throw failure("no answer for \(options.takeoverTimeout)") }
            let action = actions[next]
            next += 1
            switch action {
            case .metadata(let request):
                let result = await metadata.ask(request, ofLog: name)
                if result == .unavailable { await pause() }
                machine.receive(result, into: &actions)
            case .recover(let ledger):
                do throws(LedgerError) {
                    let found = try await client.recover(ledger, candidates: await metadata.writableNodes())
                    machine.recovered(ledger, last: found.last, into: &actions)
                } catch {
                    if error.failure == .deleted {
                        // Truncated meanwhile: the list is read again.
                        machine = LogTakeover(attempt: attempt)
                        actions = []
                        next = 0
                        machine.start(into: &actions)
                    } else if error.mayPass {
                        await pause()
                        actions.append(.recover(ledger))
                    } else {
                        throw ChangelogError.ledger(log: name, error)
                    }
                }
            case .createLedger:
                let made = try await create()
                created[made.0] = made.1
                machine.created(made.0, into: &actions)
            case .owned(let list, let ledger, _):
                guard let made = created[ledger] else { throw failure("\(ledger) is not this attempt's") }
                return Taken(list: list, ledger: ledger, metadata: made)
            case .lost(let owner, let unused):
                await discard(unused)
                throw ChangelogError.lost(log: name, attempt: attempt, to: owner)
            case .failed(let reason, let unused):
                await discard(unused)
                throw failure("\(reason)")
            }
        }
        throw failure("the protocol came to no end; report this")
    }

    /// A new ledger on the best nodes; waits for the store, not for nodes.
    func create() async throws(ChangelogError) -> (LedgerID, Versioned<LedgerMetadata>) {
        let deadline = ContinuousClock.now + options.takeoverTimeout
        while ContinuousClock.now < deadline {
            let nodes = await metadata.writableNodes()
            guard nodes.count >= options.sizes.ensemble else {
                throw ChangelogError.tooFewNodes(log: name, found: nodes.count, wanted: options.sizes.ensemble)
            }
            let ensemble = Array(nodes.prefix(options.sizes.ensemble))
            if let made = await metadata.createLedger(options.sizes, on: ensemble) { return made }
            await pause()
        }
        throw failure("metadata created no ledger for \(options.takeoverTimeout)")
    }

    private func discard(_ ledger: LedgerID?) async {
        if let ledger { _ = await metadata.deleteLedger(ledger) }
    }

    private func pause() async { try? await Task.sleep(for: options.retryInterval) }

    private func failure(_ detail: String) -> ChangelogError {
        .takeover(log: name, attempt: attempt, detail: detail)
    }
}
