// One connection's requests. Frames come in and are answered on the connection's event loop, synchronously where the engine
// answers at once; a write is answered when the engine says it is durable.
//
// Threading: owned by its event loop. Only `executor` is read elsewhere. No task or promise is made for a read or a write;
// attaching, registering and snapshots, which are seldom, are tasks (`ControlRequests.swift`).

internal import CisternPrimitives
package import CisternTransport
package import CisternWire
package import NIOCore

package final class ServerSession: FrameService, @unchecked Sendable {
    // Sendable: see the threading rule above; `install`, `revoke` and replies from elsewhere come through `executor`.

    enum Slot {
        case attached(SessionTree)
        /// Another attach took the tree; with its epoch when it is a newer one.
        case revoked(by: UInt64?)
        case detached
    }

    /// Handles are never used again on a connection, so that a late frame cannot reach another tree.
    static let handlesMax = 65_536

    package let executor: LoopExecutor
    let core: ServerCore
    private(set) var connection: ServerConnection?
    /// By handle - 1.
    private(set) var slots: [Slot] = []
    var keyIndexStreams: [KeyIndexStream] = []
    var keyIndexTurnIsScheduled = false
    /// Streams that wait for the disk.
    var keyIndexStreamsAside = 0
    private var isClosed = false
    var isOpen: Bool { !isClosed }
    let scratch: LoopScratch
    let counters: RequestCounters

    package init(
        core: ServerCore, eventLoop: any EventLoop, scratch: LoopScratch, counters: RequestCounters
    ) {
        self.core = core
        self.scratch = scratch
        self.counters = counters
        executor = LoopExecutor(eventLoop)
    }

    // MARK: FrameService

    package func opened(_ connection: ServerConnection) {
        self.connection = connection
    }

    package func received(_ header: FrameHeader, body: UnsafeRawBufferPointer) {
        counters.noteRequest(header.opcodeByte, bodyBytes: body.count)
        guard let opcode = header.opcode else { return refuse(header, unsupported(header)) }
        switch opcode {
        case .writeBatch: unsafe writeBatch(header, body)
        case .multiGet: unsafe multiGet(header, body)
        case .scan: unsafe scan(header, body)
        case .keyIndex: unsafe keyIndex(header, body)
        case .attach: unsafe attach(header, body)
        case .detach: unsafe detach(header, body)
        case .registerState: unsafe registerState(header, body)
        case .putDictionary: unsafe putDictionary(header, body)
        case .getDictionary: unsafe getDictionary(header, body)
        case .snapshot: unsafe snapshot(header, body)
        case .releaseSnapshot: unsafe releaseSnapshot(header, body)
        case .listSnapshots: unsafe listSnapshots(header, body)
        case .connection, .hello, .goAway, .ping, .logAdd, .logRead, .logReadLac, .logWriteLac, .logDelete:
            refuse(header, unsupported(header))
        }
    }

    package func writabilityChanged(_ isWritable: Bool) {
        if isWritable { continueKeyIndexes() }
    }

    package func closed(_ reason: String) {
        isClosed = true
        connection = nil
        keyIndexStreams = []
        for slot in slots {
            guard case .attached(let tree) = slot else { continue }
            core.registry.abandon(tree.attachment, store: tree.store, tree: tree.id, range: tree.range)
        }
        slots = []
    }

    // MARK: Trees of this session

    /// A handle for an attach that begins; nil when the connection has used all.
    func reserveHandle() -> UInt32? {
        guard slots.count < ServerSession.handlesMax else { return nil }
        slots.append(.detached)
        return UInt32(slots.count)
    }

    /// The registry gives the session a tree.
    func install(_ tree: SessionTree) {
        guard !isClosed else {
            core.registry.abandon(tree.attachment, store: tree.store, tree: tree.id, range: tree.range)
            return
        }
        slots[Int(tree.attachment.handle) - 1] = .attached(tree)
    }

    /// The registry takes the tree: no call into it after this.
    func revoke(_ handle: UInt32, by epoch: UInt64?) {
        guard !isClosed else { return }
        slots[Int(handle) - 1] = .revoked(by: epoch)
    }

    func markDetached(_ handle: UInt32) { slots[Int(handle) - 1] = .detached }

    @inline(__always)
    func attachedTree(_ handle: UInt32) -> SessionTree? {
        let index = Int(handle) - 1
        if index >= 0, index < slots.count, case .attached(let tree) = slots[index] { return tree }
        return nil
    }

    /// The tree of a request, or nil when the request was answered with why there is none.
    @inline(__always)
    func tree(of header: FrameHeader) -> SessionTree? {
        if let tree = attachedTree(header.tree) { return tree }
        refuse(header, noTree(header))
        return nil
    }

    /// The tree of a request of `epoch`, or nil when the request was answered with why there is none.
    @inline(__always)
    func tree(of header: FrameHeader, epoch: UInt64) -> SessionTree? {
        guard let tree = tree(of: header) else { return nil }
        if tree.epoch == epoch { return tree }
        refuse(header, wrongEpoch(header, tree, epoch))
        return nil
    }

    @inline(never)
    private func noTree(_ header: FrameHeader) -> Refusal {
        let attempt = "\(name(of: header)) with tree handle \(header.tree)"
        let index = Int(header.tree) - 1
        if index >= 0, index < slots.count, case .revoked(let epoch) = slots[index] {
            if let epoch { return Refusal.fenced(attempt, by: epoch) }
            return Refusal(
                .notAttached, "\(attempt): the tree was attached again by the same writer over another connection")
        }
        return Refusal(.notAttached, "\(attempt): this connection has no such tree")
    }

    @inline(never)
    private func wrongEpoch(_ header: FrameHeader, _ tree: SessionTree, _ epoch: UInt64) -> Refusal {
        let attempt = "\(name(of: header)) of \(tree.name) with epoch \(epoch)"
        if epoch < tree.epoch { return Refusal.fenced(attempt, by: tree.epoch) }
        return Refusal(
            .notAttached, "\(attempt): the tree is attached with epoch \(tree.epoch); attach with the newer one first")
    }

    // MARK: Answers

    func name(of header: FrameHeader) -> String { header.opcode.map { "\($0)" } ?? "opcode \(header.opcodeByte)" }

    func answer(_ header: FrameHeader, _ body: [UInt8]) { connection?.reply(to: header, body: body) }

    func answerWithPage(_ header: FrameHeader, more: Bool = false) {
        let scratch = scratch
        unsafe connection?.reply(to: header, more: more, size: scratch.page.encodedSize) {
            unsafe scratch.page.encode(into: $0)
        }
    }

    /// Room for the body of an answer.
    var bodyBytesMax: Int { (connection?.replyFrameBytesMax ?? 0) - FrameHeader.size }

    func refuse(_ header: FrameHeader, _ refusal: Refusal) {
        counters.noteRefusal(refusal.body.errorCode)
        connection?.replyError(to: header, refusal.body)
    }

    private func unsupported(_ header: FrameHeader) -> Refusal {
        Refusal(.unsupportedOpcode, "\(name(of: header)) is no request that a server answers")
    }
}
