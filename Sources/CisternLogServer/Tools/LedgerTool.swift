// Ledgers as an operator looks at them and, when told to, closes and removes them.
//
// Nothing here is a ledger's writer or repair: reading and verifying fence nothing, so they may be done while everything runs.

internal import CisternChangelog
internal import CisternDaemon
internal import CisternLogProtocol
internal import CisternLogRepair
package import CisternMetadata
internal import CisternMetadataEtcd
package import CisternPrimitives
internal import CisternTransport
internal import NIOPosix

/// A ledger and what refers to it.
package struct LedgerListing: Hashable, Sendable {
    package let ledger: LedgerID
    let metadata: LedgerMetadata
    let version: MetadataVersion
    /// The log that has it; nil: none has.
    package let log: String?

    package var isClosed: Bool { metadata.closedLastEntry != nil }

    package func isOn(node: UInt64) -> Bool { metadata.allNodes.contains(LogNodeID(node)) }
}

/// What was asked for cannot be done; says what to do instead.
package struct LedgerToolError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String
}

package struct LedgerTool: Sendable {
    private let store: any MetadataStore
    private let ledgers: LedgerStore
    private let client: LedgerClient
    private let closesStore: @Sendable () -> Void

    /// Throws when the settings cannot work; asks nothing yet.
    package init(_ settings: LedgerToolSettings) throws {
        let etcd = try settings.openMetadata()
        var options = LedgerClientOptions()
        options.transport.client = ServerVersion.name
        do throws(ServerStartError) {
            try settings.protect(&options.transport)
        } catch {
            etcd.close()
            throw error
        }
        store = etcd
        ledgers = LedgerStore(etcd, keys: MetadataKeys(cluster: settings.cluster)) { _ in }
        client = LedgerClient(
            group: MultiThreadedEventLoopGroup.singleton, addresses: ledgers, metadata: ledgers, options: options)
        closesStore = { etcd.close() }
    }

    package func close() async {
        await client.close()
        closesStore()
    }

    // MARK: Looking

    /// In the order of their ids.
    package func list() async throws(MetadataError) -> [LedgerListing] {
        // Ledgers first: one that is in a log by the time that the logs are read is told to be.
        var all: [(LedgerID, Versioned<LedgerMetadata>)] = []
        try await ledgers.forEachLedger { ledger, found in all.append((ledger, found)) }
        let logs = try await logs()
        return all.map { ledger, found in
            LedgerListing(
                ledger: ledger, metadata: found.value, version: found.version, log: logs.owner[ledger])
        }
    }

    private func logs() async throws(MetadataError) -> (owner: [LedgerID: String], newest: LedgerID?) {
        var owner: [LedgerID: String] = [:]
        try await ledgers.forEachLog { name, log in
            for ledger in log.value.ledgers { owner[ledger] = name }
        }
        return (owner, owner.keys.max())
    }

    package func find(_ number: UInt64) async throws -> LedgerListing {
        let ledger = LedgerID(number)
        guard let found = try await ledgers.records.get(LedgerMetadata.self, ledgers.keys.ledger(ledger)) else {
            throw LedgerToolError(
                description:
                    "there is no ledger \(number) in \(ledgers.keys.root): `cistern ledger ls` lists those there are"
            )
        }
        return LedgerListing(
            ledger: ledger, metadata: found.value, version: found.version, log: try await logs().owner[ledger])
    }

    /// What a node knows of a ledger.
    package struct NodeView: Hashable, Sendable {
        let node: LogNodeID
        /// nil: it is not registered now.
        let address: String?
        /// nil: it gave no answer.
        let lastAddConfirmed: EntryID?
        let isFenced: Bool
    }

    package func nodes(of listing: LedgerListing) async -> [NodeView] {
        var views: [NodeView] = []
        let question = NodeRequest.readLAC(ReadLACRequest(ledger: listing.ledger, fence: false))
        for node in listing.metadata.allNodes.sorted() {
            let address = await ledgers.registration(of: node)?.address
            var view = NodeView(node: node, address: address, lastAddConfirmed: nil, isFenced: false)
            if address != nil, case .lac(let reply)? = await client.ask(question, of: node), reply.refusal == nil {
                view = NodeView(
                    node: node, address: address, lastAddConfirmed: reply.lac, isFenced: reply.isFenced)
            }
            views.append(view)
        }
        return views
    }

    /// The last entry that can be read: of a ledger that is not closed, the last that its nodes know to be acknowledged.
    package func lastEntry(of listing: LedgerListing) async -> EntryID {
        if let last = listing.metadata.closedLastEntry { return last }
        return await client.lastAddConfirmed(of: listing.ledger, on: listing.metadata.lastFragment.ensemble)
    }

    /// Entries from `first` through `last`, which both exist.
    package func read(
        _ listing: LedgerListing, from first: EntryID, through last: EntryID,
        _ visit: (EntryID, [UInt8]) throws -> Void
    ) async throws {
        let reader = await client.openReader(
            listing.ledger, metadata: listing.metadata, from: first, through: last)
        defer { reader.stop() }
        while let batch = try await reader.nextBatch() {
            for (offset, body) in batch.bodies.enumerated() { try visit(batch.first.advanced(by: offset), body) }
        }
    }

    /// How long a copy of an acknowledged entry may be on its way before it is said to be missing.
    private static let copyGrace = Duration.seconds(1)

    /// Every copy of every entry; what is wrong is looked at twice, because ledgers move while they are looked at.
    package func verify(_ listing: LedgerListing) async throws -> VerificationReport {
        let found = await client.verify(listing.ledger, metadata: listing.metadata)
        if found.isWhole { return VerificationReport(found) }
        if !listing.isClosed && !found.faults.isEmpty { try await Task.sleep(for: Self.copyGrace) }
        let key = ledgers.keys.ledger(listing.ledger)
        // Its log was truncated, or it was removed: nodes may drop its entries.
        guard let now = try await ledgers.records.get(LedgerMetadata.self, key) else {
            return VerificationReport(found, isRemoved: true)
        }
        return VerificationReport(await client.verifyAgain(found, metadata: now.value))
    }

    // MARK: Changing

    /// Closes a ledger for its writer, which is fenced.
    /// - Returns: its last entry.
    package func recover(_ listing: LedgerListing) async throws -> EntryID {
        if let last = listing.metadata.closedLastEntry { return last }
        return try await client.recover(listing.ledger, candidates: await ledgers.writableNodes()).last
    }

    /// Removes a closed ledger that no log has. Log nodes drop their copies when they look for it the next time.
    /// - Parameter force: also when it is younger than all ledgers of logs, and somebody may be about to put it into one.
    package func remove(_ listing: LedgerListing, force: Bool) async throws {
        let number = listing.ledger.rawValue
        if let log = listing.log {
            throw LedgerToolError(
                description:
                    "ledger \(number) is in log \(log): what it holds would be missing there; it goes with a truncation"
            )
        }
        guard listing.isClosed else {
            throw LedgerToolError(
                description:
                    "ledger \(number) is not closed, and somebody may write to it: close it first with `cistern ledger recover "
                    + "\(number)`, which fences its writer")
        }
        let newest = try await logs().newest
        guard force || newest.map({ listing.ledger < $0 }) == true else {
            throw LedgerToolError(
                description:
                    "ledger \(number) is younger than every ledger in a log: somebody who takes a log over may be about to put "
                    + "it there; remove it when younger ones are in use, or give --force when nobody writes to logs")
        }
        do throws(MetadataError) {
            try await ledgers.deleteLedger(listing.ledger, expected: listing.version)
        } catch {
            guard case .conflict = error.reason else { throw error }
            throw LedgerToolError(
                description: "ledger \(number) was changed meanwhile; look at it with `cistern ledger show \(number)`")
        }
    }
}
