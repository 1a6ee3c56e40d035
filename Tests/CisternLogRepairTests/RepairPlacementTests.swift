import CisternLogProtocol
import CisternLogRepair
import CisternMetadata
import Testing

@Suite struct RepairPlacementTests {
    private func node(_ id: UInt64, _ address: String, isReadOnly: Bool = false) -> LogNodeRegistration {
        LogNodeRegistration(
            node: LogNodeID(id), cookie: [UInt8](repeating: 0, count: 16), address: address, isReadOnly: isReadOnly)
    }

    private func targets(
        _ registered: [LogNodeRegistration], fragments: [LogNodeID: Int] = [:], refused: Set<LogNodeID> = []
    ) throws -> [LogNodeID] {
        let metadata = try LedgerMetadata(
            sizes: QuorumSizes(ensemble: 2, write: 2, ack: 2), ensemble: nodes(1, 2))
        return RepairPlacement.targets(
            for: metadata, replacing: LogNodeID(1), among: registered, fragments: fragments, refused: refused)
    }

    @Test func anotherHostComesBeforeAnEmptierNode() throws {
        let registered = [node(2, "a:1"), node(3, "a:2"), node(4, "b:1"), node(5, "[::1]:7")]
        let found = try targets(registered, fragments: [LogNodeID(4): 9, LogNodeID(5): 3, LogNodeID(3): 0])
        #expect(found == nodes(5, 4, 2, 3))
    }

    @Test func theLostTheReadOnlyAndThoseThatRefusedAreNoTargets() throws {
        let registered = [node(1, "a:1"), node(3, "b:1", isReadOnly: true), node(4, "c:1"), node(5, "d:1")]
        #expect(try targets(registered, refused: [LogNodeID(4)]) == nodes(5))
    }
}
