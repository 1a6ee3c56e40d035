// Which trees there are, which are open, on which event loop, and which session writes each. Attach, detach and closing go
// through here; reads and writes go straight from a session to its tree.
//
// Threading: any thread; one lock around `state`, nothing waits under it. Operations that touch a common key-group range run
// one after the other (`RangeQueue`), so between two steps of one operation nobody else changes its trees. They are async
// because they are seldom; a tree's own methods are called on its loop.

package import CisternLSM
package import CisternPrimitives
internal import CisternWire
package import Logging
internal import NIOCore
internal import Synchronization

/// What a session is told about the tree it got.
package struct AttachedTree: Sendable {
    package let resumed: Bool
    package let lastSequence: UInt64
    package let watermark: UInt64
    package let approximateEntries: UInt64
    package let timeToLiveChanges: UInt64
    /// Time from the decision until the tree could be read.
    package let microseconds: UInt64
}

/// The right of one session to use one tree; a newer attach takes it away.
package final class Attachment: Sendable {
    package let session: ServerSession
    package let handle: UInt32

    package init(session: ServerSession, handle: UInt32) {
        self.session = session
        self.handle = handle
    }
}

package final class TreeRegistry: Sendable {
    struct Record {
        var claim: TreeClaim
        /// nil while closed.
        var open: OpenTree?
        /// Its log on log nodes and its record in metadata, from the first time it is open here. nil: its log is local.
        var ownership: TreeOwnership?
        /// The session that uses it; nil when it is open and nobody does.
        var attachment: Attachment?
        /// Attachments so far: tells a tree that was used in between from one that was idle all the time.
        var attachCount = 0
    }

    /// An open tree and the loop that owns it.
    struct OpenTree: Sendable {
        let tree: Tree
        var executor: LoopExecutor
    }

    private struct StoreTrees {
        var records: [UInt64: Record] = [:]
        var queue = RangeQueue()
        var waiting: [UInt64: CheckedContinuation<Void, Never>] = [:]
    }

    let engine: Engine
    let replication: Replication?
    /// Released snapshots that stay for now, by store.
    let withheld = Mutex<[String: Set<String>]>([:])
    private let idleTree: TimeAmount
    /// Stores that may have a tree which could not be read.
    private let storesAtStart: Set<String>
    let time: any TimeSource
    let logger: Logger
    private let state: Mutex<[String: StoreTrees]>

    /// Takes over the trees the engine found.
    package init(
        engine: Engine, storesAtStart: Set<String>, idleTreeMilliseconds: Int, time: any TimeSource, logger: Logger,
        replication: Replication? = nil
    ) {
        self.engine = engine
        self.replication = replication
        self.storesAtStart = storesAtStart
        self.idleTree = .milliseconds(Int64(idleTreeMilliseconds))
        self.time = time
        self.logger = logger
        var stores: [String: StoreTrees] = [:]
        for info in engine.treeInfos() {
            let claim = TreeClaim(
                id: info.id.number, range: info.identity.keyGroups, epoch: info.epoch, writer: info.writer)
            stores[info.identity.store, default: StoreTrees()].records[claim.id] = Record(claim: claim)
        }
        state = Mutex(stores)
        for part in engine.damagedParts {
            logger.error(
                "a file of the data directory is damaged", metadata: ["path": "\(part.path)", "error": "\(part.error)"])
        }
    }

    // MARK: Operations of sessions

    /// Makes `attachment`'s session the writer of the range, or says why not. When this returns, the session knows its tree.
    /// - Parameter bring: makes snapshots that are in the snapshot store only ones of this server.
    package func attach(
        _ request: AttachRequest, store: CatalogStore, from snapshots: [SnapshotReference],
        for attachment: Attachment, attempt: String,
        bring: @escaping @Sendable ([String]) async -> Refusal? = { _ in nil }
    ) async -> Result<AttachedTree, Refusal> {
        await exclusively(store.name, request.range) {
            let trees = self.claims(store.name)
            let result: Result<AttachedTree, Refusal>
            if let replication = self.replication {
                result = await self.attach(
                    request, replication, store: store, from: snapshots, for: attachment, attempt: attempt, bring: bring
                )
            } else {
                result = await self.attach(
                    request, among: trees, store: store, from: snapshots, for: attachment, attempt: attempt)
            }
            if case .failure = result {
                // The trees may have been taken from their sessions already: nobody else would close them.
                let eventLoop = attachment.session.executor.eventLoop
                for tree in trees where tree.range.overlaps(request.range) && self.isOpenAndUnused(tree.id, store.name)
                {
                    self.closeWhenIdle(tree.id, store.name, tree.range, on: eventLoop)
                }
            }
            return result
        }
    }

    private func isOpenAndUnused(_ id: UInt64, _ store: String) -> Bool {
        update(id, store) { $0.open != nil && $0.attachment == nil } ?? false
    }

    private func attach(
        _ request: AttachRequest, among trees: [TreeClaim], store: CatalogStore, from snapshots: [SnapshotReference],
        for attachment: Attachment, attempt: String
    ) async -> Result<AttachedTree, Refusal> {
        let started = self.time.monotonicNanoseconds
        switch AttachRules.decide(request, trees: trees) {
        case .fenced(let owner):
            return .failure(Refusal.fenced(attempt, by: owner.epoch))
        case .mismatch(let ranges):
            return .failure(Refusal.mismatch(attempt, with: ranges))
        case .resume(let id):
            return await take(
                id, request, raisingEpoch: false, store, attachment, started: started, attempt: attempt)
        case .takeOver(let id):
            return await take(
                id, request, raisingEpoch: true, store, attachment, started: started, attempt: attempt)
        case .fresh:
            if let damaged = damage(hiding: request, of: store, attempt: attempt) { return .failure(damaged) }
            return await create(
                request, store: store, from: [], replacing: [], attachment, started: started, attempt: attempt)
        case .restore(let replaced):
            return await create(
                request, store: store, from: snapshots, replacing: replaced, attachment, started: started,
                attempt: attempt)
        }
    }

    /// The session gives the tree back in order: it is flushed and closed.
    package func detach(_ attachment: Attachment, store: String, tree id: UInt64, range: KeyGroupRange) async {
        await exclusively(store, range) {
            guard self.release(attachment, store: store, tree: id) else { return }
            await self.close(id, store)
        }
    }

    /// The session's connection is gone. The tree stays open for a while, because its writer probably comes back.
    package func abandon(_ attachment: Attachment, store: String, tree id: UInt64, range: KeyGroupRange) {
        guard release(attachment, store: store, tree: id) else { return }
        closeWhenIdle(id, store, range, on: attachment.session.executor.eventLoop)
    }

    /// Closes the tree unless somebody attaches within the time the settings say.
    private func closeWhenIdle(_ id: UInt64, _ store: String, _ range: KeyGroupRange, on eventLoop: any EventLoop) {
        guard let count = update(id, store, { $0.attachCount }) else { return }
        _ = eventLoop.scheduleTask(in: idleTree) {
            Task { await self.closeIfUnused(id, store, range, since: count) }
        }
    }

    /// Closes every open tree, flushing what the log does not hold. Sessions must be gone.
    package func closeAll() async {
        let open = state.withLock { stores in
            stores.flatMap { store, trees in
                trees.records.values.filter { $0.open != nil }.map { (store: store, claim: $0.claim) }
            }
        }
        for tree in open {
            await exclusively(tree.store, tree.claim.range) {
                await self.revoke(tree.claim.id, tree.store, by: nil)
                await self.close(tree.claim.id, tree.store)
            }
        }
    }

    package func claims(_ store: String) -> [TreeClaim] {
        state.withLock { stores in stores[store]?.records.values.map(\.claim) ?? [] }
    }

    /// Trees that are open, for tests and operators.
    package var openTreeCount: Int {
        state.withLock { stores in
            stores.values.reduce(0) { $0 + $1.records.values.filter { $0.open != nil }.count }
        }
    }

    /// Every tree, by store and key groups; open ones are asked through their owners.
    /// nil where logs are local.
    package var replicationStatus: ReplicationStatus? {
        guard let replication else { return nil }
        var status = replication.counters.status
        let ownerships = state.withLock { stores in
            stores.values.flatMap { $0.records.values.compactMap(\.ownership) }
        }
        for ownership in ownerships {
            let bytes = ownership.replica.bytes
            status.trees += 1
            status.unacknowledgedBytes += bytes.unacknowledged
            status.logBytes += bytes.log
        }
        return status
    }

    package func treeStatuses() async -> [ServerStatus.TreeStatus] {
        let records = state.withLock { stores in
            stores.flatMap { store, trees in trees.records.values.map { (store: store, record: $0) } }
        }
        var statuses: [ServerStatus.TreeStatus] = []
        for (store, record) in records {
            let claim = record.claim
            statuses.append(
                ServerStatus.TreeStatus(
                    id: claim.id, store: store, keyGroupFirst: Int(claim.range.first),
                    keyGroupLast: Int(claim.range.last), epoch: claim.epoch, writer: claim.writer,
                    isAttached: record.attachment != nil, statistics: await record.open?.tree.statisticsFromOwner()))
        }
        return statuses.sorted { ($0.store, $0.keyGroupFirst, $0.id) < ($1.store, $1.keyGroupFirst, $1.id) }
    }

    // MARK: Steps, each inside `exclusively`

    /// What an opened tree needs before it takes writes; the refusal of the attach when that does not work.
    typealias Opening = (Tree, LoopExecutor) async -> Refusal?

    /// Gives an existing tree to the session.
    func take(
        _ id: UInt64, _ request: AttachRequest, raisingEpoch: Bool, _ catalog: CatalogStore, _ attachment: Attachment,
        started: UInt64, attempt: String, opening: Opening? = nil
    ) async -> Result<AttachedTree, Refusal> {
        let store = catalog.name
        await revoke(id, store, by: raisingEpoch ? request.epoch : nil)
        let executor = attachment.session.executor
        let tree: Tree
        if let open = openTree(id, store) {
            tree = open.tree
            if open.executor.eventLoop !== executor.eventLoop {
                await open.tree.handOver(from: open.executor, to: executor)
            }
            update(id, store) { $0.open = OpenTree(tree: tree, executor: executor) }
        } else {
            switch await engine.openTree(TreeID(id), pointStates: catalog.pointStates, executor: executor) {
            case .failure(let error): return .failure(Refusal(error, attempt: attempt))
            case .success(let opened): tree = opened
            }
            update(id, store) { $0.open = OpenTree(tree: tree, executor: executor) }
            if let refusal = await opening?(tree, executor) {
                await close(id, store)
                return .failure(refusal)
            }
        }
        if raisingEpoch {
            if case .failure(let error) = await tree.setEpoch(request.epoch, writer: request.writer, on: executor) {
                return .failure(Refusal(error, attempt: attempt))
            }
            let claim = TreeClaim(id: id, range: request.range, epoch: request.epoch, writer: request.writer)
            update(id, store) { $0.claim = claim }
        }
        return await install(id, tree, catalog, request, attachment, resumed: !raisingEpoch, started: started)
    }

    /// Makes a tree in place of others. The engine exchanges them in one step, also in the face of a crash.
    func create(
        _ request: AttachRequest, store: CatalogStore, from snapshots: [SnapshotReference], replacing: [UInt64],
        _ attachment: Attachment, started: UInt64, attempt: String, ownership: TreeOwnership? = nil
    ) async -> Result<AttachedTree, Refusal> {
        // Zombies stop before their trees go.
        for id in replacing { await revoke(id, store.name, by: request.epoch) }
        let identity = TreeIdentity(
            store: store.name, keyGroups: request.range, keyGroupCount: store.keyGroupCount)
        let executor = attachment.session.executor
        let tree: Tree
        switch await engine.createTree(
            identity, epoch: request.epoch, writer: request.writer, from: snapshots,
            replacing: replacing.map { TreeID($0) }, pointStates: store.pointStates, executor: executor)
        {
        case .failure(let error): return .failure(Refusal(error, attempt: attempt))
        case .success(let made): tree = made
        }
        for id in replacing { remove(id, store.name) }
        let claim = TreeClaim(
            id: tree.id.number, range: request.range, epoch: request.epoch, writer: request.writer)
        insert(Record(claim: claim, open: OpenTree(tree: tree, executor: executor), ownership: ownership), store.name)
        if let ownership, let refusal = await replicate(tree, ownership, claim, on: executor, attempt: attempt) {
            return .failure(refusal)
        }
        return await install(claim.id, tree, store, request, attachment, resumed: false, started: started)
    }

    /// A tree that cannot be read may be the one that is asked for; an empty one in its place would be loss without a word.
    func damage(hiding request: AttachRequest, of store: CatalogStore, attempt: String) -> Refusal? {
        guard storesAtStart.contains(store.name), let part = engine.damagedParts.first(where: { $0.tree != nil }) else {
            return nil
        }
        return Refusal(
            .corruption,
            "\(attempt): the range has no readable tree, and \(part.path) is damaged (\(part.error)): repair the file and start "
                + "the server again, or attach restoring the snapshots of a checkpoint")
    }

    func install(
        _ id: UInt64, _ tree: Tree, _ catalog: CatalogStore, _ request: AttachRequest, _ attachment: Attachment,
        resumed: Bool, started: UInt64
    ) async -> Result<AttachedTree, Refusal> {
        let store = catalog.name
        let ownership = update(id, store) { record in
            record.attachment = attachment
            record.attachCount += 1
            return record.ownership
        }
        let session = attachment.session
        let time = self.time
        let attached: AttachedTree = await session.executor.run {
            tree.declare(pointStates: catalog.pointStates)
            session.install(
                SessionTree(
                    tree: tree, id: id, store: store, range: request.range, epoch: request.epoch,
                    attachment: attachment, ownership: ownership ?? nil))
            return AttachedTree(
                resumed: resumed, lastSequence: tree.lastSequence, watermark: tree.watermark,
                approximateEntries: tree.statistics.approximateEntries, timeToLiveChanges: tree.timeToLiveChanges,
                microseconds: (time.monotonicNanoseconds - started) / 1000)
        }
        return .success(attached)
    }

    /// Takes the tree from the session that uses it. Afterwards that session makes no more calls into it.
    func revoke(_ id: UInt64, _ store: String, by epoch: UInt64?) async {
        let taken = update(id, store) { record -> Attachment? in
            let attachment = record.attachment
            record.attachment = nil
            return attachment
        }
        guard let taken = taken ?? nil else { return }
        await taken.session.executor.run { taken.session.revoke(taken.handle, by: epoch) }
    }

    func close(_ id: UInt64, _ store: String) async {
        guard let open = openTree(id, store) else { return }
        if case .failure(let error) = await open.tree.close(on: open.executor) {
            logger.warning(
                "a tree did not close cleanly; its log is replayed when it is opened again",
                metadata: ["store": "\(store)", "tree": "\(id)", "error": "\(error)"])
        }
        if let ownership = update(id, store, { $0.ownership }) { await ownership?.close() }
        update(id, store) { $0.open = nil }
    }

    private func closeIfUnused(_ id: UInt64, _ store: String, _ range: KeyGroupRange, since attachCount: Int) async {
        await exclusively(store, range) {
            let wasIdle = self.update(id, store) { $0.attachment == nil && $0.attachCount == attachCount }
            if wasIdle == true { await self.close(id, store) }
        }
    }

    // MARK: State

    /// The trees of a store that are known here, with what is known of them.
    func records(_ store: String) -> [UInt64: Record] { state.withLock { $0[store]?.records ?? [:] } }

    func openTree(_ id: UInt64, _ store: String) -> OpenTree? {
        state.withLock { stores in stores[store]?.records[id]?.open }
    }

    func insert(_ record: Record, _ store: String) {
        state.withLock { stores in stores[store, default: StoreTrees()].records[record.claim.id] = record }
    }

    func remove(_ id: UInt64, _ store: String) {
        state.withLock { stores in stores[store]?.records[id] = nil }
    }

    /// nil when there is no such tree (any more).
    @discardableResult
    func update<Result: Sendable>(
        _ id: UInt64, _ store: String, _ change: (inout Record) -> Result
    ) -> Result? {
        state.withLock { stores -> Result? in
            guard var record = stores[store]?.records[id] else { return nil }
            let result = change(&record)
            stores[store]?.records[id] = record
            return result
        }
    }

    /// False when the tree was already taken from this attachment.
    private func release(_ attachment: Attachment, store: String, tree id: UInt64) -> Bool {
        update(id, store) { record -> Bool in
            guard record.attachment === attachment else { return false }
            record.attachment = nil
            return true
        } ?? false
    }

    func exclusively<Result: Sendable>(
        _ store: String, _ range: KeyGroupRange, _ body: () async -> Result
    ) async -> Result {
        let ticket = Mutex<RangeQueue.Ticket?>(nil)
        await withCheckedContinuation { continuation in
            let started = state.withLock { stores -> [CheckedContinuation<Void, Never>] in
                let mine = stores[store, default: StoreTrees()].queue.enter(range)
                ticket.withLock { $0 = mine }
                stores[store]?.waiting[mine.number] = continuation
                return startable(&stores, store)
            }
            for waiter in started { waiter.resume() }
        }
        let result = await body()
        leave(store, ticket.withLock { $0 }!)
        return result
    }

    private func leave(_ store: String, _ ticket: RangeQueue.Ticket) {
        let started = state.withLock { stores -> [CheckedContinuation<Void, Never>] in
            stores[store]?.queue.leave(ticket)
            let next = startable(&stores, store)
            // Names that nobody uses must not pile up.
            if let left = stores[store], left.records.isEmpty, left.queue.isIdle { stores[store] = nil }
            return next
        }
        for waiter in started { waiter.resume() }
    }

    private func startable(
        _ stores: inout [String: StoreTrees], _ store: String
    ) -> [CheckedContinuation<Void, Never>] {
        guard var trees = stores[store] else { return [] }
        let tickets = trees.queue.startable(trees: trees.records.values.map(\.claim.range))
        let started = tickets.compactMap { trees.waiting.removeValue(forKey: $0.number) }
        stores[store] = trees
        return started
    }
}
