import CisternLogProtocol
import CisternPrimitives
import Testing

@Suite struct LedgerReaderTests {
    /// Runs the reader until nothing is left to do; returns the delivered bodies and the last event.
    private func run(
        _ reader: inout LedgerReader, _ cluster: inout TestCluster, through last: Int64
    ) -> (bodies: [[UInt8]], end: LedgerReader.Action?) {
        var actions: [LedgerReader.Action] = []
        var bodies: [[UInt8]] = []
        reader.demand(through: entry(last), into: &actions)
        var index = 0
        while index < actions.count {
            switch actions[index] {
            case .send(let request, let id):
                if cluster.down.contains(id) {
                    reader.nodeFailed(id, into: &actions)
                } else if let reply = cluster.ask(request, id) {
                    reader.receive(reply, from: id, into: &actions)
                }
            case .metadata(let request): reader.receive(cluster.ask(request), into: &actions)
            case .deliver(_, let more): bodies += more
            case .ended, .failed: return (bodies, actions[index])
            }
            index += 1
        }
        return (bodies, nil)
    }

    @Test(arguments: [(3, 3, 2), (5, 3, 2), (4, 2, 1), (1, 1, 1)]) func aClosedLedgerIsReadWhole(sizes: (Int, Int, Int))
    {
        var cluster = TestCluster(metadata(sizes, (1...UInt64(sizes.0)).map(LogNodeID.init)))
        var writer = cluster.writer()
        let bodies = (0..<100).map { [UInt8($0)] }
        _ = cluster.append(&writer, bodies)
        var actions: [WriterAction] = []
        writer.close(into: &actions)
        #expect(cluster.run(&writer, &actions) == [.closed(last: entry(99))])
        if sizes.1 > 1 { cluster.down = [node(1)] }
        var reader = LedgerReader(ledger: ledger, metadata: cluster.stored.value, from: .first, batch: 7)
        let result = run(&reader, &cluster, through: 1000)
        #expect(result.bodies == bodies)
        #expect(result.end == .ended(last: entry(99)))
    }

    @Test func anOpenLedgerIsReadUpToTheLastAddConfirmed() {
        var cluster = TestCluster(metadata((3, 3, 2), nodes(1, 2, 3)))
        var writer = cluster.writer()
        _ = cluster.append(&writer, [[1]])
        _ = cluster.append(&writer, [[2]])
        var reader = LedgerReader(ledger: ledger, metadata: cluster.stored.value, from: .first)
        #expect(run(&reader, &cluster, through: 10).bodies == [[1]], "the second one's confirmation has not travelled")
        var actions: [WriterAction] = []
        writer.idle(into: &actions)
        _ = cluster.run(&writer, &actions)
        var steps: [LedgerReader.Action] = []
        reader.speculate(into: &steps)
        guard case .send(let request, let id)? = steps.first else { Issue.record("no question"); return }
        steps = []
        reader.receive(cluster.ask(request, id)!, from: id, into: &steps)
        #expect(reader.readable == entry(1))
    }

    @Test func anEntryThatOneNodeMissesIsReadFromAnother() {
        var cluster = TestCluster(metadata((3, 3, 2), nodes(1, 2, 3)))
        cluster.down = [node(1)]
        var writer = cluster.writer()
        _ = cluster.append(&writer, [[1], [2], [3]])
        var actions: [WriterAction] = []
        writer.close(into: &actions)
        _ = cluster.run(&writer, &actions)
        cluster.down = []
        var reader = LedgerReader(ledger: ledger, metadata: cluster.stored.value, from: .first)
        #expect(run(&reader, &cluster, through: 10).bodies == [[1], [2], [3]])
    }

    @Test func whatNobodyHasIsUnreadableAndNotAbsent() {
        var cluster = TestCluster(metadata((3, 3, 2), nodes(1, 2, 3)))
        var writer = cluster.writer()
        _ = cluster.append(&writer, [[1]])
        var actions: [WriterAction] = []
        writer.close(into: &actions)
        _ = cluster.run(&writer, &actions)
        for member: UInt64 in 1...3 { cluster.members[node(member)]!.failsReads = true }
        var reader = LedgerReader(ledger: ledger, metadata: cluster.stored.value, from: .first)
        #expect(run(&reader, &cluster, through: 10).end == .failed(.unreadable(entry(0))))
    }

    @Test func aReaderWithOldMetadataLooksAgain() {
        var cluster = TestCluster(metadata((3, 3, 2), nodes(1, 2, 3)), spare: nodes(4, 5, 6))
        let old = cluster.stored.value
        var writer = cluster.writer(candidates: nodes(4, 5, 6))
        _ = cluster.append(&writer, [[1]])
        cluster.down = nodes(1, 2, 3).reduce(into: []) { $0.insert($1) }
        #expect(cluster.append(&writer, [[2], [3]]).last == .acknowledged(through: entry(2)))
        cluster.down = []
        var actions: [WriterAction] = []
        writer.close(into: &actions)
        _ = cluster.run(&writer, &actions)
        var reader = LedgerReader(ledger: ledger, metadata: old, from: .first)
        var news: [LedgerReader.Action] = []
        reader.receive(
            .lac(ReadLACReply(ledger: ledger, lac: entry(2), isFenced: false)), from: node(1), into: &news)
        #expect(run(&reader, &cluster, through: 10).bodies == [[1], [2], [3]])
    }

    @Test func aSlowNodeIsOvertaken() {
        let meta = try! metadata((3, 3, 2), nodes(1, 2, 3)).closing(at: entry(1))
        var read = RangeRead(ledger: ledger, metadata: meta, first: entry(0), last: entry(1))
        var actions: [RangeRead.Action] = []
        read.start(into: &actions)
        #expect(actions.count == 1, "both entries of one node")
        read.speculate(into: &actions)
        #expect(actions.count == 2)
        guard case .send(_, let second) = actions[1] else { Issue.record("no question"); return }
        let reply = ReadReply(
            ledger: ledger, first: entry(0), answers: [.present([1]), .present([2])], lac: .none, isFenced: false)
        read.receive(reply, from: second, into: &actions)
        #expect(actions.suffix(2) == [.deliver(first: entry(0), [[1], [2]]), .finished])
    }
}
