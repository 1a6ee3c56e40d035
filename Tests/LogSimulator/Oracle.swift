// What must hold, and who looks: the oracle knows what every disk ever held, what was acknowledged and what was read, and
// checks each answer, each acknowledgement and each change of metadata at the moment it happens.

import CisternLogProtocol
import CisternPrimitives

/// A rule that does not hold.
package struct Violation: Sendable, CustomStringConvertible {
    package let rule: String
    package let found: String
    package let time: Int

    package var description: String { "at \(time): \"\(rule)\" does not hold: \(found)" }
}

final class Oracle {
    private unowned let world: World
    private(set) var violation: Violation?

    /// What was handed to a writer.
    private var written: [Place: [UInt8]] = [:]
    private(set) var acknowledged: [LedgerID: EntryID] = [:]
    private(set) var delivered: [LedgerID: EntryID] = [:]
    private var disks: [LogNodeID: Disk] = [:]

    private struct Disk {
        /// Durable at some time, whether damage took it or not.
        var held: Set<Place> = []
        var present: Set<Place> = []
        /// Taken by damage and not there again.
        var lost: Set<Place> = []
        var fenced: Set<LedgerID> = []
        var deleted: Set<LedgerID> = []
        /// Ledgers of which the node has said that they are fenced.
        var saidFenced: Set<LedgerID> = []
        var saidLAC: [LedgerID: EntryID] = [:]
    }

    /// What a node was bound to when it took a request.
    struct Promise {
        var isFenced = false
        var lac = EntryID.none
        var present: [EntryID] = []
        var lost: [EntryID] = []
    }

    init(world: World) { self.world = world }

    func violate(_ rule: String, _ found: @autoclosure () -> String) {
        guard violation == nil else { return }
        violation = Violation(rule: rule, found: found(), time: world.scheduler.now)
        world.trace("VIOLATION \(violation.map(\.description) ?? "")")
    }

    private func check(_ holds: Bool, _ rule: String, _ found: @autoclosure () -> String) {
        if !holds { violate(rule, found()) }
    }

    // MARK: Disks

    func durable(_ record: JournalRecord, on node: SimulatedNode) {
        var disk = disks.removeValue(forKey: node.id) ?? Disk()
        switch record {
        case .add(let ledger, let entry, _, _):
            let place = Place(ledger: ledger, entry: entry)
            disk.held.insert(place)
            disk.present.insert(place)
            disk.lost.remove(place)
        case .fence(let ledger): disk.fenced.insert(ledger)
        case .delete(let ledger):
            disk.deleted.insert(ledger)
            disk.present = disk.present.filter { $0.ledger != ledger }
            disk.lost = disk.lost.filter { $0.ledger != ledger }
        case .repaired(let ledger):
            disk.fenced.insert(ledger)
            disk.lost = disk.lost.filter { $0.ledger != ledger }
        case .lac, .limbo: break
        }
        disks[node.id] = disk
    }

    func lost(_ records: [JournalRecord], on node: SimulatedNode) {
        guard !records.isEmpty else { return }
        for record in records {
            switch record {
            case .add(let ledger, let entry, _, _):
                let place = Place(ledger: ledger, entry: entry)
                let wasThere = disks[node.id]?.present.remove(place) != nil
                if wasThere { disks[node.id]?.lost.insert(place) }
            case .delete(let ledger): disks[node.id]?.deleted.remove(ledger)
            case .fence, .lac, .limbo, .repaired: break
            }
        }
        disks[node.id]?.saidLAC = [:]
    }

    func accepted(_ record: JournalRecord, on node: SimulatedNode) {
        if case .add(let ledger, let entry, _, _) = record {
            check(
                disks[node.id]?.deleted.contains(ledger) != true, "an add after a delete is refused",
                "\(node.id) takes \(ledger):\(entry)")
        }
    }

    func discarded(_ ledger: LedgerID, on node: SimulatedNode) {
        check(
            !world.metadata.exists(ledger), "garbage collection removes only what metadata does not have",
            "\(node.id) removes \(ledger)")
    }

    // MARK: Answers

