import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct LedgerWriterTests {
    let meta = metadata((3, 3, 2), nodes(1, 2, 3))

    private func stored(_ id: Int64, _ refusal: NodeRefusal? = nil) -> AddReply {
        AddReply(ledger: ledger, entry: entry(id), refusal: refusal)
    }

    private func writer(candidates: [LogNodeID] = [], window: Int = 1 << 20) -> LedgerWriter {
        LedgerWriter(ledger: ledger, metadata: Versioned(meta, version: 1), candidates: candidates, windowBytes: window)
    }

    @Test func entriesAreAcknowledgedInOrderByQaNodes() {
        var writer = writer()
        var actions: [WriterAction] = []
        #expect(writer.append([1], into: &actions) == entry(0))
        #expect(writer.append([2], into: &actions) == entry(1))
        #expect(actions.count == 6)
        actions = []
        writer.receive(stored(1), from: node(1), into: &actions)
        writer.receive(stored(1), from: node(2), into: &actions)
        writer.receive(stored(0), from: node(1), into: &actions)
        writer.receive(stored(0), from: node(1), into: &actions)
        #expect(actions.isEmpty, "the same node twice is one copy")
        writer.receive(stored(0), from: node(3), into: &actions)
        #expect(actions == [.acknowledged(through: entry(1))])
        #expect(writer.lastAddConfirmed == entry(1))
    }

    @Test func theWindowIsInBytesAndLetsOneEntryInAlways() {
        var writer = writer(window: 10)
        var actions: [WriterAction] = []
        #expect(writer.append(Array(repeating: 0, count: 100), into: &actions) == entry(0))
        #expect(writer.append([1], into: &actions) == nil)
        for id: UInt64 in 1...2 { writer.receive(stored(0), from: node(id), into: &actions) }
        #expect(writer.append([1], into: &actions) == entry(1))
        #expect(writer.pendingBytes == 1)
    }

    @Test func theLastAddConfirmedTravelsWithAddsAndAloneWhenIdle() {
        var writer = writer()
        var actions: [WriterAction] = []
        _ = writer.append([1], into: &actions)
        for id: UInt64 in 1...2 { writer.receive(stored(0), from: node(id), into: &actions) }
        actions = []
        writer.idle(into: &actions)
        #expect(actions.count == 3)
        #expect(actions.first == .send(.writeLAC(ledger, lac: entry(0)), to: node(1)))
        actions = []
        writer.idle(into: &actions)
        #expect(actions.isEmpty)
        _ = writer.append([2], into: &actions)
        guard case .send(.add(let add), _)? = actions.first else { Issue.record("no add"); return }
        #expect(add.lac == entry(0))
    }

    @Test func nothingCompletesWhileAnEnsembleChangeIsOnItsWay() {
        var writer = writer(candidates: nodes(1, 2, 3, 4))
        var actions: [WriterAction] = []
        _ = writer.append([1], into: &actions)
        writer.receive(stored(0), from: node(1), into: &actions)
        actions = []
        writer.nodeFailed(node(2), into: &actions)
        guard case .metadata(.compareAndSwap(_, 1, let new))? = actions.first else { Issue.record("no swap"); return }
        #expect(new.fragments == [Fragment(firstEntry: entry(0), ensemble: nodes(1, 4, 3))])
        actions = []
        // Late, from the node that is being replaced.
        writer.receive(stored(0), from: node(2), into: &actions)
        #expect(actions.isEmpty)
        writer.receive(.written(2), into: &actions)
        guard case .send(.add(let add), let to) = actions[0] else { Issue.record("no add"); return }
        #expect((add.entry, to) == (entry(0), node(4)))
        #expect(actions.count == 1, "the copy of the replaced node counts no more")
        writer.receive(stored(0), from: node(4), into: &actions)
        #expect(actions.last == .acknowledged(through: entry(0)))
    }

    @Test func aSwapThatWasNotAnsweredIsFoundOut() throws {
        var writer = writer(candidates: nodes(4))
        var actions: [WriterAction] = []
        _ = writer.append([1], into: &actions)
        writer.nodeFailed(node(2), into: &actions)
        guard case .metadata(.compareAndSwap(_, _, let new))? = actions.last else { Issue.record("no swap"); return }
        writer.receive(.unavailable, into: &actions)
        actions = []
        writer.retry(into: &actions)
        #expect(actions == [.metadata(.get(ledger))])
        writer.receive(.found(Versioned(new, version: 2)), into: &actions)
        #expect(writer.metadata == Versioned(new, version: 2))
    }

    @Test func aRepairOfAnEarlierFragmentDoesNotStopTheWriter() throws {
        var cluster = TestCluster(meta, spare: nodes(4, 5))
        var writer = cluster.writer(candidates: nodes(4, 5))
        #expect(cluster.append(&writer, [[1]]) == [.acknowledged(through: entry(0))])
        cluster.down = [node(2)]
        #expect(cluster.append(&writer, [[2]]) == [.acknowledged(through: entry(1))])
        cluster.stored = Versioned(
            try cluster.stored.value.replacing(node(2), with: node(5), inFragment: 0),
            version: cluster.stored.version + 1)
        cluster.down = [node(2), node(3)]
        #expect(cluster.append(&writer, [[3]]) == [.acknowledged(through: entry(2))])
        #expect(cluster.stored.value.fragments.map(\.ensemble) == [nodes(1, 5, 3), nodes(1, 4, 3), nodes(1, 4, 5)])
    }

    @Test func aFencedWriterCannotAppend() throws {
        var writer = writer()
        var actions: [WriterAction] = []
        _ = writer.append([1], into: &actions)
        actions = []
        writer.receive(stored(0, .fenced), from: node(3), into: &actions)
        #expect(actions == [.failed(.fenced)])
        #expect(writer.append([2], into: &actions) == nil)
        writer.receive(stored(0), from: node(1), into: &actions)
        writer.receive(stored(0), from: node(2), into: &actions)
        #expect(actions == [.failed(.fenced)], "nothing is acknowledged after the end")
    }

    @Test func aWriterWhoseLedgerIsInRecoveryIsFencedByMetadata() throws {
        var writer = writer(candidates: nodes(4))
        var actions: [WriterAction] = []
        _ = writer.append([1], into: &actions)
        writer.nodeFailed(node(2), into: &actions)
        writer.receive(.conflict, into: &actions)
        actions = []
        writer.receive(.found(Versioned(try meta.startingRecovery(), version: 2)), into: &actions)
        #expect(actions == [.failed(.fenced)])
    }

    @Test func withoutSubstitutesTheFailedNodeIsTriedAgain() {
        var cluster = TestCluster(meta)
        var writer = cluster.writer()
        cluster.down = [node(3)]
        #expect(cluster.append(&writer, [[1]]) == [.acknowledged(through: entry(0))])
        cluster.down = [node(2), node(3)]
        #expect(cluster.append(&writer, [[2]]) == [])
        cluster.down = []
        var actions: [WriterAction] = []
        writer.retry(into: &actions)
        #expect(cluster.run(&writer, &actions) == [.acknowledged(through: entry(1))])
    }

    @Test func closeWaitsForWhatIsPending() {
        var cluster = TestCluster(meta)
        var writer = cluster.writer()
        var actions: [WriterAction] = []
        _ = writer.append([1], into: &actions)
        let adds = actions
        actions = []
        writer.close(into: &actions)
        #expect(actions.isEmpty && writer.append([2], into: &actions) == nil)
        actions = adds
        #expect(cluster.run(&writer, &actions) == [.acknowledged(through: entry(0)), .closed(last: entry(0))])
        #expect(cluster.stored.value.closedLastEntry == entry(0))
    }
}
