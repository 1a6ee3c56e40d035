// A log node on a file system in memory, with all of its lanes on one thread.

import CisternFileSystem
import CisternLogNode
import CisternLogProtocol
import CisternPrimitives
import CisternTestKit

let ledger = LedgerID(7)

func entry(_ id: Int64) -> EntryID { EntryID(id) }

/// One connection's answers.
final class TestClient: LogNodeServiceClient {
    private let state = Guarded([UInt64: NodeReply]())

    func deliver(_ answers: [LogNodeAnswer]) {
        state.withLock { replies in
            for answer in answers { replies[answer.id] = answer.reply }
        }
    }

    subscript(id: UInt64) -> NodeReply? { state.withLock { $0[id] } }
}

final class NodeHarness {
    private(set) var disk: MemoryFileSystem
    private(set) var scheduler: SteppedScheduler
    private(set) var host: LogNodeHost!
    private let random: Guarded<SeededRandom>
    let client = TestClient()
    let ledgers = Guarded<Set<LedgerID>?>([ledger])
    var segmentBytes = 16 << 10
    var rewriteBelow = 0.0
    var reserveBytes: UInt64 = 0
    private var nextCall: UInt64 = 0
    private var wasStarted = false

    init(seed: UInt64 = 1) {
        disk = MemoryFileSystem(seed: seed)
        scheduler = SteppedScheduler(seed: seed)
        random = Guarded(SeededRandom(seed: seed &+ 77))
    }

    func start(node: UInt64 = 1, isNew: Bool? = nil) throws(JournalError) {
        var journal = JournalOptions(directory: "/node", node: LogNodeID(node), cluster: 42)
        journal.segmentBytes = segmentBytes
        journal.rewriteBelow = rewriteBelow
        journal.reserveBytes = reserveBytes
        let lanes = JournalLanes(
            writer: scheduler.makeLane(), reader: scheduler.makeLane(), keeper: scheduler.makeLane())
        let metadata = LogNodeMetadata(
            highestLedger: { [ledgers] answer in answer(ledgers.withLock { $0?.max() }) },
            exists: { [ledgers] ledger, answer in answer(ledgers.withLock { $0.map { $0.contains(ledger) } }) })
        let options = LogNodeOptions(journal: journal, isNew: isNew ?? !wasStarted)
        host = try LogNodeHost(
            options, fileSystem: disk, lanes: lanes,
            lane: scheduler.makeLane(), metadata: metadata)
        wasStarted = true
    }

    func run() { scheduler.runUntilIdle() }

    /// The process ends without a word.
    func kill() {
        disk = disk.afterProcessEnd()
        scheduler = SteppedScheduler(seed: random.withLock { $0.next() })
    }

    /// A node that is not running, on a copy of the disk.
    func copy() -> NodeHarness {
        let other = NodeHarness()
        other.disk = disk.copied()
        other.segmentBytes = segmentBytes
        other.wasStarted = wasStarted
        return other
    }

    func cutPower() {
        disk = disk.afterPowerCut(seed: random.withLock { $0.next() })
        scheduler = SteppedScheduler(seed: random.withLock { $0.next() })
    }

    @discardableResult
    func send(_ request: NodeRequest) -> UInt64 {
        nextCall += 1
        host.submit([LogNodeCall(id: nextCall, request: request)], from: client)
        return nextCall
    }

    func ask(_ request: NodeRequest) -> NodeReply? {
        let id = send(request)
        _ = scheduler.run(stepsMax: 10_000) { client[id] != nil }
        return client[id]
    }

    func addRequest(
        _ id: Int64, _ body: [UInt8], in ledger: LedgerID = ledger, lac: Int64 = -1, recovery: Bool = false
    ) -> NodeRequest {
        .add(AddRequest(ledger: ledger, entry: entry(id), lac: entry(lac), body: body, isRecovery: recovery))
    }

    /// nil: no answer.
    func add(
        _ id: Int64, _ body: [UInt8], in ledger: LedgerID = ledger, lac: Int64 = -1, recovery: Bool = false
    ) -> NodeRefusal?? {
        guard case .add(let reply)? = ask(addRequest(id, body, in: ledger, lac: lac, recovery: recovery)) else {
            return .none
        }
        return .some(reply.refusal)
    }

    func read(_ id: Int64, count: Int = 1, in ledger: LedgerID = ledger, bytesMax: Int = 1 << 20) -> ReadReply? {
        let request = ReadRequest(ledger: ledger, first: entry(id), count: count, bytesMax: bytesMax, fence: false)
        guard case .read(let reply)? = ask(.read(request)) else { return nil }
        return reply
    }

    func fence(_ ledger: LedgerID = ledger) -> ReadLACReply? {
        guard case .lac(let reply)? = ask(.readLAC(ReadLACRequest(ledger: ledger, fence: true))) else { return nil }
        return reply
    }

    var status: LogNodeStatus {
        let box = Guarded<LogNodeStatus?>(nil)
        host.status { status in box.withLock { $0 = status } }
        _ = scheduler.run { box.withLock { $0 != nil } }
        return box.withLock { $0! }
    }

    func collect() {
        host.collectGarbage()
        run()
    }
}

/// A body that tells its place.
func body(_ id: Int64, in ledger: LedgerID = ledger, count: Int = 100) -> [UInt8] {
    var random = SeededRandom(seed: UInt64(id) &* 31 &+ ledger.rawValue)
    return (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
}