    func promise(of node: SimulatedNode, for request: NodeRequest) -> Promise {
        guard let disk = disks[node.id] else { return Promise() }
        var promise = Promise()
        promise.isFenced = disk.saidFenced.contains(request.ledger)
        promise.lac = disk.saidLAC[request.ledger] ?? .none
        if case .read(let read) = request {
            let range = read.first..<read.first.advanced(by: min(read.count, 64))
            promise.present = disk.present.filter { $0.ledger == read.ledger && range.contains($0.entry) }.map(\.entry)
            promise.lost = disk.lost.filter { $0.ledger == read.ledger && range.contains($0.entry) }.map(\.entry)
        }
        return promise
    }

    func answered(_ reply: NodeReply, to request: NodeRequest, by node: SimulatedNode, promise: Promise) {
        let ledger = reply.ledger
        let disk = disks[node.id] ?? Disk()
        switch reply {
        case .add(let add):
            guard add.refusal == nil, case .add(let asked) = request else { return }
            check(
                asked.isRecovery || !promise.isFenced, "a fence holds",
                "\(node.id) takes \(ledger):\(add.entry) of the writer")
            check(
                disk.held.contains(Place(ledger: ledger, entry: add.entry)),
                "an add is durable before it is answered", "\(node.id) has \(ledger):\(add.entry) not on disk")
        case .read(let read):
            guard read.refusal == nil else { return }
            for (offset, answer) in read.answers.enumerated() {
                let entry = read.first.advanced(by: offset)
                switch answer {
                case .present(let body):
                    check(
                        body == written[Place(ledger: ledger, entry: entry)], "a place has one value for ever",
                        "\(node.id) has another value of \(ledger):\(entry)")
                case .absent:
                    check(
                        !promise.present.contains(entry) || disk.deleted.contains(ledger),
                        "what a node holds is not called absent", "\(node.id) says so of \(ledger):\(entry)")
                    check(
                        !promise.lost.contains(entry)
                            || !disk.lost.contains(Place(ledger: ledger, entry: entry)),
                        "what a node has lost is not called absent", "\(node.id) says so of \(ledger):\(entry)")
                case .unknown: break
                }
            }
            said(lac: read.lac, isFenced: read.isFenced, ledger, node, promise)
        case .lac(let lac):
            guard lac.refusal == nil else { return }
            said(lac: lac.lac, isFenced: lac.isFenced, ledger, node, promise)
        }
    }

    private func said(lac: EntryID, isFenced: Bool, _ ledger: LedgerID, _ node: SimulatedNode, _ promise: Promise) {
        check(
            !isFenced || disks[node.id]?.fenced.contains(ledger) == true, "a fence is durable before it is answered",
            "\(node.id) says that \(ledger) is fenced")
        guard let metadata = world.metadata.ledgers[ledger]?.value else { return }
        // Damage may take a last add confirmed with it.
        check(
            lac >= min(promise.lac, disks[node.id]?.saidLAC[ledger] ?? .none), "the last add confirmed does not fall",
            "\(node.id) said \(promise.lac) of \(ledger) and says \(lac)")
        let stable = max(acknowledged[ledger] ?? .none, metadata.closedLastEntry ?? .none)
        check(
            lac <= stable, "the last add confirmed is acknowledged",
            "\(node.id) says \(lac) of \(ledger), acknowledged is \(stable)")
        if isFenced { disks[node.id]?.saidFenced.insert(ledger) }
        let said = max(lac, disks[node.id]?.saidLAC[ledger] ?? .none)
        disks[node.id]?.saidLAC[ledger] = said
    }

    // MARK: Clients

    func append(_ body: [UInt8], at place: Place) {
        check(written[place] == nil, "one writer gives out a place once", "\(place)")
        written[place] = body
    }

    func acknowledged(_ ledger: LedgerID, through last: EntryID, metadata: LedgerMetadata) {
        let before = acknowledged[ledger] ?? .none
        check(last > before, "acknowledgements rise", "\(ledger): \(last) after \(before)")
        acknowledged[ledger] = last
        guard let stored = world.metadata.ledgers[ledger]?.value else { return }
        for id in before.rawValue + 1...last.rawValue {
            let entry = EntryID(id)
            check(
                copies(of: entry, in: ledger, metadata) >= metadata.sizes.ack,
                "an acknowledged entry is on an ack quorum of its write set",
                "\(ledger):\(entry) on \(holders(of: entry, in: ledger)), \(metadata.short)")
        }
        if let closed = stored.closedLastEntry {
            check(last <= closed, "nothing is acknowledged beyond the close", "\(ledger): \(last), closed at \(closed)")
        }
        let list = world.metadata.log.value.ledgers
        check(
            list.contains(ledger) || ledger < (list.first ?? LedgerID(0)), "what is acknowledged is in the log",
            "\(ledger) is not in \(list)")
    }

