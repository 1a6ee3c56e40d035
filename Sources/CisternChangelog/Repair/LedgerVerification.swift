// Looks at every copy of every entry of a ledger, each on the node that must have it. Fences nothing and changes nothing.
//
//   fragment ─► chunk of entries ─► asked of every node of the ensemble, side by side ─► copies compared, entry by entry
//   faults   ─► looked at again, by the metadata of that time
//
// An entry that a writer has acknowledged has an ack quorum of copies at least; the others may have been lost with a node's answer and are
// repair's to bring back. So a missing copy is a finding, and a missing entry a loss.

package import CisternLogProtocol
package import CisternPrimitives
internal import NIOCore

/// What is wrong with the copies of entries that lie one behind the other.
package struct LedgerFault: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        /// No node has it.
        case lost
        /// No node that answered has it, and not all did.
        case notFound
        /// Nodes have different bodies.
        case diverging
        /// At least one node has it, and others have not.
        case missingCopies
    }

    package let kind: Kind
    package let first: EntryID
    package internal(set) var last: EntryID
    /// Nodes that have a copy; all of them when the copies differ.
    package let present: [LogNodeID]
    /// Nodes that have never had it.
    package let absent: [LogNodeID]
    /// Nodes that cannot read it, or cannot tell.
    package let unreadable: [LogNodeID]
    /// Nodes that gave no answer.
    package let silent: [LogNodeID]
}

package struct LedgerVerification: Hashable, Sendable {
    package let ledger: LedgerID
    /// Entries that were looked for: of a ledger that is not closed, those that its nodes know to be acknowledged.
    package internal(set) var entries: UInt64 = 0
    /// Copies that were read at the first look, and their bytes.
    package internal(set) var copies: UInt64 = 0
    package internal(set) var bytes: UInt64 = 0
    package internal(set) var faults: [LedgerFault] = []
    /// Nodes that gave no answer at some time: their copies are not known.
    package internal(set) var silentNodes: Set<LogNodeID> = []

    /// Every copy is there, and is like the others.
    package var isWhole: Bool { faults.isEmpty && silentNodes.isEmpty }

    fileprivate init(_ ledger: LedgerID) { self.ledger = ledger }

    fileprivate mutating func add(_ fault: LedgerFault) {
        if let last = faults.last, last.kind == fault.kind, last.last.next == fault.first,
            last.present == fault.present, last.absent == fault.absent, last.unreadable == fault.unreadable,
            last.silent == fault.silent
        {
            faults[faults.count - 1].last = fault.last
        } else {
            faults.append(fault)
        }
    }
}

/// What a node says of an entry.
private enum Copy: Equatable {
    case present(bytes: Int, checksum: UInt32)
    case absent
    case unreadable
    case silent
}

extension LedgerClient {
    /// Entries that are asked for at once.
    private static let verifiedChunk = 512
    private static let verifiedBytes = 4 << 20

    /// Reads and compares all copies.
    package func verify(_ ledger: LedgerID, metadata: LedgerMetadata) async -> LedgerVerification {
        var result = LedgerVerification(ledger)
        for (index, fragment) in metadata.fragments.enumerated() {
            let last =
                if let end = metadata.lastEntry(ofFragment: index) { end } else {
                    await lastAcknowledged(of: fragment, into: &result)
                }
            var first = fragment.firstEntry
            while first <= last {
                let count = min(Self.verifiedChunk, Int(last.rawValue - first.rawValue) + 1)
                await verify(first, count, of: fragment, metadata, into: &result)
                first = first.advanced(by: count)
            }
        }
        return result
    }

    /// Looks at what was found wrong once more: a copy may have been on its way to a node that is slower than an ack quorum, or been brought
    /// by repair to a node that the metadata of the first look did not name. Nodes that were silent stay so: what else they have is not known.
    /// - Parameter metadata: as it is after the first look.
    package func verifyAgain(_ found: LedgerVerification, metadata: LedgerMetadata) async -> LedgerVerification {
        var again = LedgerVerification(found.ledger)
        for fault in found.faults {
            for (index, fragment) in metadata.fragments.enumerated() {
                let end = metadata.lastEntry(ofFragment: index) ?? fault.last
                var first = max(fault.first, fragment.firstEntry)
                let last = min(fault.last, end)
                while first <= last {
                    let count = min(Self.verifiedChunk, Int(last.rawValue - first.rawValue) + 1)
                    await verify(first, count, of: fragment, metadata, into: &again)
                    first = first.advanced(by: count)
                }
            }
        }
        var result = found
        result.faults = again.faults
        result.silentNodes.formUnion(again.silentNodes)
        return result
    }

