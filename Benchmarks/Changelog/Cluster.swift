// The client side of a case: metadata in memory, and the nodes' addresses.

import CisternChangelog
import CisternLogProtocol
import CisternPrimitives
import CisternTransport
import NIOCore
import NIOPosix
import Synchronization

final class BenchMetadata: LedgerMetadataService {
    private let ledgers = Mutex<[LedgerID: Versioned<LedgerMetadata>]>([:])

    func create(_ ledger: LedgerID, _ metadata: LedgerMetadata) -> Versioned<LedgerMetadata> {
        let made = Versioned(metadata, version: 1)
        ledgers.withLock { $0[ledger] = made }
        return made
    }

    func stored(_ ledger: LedgerID) -> LedgerMetadata { ledgers.withLock { $0[ledger]!.value } }

    func ask(_ request: LedgerMetadataRequest) async -> LedgerMetadataResult {
        ledgers.withLock { ledgers in
            switch request {
            case .get(let ledger): return ledgers[ledger].map { .found($0) } ?? .missing
            case .compareAndSwap(let ledger, let expected, let new):
                guard let old = ledgers[ledger] else { return .missing }
                guard old.version == expected else { return .conflict }
                ledgers[ledger] = Versioned(new, version: expected + 1)
                return .written(expected + 1)
            }
        }
    }
}

struct BenchAddresses: LogNodeAddresses {
    let endpoints: [LogNodeID: Endpoint]
    func endpoint(of node: LogNodeID) async -> Endpoint? { endpoints[node] }
}

final class Cluster {
    let metadata = BenchMetadata()
    private let nodes: [LogNodeID]
    private let addresses: BenchAddresses
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private(set) var clients: [LedgerClient] = []
    let client: LedgerClient

    init(_ processes: [NodeProcess]) {
        nodes = processes.map(\.id)
        addresses = BenchAddresses(endpoints: Dictionary(uniqueKeysWithValues: processes.map { ($0.id, $0.endpoint) }))
        client = LedgerClient(group: group, addresses: addresses, metadata: metadata)
        clients = [client]
    }

    /// Creates a ledger and opens its writer.
    func writer(
        _ number: UInt64, _ sizes: QuorumSizes, window: Int = 1000, bytes: Int = 1024
    ) async -> LedgerWriterHandle {
        let ensemble = Array(nodes.prefix(sizes.ensemble))
        guard let made = try? LedgerMetadata(sizes: sizes, ensemble: ensemble) else {
            preconditionFailure("\(sizes) on \(nodes)")
        }
        let stored = metadata.create(LedgerID(number), made)
        var options = LedgerClientOptions()
        options.windowEntries = window
        options.windowBytes = max(options.windowBytes, window * bytes)
        let client = LedgerClient(group: group, addresses: addresses, metadata: metadata, options: options)
        clients.append(client)
        return await client.openWriter(LedgerID(number), metadata: stored, candidates: [])
    }

    func close() async {
        for client in clients { await client.close() }
        try? await group.shutdownGracefully()
    }
}

/// Adds to a node of this process, without a network.
final class DirectWriter: LogNodeServiceClient {
    private let node: any LogNodeService
    private let state = Mutex(State())

    private struct State {
        var next: UInt64 = 0
        var unanswered = 0
        var waiting: (inFlight: Int, continuation: CheckedContinuation<Void, Never>)?
    }

    init(_ node: any LogNodeService) { self.node = node }

    func deliver(_ answers: [LogNodeAnswer]) {
        let ready = state.withLock { state -> CheckedContinuation<Void, Never>? in
            state.unanswered -= answers.count
            guard let waiting = state.waiting, state.unanswered < waiting.inFlight else { return nil }
            state.waiting = nil
            return waiting.continuation
        }
        ready?.resume()
    }

    func append(_ ledger: LedgerID, _ entry: EntryID, _ body: [UInt8], inFlight: Int) async {
        let id = state.withLock { state in
            state.next += 1
            state.unanswered += 1
            return state.next
        }
        let add = AddRequest(ledger: ledger, entry: entry, lac: entry.previous, body: body, isRecovery: false)
        node.submit([LogNodeCall(id: id, request: .add(add))], from: self)
        await room(inFlight)
    }

    func drain() async { await room(1) }

    private func room(_ inFlight: Int) async {
        await withCheckedContinuation { continuation in
            let hasRoom = state.withLock { state in
                if state.unanswered < inFlight { return true }
                state.waiting = (inFlight, continuation)
                return false
            }
            if hasRoom { continuation.resume() }
        }
    }
}