    func delivered(_ body: [UInt8], at place: Place) {
        check(body == written[place], "a reader sees what was written", "\(place)")
        delivered[place.ledger] = max(place.entry, delivered[place.ledger] ?? .none)
        if let closed = world.metadata.ledgers[place.ledger]?.value.closedLastEntry {
            check(place.entry <= closed, "no reader sees what is not in the ledger", "\(place), closed at \(closed)")
        }
    }

    func tookOver(_ list: LogMetadata, attempt: UInt64) {
        for (ledger, last) in acknowledged where last >= .first && ledger < (list.ledgers.last ?? LedgerID(0)) {
            check(
                list.ledgers.contains(ledger) || ledger < list.ledgers[0], "a takeover finds all that was acknowledged",
                "attempt \(attempt) has \(list.ledgers), \(ledger) has entries up to \(last)")
        }
        for ledger in list.ledgers.dropLast() {
            guard let metadata = world.metadata.ledgers[ledger]?.value else { continue }
            check(
                metadata.closedLastEntry != nil, "a takeover closes the ledgers before its own",
                "attempt \(attempt): \(ledger) is \(metadata.state)")
        }
    }

    // MARK: Metadata

    func metadataChanged(_ ledger: LedgerID, from old: LedgerMetadata, to new: LedgerMetadata) {
        let firsts = old.fragments.map(\.firstEntry)
        check(
            Array(new.fragments.prefix(firsts.count).map(\.firstEntry)) == firsts,
            "fragments stay where they begin", "\(ledger): \(old.short) -> \(new.short)")
        switch (old.state, new.state) {
        case (.open, .open): break
        case (.open, .inRecovery), (.inRecovery, .inRecovery):
            check(
                old.fragments.count == new.fragments.count && old.lastFragment == new.lastFragment,
                "ensembles of a recovery are written with the close", "\(ledger): \(old.short) -> \(new.short)")
        case (.open, .closed(let last)), (.inRecovery, .closed(let last)): closed(ledger, at: last, from: old, to: new)
        case (.closed, .closed):
            check(
                old.state == new.state && old.fragments.count == new.fragments.count, "a ledger is closed once",
                "\(ledger): \(old.short) -> \(new.short)")
        default: violate("a ledger is closed once", "\(ledger): \(old.short) -> \(new.short)")
        }
        let stable = new.closedLastEntry ?? acknowledged[ledger] ?? .none
        guard stable >= .first else { return }
        for id in 0...stable.rawValue {
            let entry = EntryID(id)
            check(
                copies(of: entry, in: ledger, new) >= new.sizes.ack,
                "metadata names an ack quorum that holds the entry",
                "\(ledger):\(entry) on \(holders(of: entry, in: ledger)), \(new.short)")
        }
    }

    private func closed(_ ledger: LedgerID, at last: EntryID, from old: LedgerMetadata, to new: LedgerMetadata) {
        let acknowledged = acknowledged[ledger] ?? .none
        check(
            last >= acknowledged, "no acknowledged entry is lost",
            "\(ledger) is closed at \(last), \(acknowledged) was acknowledged")
        let delivered = delivered[ledger] ?? .none
        check(last >= delivered, "what a reader saw stays", "\(ledger) is closed at \(last), \(delivered) was read")
        guard case .inRecovery = old.state else { return }
        var fenced = PositionSet()
        for (position, node) in old.lastFragment.ensemble.enumerated()
        where disks[node]?.fenced.contains(ledger) == true { fenced.insert(position) }
        check(
            old.sizes.covers(fenced), "a recovery fences every write quorum",
            "\(ledger) is closed, fenced are \(fenced.count) of \(old.lastFragment.ensemble)")
    }

    private func copies(of entry: EntryID, in ledger: LedgerID, _ metadata: LedgerMetadata) -> Int {
        let place = Place(ledger: ledger, entry: entry)
        return metadata.nodes(of: entry).count { disks[$0]?.held.contains(place) == true }
    }

    private func holders(of entry: EntryID, in ledger: LedgerID) -> [LogNodeID] {
        let place = Place(ledger: ledger, entry: entry)
        return disks.filter { $0.value.held.contains(place) }.map(\.key).sorted()
    }
}