    /// What the nodes of a fragment that is written know to be acknowledged. Those that do not say are noted.
    private func lastAcknowledged(of fragment: Fragment, into result: inout LedgerVerification) async -> EntryID {
        var last = EntryID.none
        for node in fragment.ensemble {
            let question = ReadLACRequest(ledger: result.ledger, fence: false)
            if case .lac(let reply)? = await ask(.readLAC(question), of: node), reply.refusal == nil {
                last = max(last, reply.lac)
            } else {
                result.silentNodes.insert(node)
            }
        }
        return last
    }

    private func verify(
        _ first: EntryID, _ count: Int, of fragment: Fragment, _ metadata: LedgerMetadata,
        into result: inout LedgerVerification
    ) async {
        let ledger = result.ledger
        var copies: [LogNodeID: [Copy]] = [:]
        await withTaskGroup(of: (LogNodeID, [Copy]).self) { group in
            for node in fragment.ensemble {
                group.addTask { (node, await self.copies(of: ledger, first, count, on: node)) }
            }
            for await (node, found) in group { copies[node] = found }
        }
        for offset in 0..<count {
            let entry = first.advanced(by: offset)
            result.entries += 1
            var (present, absent, unreadable, silent): ([LogNodeID], [LogNodeID], [LogNodeID], [LogNodeID]) = (
                [], [], [], []
            )
            var bodies: [Copy] = []
            for node in metadata.nodes(of: entry).sorted() {
                let copy = copies[node]?[offset] ?? .silent
                switch copy {
                case .present(let bytes, _):
                    present.append(node)
                    result.copies += 1
                    result.bytes += UInt64(bytes)
                    if !bodies.contains(copy) { bodies.append(copy) }
                case .absent: absent.append(node)
                case .unreadable: unreadable.append(node)
                case .silent:
                    silent.append(node)
                    result.silentNodes.insert(node)
                }
            }
            let kind: LedgerFault.Kind? =
                if bodies.count > 1 { .diverging } else if present.isEmpty { silent.isEmpty ? .lost : .notFound } else {
                    absent.isEmpty && unreadable.isEmpty ? nil : .missingCopies
                }
            guard let kind else { continue }
            result.add(
                LedgerFault(
                    kind: kind, first: entry, last: entry, present: present, absent: absent, unreadable: unreadable,
                    silent: silent))
        }
    }

    private func copies(of ledger: LedgerID, _ first: EntryID, _ count: Int, on node: LogNodeID) async -> [Copy] {
        var found: [Copy] = []
        while found.count < count {
            let request = ReadRequest(
                ledger: ledger, first: first.advanced(by: found.count), count: count - found.count,
                bytesMax: Self.verifiedBytes, fence: false)
            guard case .read(let reply)? = await ask(.read(request), of: node) else {
                return found + [Copy](repeating: .silent, count: count - found.count)
            }
            // A refusal says nothing about which entries exist.
            guard reply.refusal == nil, !reply.answers.isEmpty, reply.first == request.first else {
                return found + [Copy](repeating: .unreadable, count: count - found.count)
            }
            for answer in reply.answers.prefix(count - found.count) {
                switch answer {
                case .present(let body):
                    found.append(.present(bytes: body.count, checksum: CRC32C.checksum(body)))
                case .absent: found.append(.absent)
                case .unknown: found.append(.unreadable)
                }
            }
        }
        return found
    }

    /// One request to one node; nil: no answer within the options' time.
    package func ask(_ request: NodeRequest, of node: LogNodeID) async -> NodeReply? {
        let loop = group.next()
        return await withCheckedContinuation { continuation in
            loop.execute {
                let connections = self.connections(of: loop)
                let question = NodeQuestion { continuation.resume(returning: $0) }
                connections.send(
                    request, to: node, deadline: .now() + connections.options.requestTimeout,
                    for: NIOLoopBound(question, eventLoop: loop))
                connections.flush()
            }
        }
    }
}

private final class NodeQuestion: LogNodeCaller {
    private let end: (NodeReply?) -> Void

    init(end: @escaping (NodeReply?) -> Void) { self.end = end }

    func received(_ reply: NodeReply, to request: NodeRequest, from node: LogNodeID) { end(reply) }
    func failed(_ request: NodeRequest, to node: LogNodeID) { end(nil) }
}
