// A log of one keyed-state writer: entries go to its last ledger, which is followed by a new one when it is large; what a
// materialisation has made needless is cut off in front.
//
//   append ─► the present ledger ─┬─► (large enough) LogOwner ─► a new ledger in the list ─► the old one is closed
//   persist ─► its acknowledgement│
//   truncate ─► LogOwner ─► the list without old ledgers ─► they are deleted
//
// A newer attempt that takes the log over closes its ledgers: from then on every call here throws `lost`.

package import CisternLogProtocol
package import CisternPrimitives

package actor Changelog {
    package nonisolated let name: String
    package nonisolated let attempt: UInt64
    private let client: LedgerClient
    private let metadata: any LogMetadataService
    private let options: ChangelogOptions
    private var owner: LogOwner
    private var writer: LedgerWriterHandle
    /// Writers that are being closed: their entries are waited for as well.
    private var closing: [LedgerID: LedgerWriterHandle] = [:]
    private var bytes = 0
    private var ended: ChangelogError?
    private var retrying = false

    /// Takes the log over from whoever has it, and makes it when it is not there yet. An older attempt cannot append any more when
    /// this returns, and everything it was told is durable is in the log.
    /// - Parameter attempt: higher than that of every earlier owner.
    package static func takeOver(
        _ name: String, attempt: UInt64, client: LedgerClient, metadata: any LogMetadataService,
        options: ChangelogOptions = ChangelogOptions()
    ) async throws(ChangelogError) -> Changelog {
        let taken = try await LogTakeoverRun(
            name: name, attempt: attempt, client: client, metadata: metadata, options: options
        ).run()
        let writer = await client.openWriter(
            taken.ledger, metadata: taken.metadata, candidates: await metadata.writableNodes(),
            moreCandidates: { await metadata.writableNodes() })
        return Changelog(name, attempt, client, metadata, options, taken.list, writer)
    }

    private init(
        _ name: String, _ attempt: UInt64, _ client: LedgerClient, _ metadata: any LogMetadataService,
        _ options: ChangelogOptions, _ list: Versioned<LogMetadata>, _ writer: LedgerWriterHandle
    ) {
        self.name = name
        self.attempt = attempt
        self.client = client
        self.metadata = metadata
        self.options = options
        self.writer = writer
        owner = LogOwner(attempt: attempt, list: list, ledger: writer.ledger)
    }

    /// Ledgers of the log, the present one last.
    package var ledgers: [LedgerID] { owner.list.value.ledgers }
    /// The first place that is still needed; nil before the first truncation.
    package var trimPoint: LogSequenceNumber? { owner.list.value.trimPoint }

    // MARK: Writing

    /// Appends an entry, after a wait for room in the window. It is durable when `persist` through it has returned. Appends of one
    /// task come in their order.
    @discardableResult
    package func append(_ body: [UInt8]) async throws(ChangelogError) -> LogSequenceNumber {
        while true {
            if let ended { throw ended }
            let writer = writer
            do throws(LedgerError) {
                if let entry = try writer.append(body, acknowledged: nil) {
                    bytes += body.count
                    if bytes >= options.ledgerBytesMax && !owner.isRolling { own { $0.roll(into: &$1) } }
                    return LogSequenceNumber(ledger: writer.ledger, entry: entry)
                }
                // Full: half of what is in it makes room.
                try await writer.acknowledged(writer.lastAcknowledged.next)
            } catch {
                // Its ledger was followed by a new one meanwhile.
                if case .writerClosed = error, writer !== self.writer { continue }
                throw end(error)
            }
        }
    }

    /// Returns when everything up to `place` is durable on an ack quorum.
    package func persist(through place: LogSequenceNumber) async throws(ChangelogError) {
        if let ended { throw ended }
        // A ledger behind the present one was closed with all its entries.
        guard place.ledger >= (closing.keys.min() ?? writer.ledger) else { return }
        let waited = place.ledger == writer.ledger ? writer : closing[place.ledger]
        // Entries of the ledgers before it are durable first.
        for (ledger, writer) in closing.sorted(by: { $0.key < $1.key }) where ledger < place.ledger {
            do throws(LedgerError) { try await writer.close() } catch { throw end(error) }
        }
        do throws(LedgerError) { try await waited?.acknowledged(place.entry) } catch { throw end(error) }
    }

    /// All before `point` is not needed any more. Ledgers that are needless are deleted, later and not waited for.
    package func truncate(to point: LogSequenceNumber) throws(ChangelogError) {
        if let ended { throw ended }
        own { $0.trim(to: point, into: &$1) }
    }

    /// Closes the present ledger behind what was appended: a takeover then finds nothing to recover.
    package func close() async throws(ChangelogError) {
        if ended == .closed(log: name) { return }
        if let ended { throw ended }
        ended = .closed(log: name)
        own { $0.abandon(into: &$1) }
        do throws(LedgerError) {
            for writer in closing.values { try await writer.close() }
            try await writer.close()
        } catch {
            throw ChangelogError.ledger(log: name, error)
        }
    }

    // MARK: Reading

    /// Gives every entry from `start` on to `body`, in order, up to what this attempt has been told is durable: for a restore before
    /// the first append, everything of earlier attempts.
    package nonisolated func read(
        from start: LogSequenceNumber?, _ body: (LogEntry) async throws -> Void
    ) async throws {
        let (ledgers, trimPoint, present, last) = await place()
        if let start, let first = ledgers.first, start.ledger < first {
            throw ChangelogError.unknownPlace(log: name, start)
        }
        if let start, let trimPoint, start < trimPoint { throw ChangelogError.unknownPlace(log: name, start) }
        for ledger in ledgers where ledger >= start?.ledger ?? ledger {
            guard case .found(let found) = await metadata.ask(.get(ledger)) else {
                throw ChangelogError.unknownPlace(log: name, LogSequenceNumber(ledger: ledger, entry: .first))
            }
            let first = start?.ledger == ledger ? max(.first, start?.entry ?? .first) : .first
            var end: EntryID?
            if ledger == present {
                guard last >= first else { continue }
                end = last
            }
            let reader = await client.openReader(ledger, metadata: found.value, from: first, through: end)
            while let batch = try await reader.nextBatch() {
                for (offset, bytes) in batch.bodies.enumerated() {
                    let place = LogSequenceNumber(ledger: ledger, entry: batch.first.advanced(by: offset))
                    try await body(LogEntry(place: place, body: bytes))
                }
            }
        }
    }

    private func place() -> ([LedgerID], LogSequenceNumber?, LedgerID, EntryID) {
        (ledgers, trimPoint, writer.ledger, writer.lastAcknowledged)
    }

    // MARK: The list

    private func own(_ event: (inout LogOwner, inout [LogOwner.Action]) -> Void) {
        var actions: [LogOwner.Action] = []
        event(&owner, &actions)
        for action in actions { carryOut(action) }
    }

    private func carryOut(_ action: LogOwner.Action) {
        switch action {
        case .metadata(let request):
            Task {
                let result = await metadata.ask(request, ofLog: name)
                own { $0.receive(result, into: &$1) }
                if result == .unavailable { retryLater() }
            }
        case .createLedger: Task { await createLedger() }
        case .rolled(_, let next): Task { await write(to: next) }
        case .trimmed(_, let ledgers): Task { await delete(ledgers) }
        case .discard(let ledger): Task { await delete([ledger]) }
        case .lost(let owner, let unused):
            ended = ended ?? .lost(log: name, attempt: attempt, to: owner)
            if let unused { Task { await delete([unused]) } }
        }
    }

    private var created: [LedgerID: Versioned<LedgerMetadata>] = [:]

    private func createLedger() async {
        let run = LogTakeoverRun(name: name, attempt: attempt, client: client, metadata: metadata, options: options)
        if let made = try? await run.create() {
            created[made.0] = made.1
            own { $0.created(made.0, into: &$1) }
        } else {
            // Too few nodes for a new ledger: the present one grows until there are enough.
            owner.creationFailed()
            retryLater()
        }
    }

    /// The new ledger is in the list: what is appended from now on goes there.
    private func write(to ledger: LedgerID) async {
        guard let made = created.removeValue(forKey: ledger) else { return }
        let next = await client.openWriter(
            ledger, metadata: made, candidates: await metadata.writableNodes(),
            moreCandidates: { [metadata] in await metadata.writableNodes() })
        let old = writer
        closing[old.ledger] = old
        writer = next
        bytes = 0
        do throws(LedgerError) {
            try await old.close()
            closing[old.ledger] = nil
            own { $0.closed(old.ledger, into: &$1) }
        } catch {
            _ = end(error)
        }
    }

    private func delete(_ ledgers: [LedgerID]) async {
        for ledger in ledgers {
            // What is left over is in no list; it costs space and nothing else.
            for _ in 0..<10 {
                if await metadata.deleteLedger(ledger) { break }
                try? await Task.sleep(for: options.retryInterval)
            }
        }
    }

    private func retryLater() {
        guard !retrying else { return }
        retrying = true
        Task {
            try? await Task.sleep(for: options.retryInterval)
            retrying = false
            own { $0.retry(into: &$1) }
        }
    }

    /// A ledger that failed ends the log for this attempt.
    private func end(_ error: LedgerError) -> ChangelogError {
        if let ended { return ended }
        let new: ChangelogError =
            error.failure == .fenced || error.failure == .deleted
            ? .lost(log: name, attempt: attempt, to: nil) : .ledger(log: name, error)
        // Too large an entry says nothing about the log.
        if case .entryTooLarge = error { return new }
        ended = new
        own { $0.abandon(into: &$1) }
        return new
    }
}
