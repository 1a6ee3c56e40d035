import CisternDaemon
import CisternPrimitives
import CisternServer
import CisternTestKit
import CisternTransport
import CisternWire
import CisternWireMessages
import Testing

@Test func whatIsWrittenIsReadScannedAndIndexed() async throws {
    let harness = try await ServerHarness.start()
    let client = try await harness.connect()
    let tree = try await client.attach()
    #expect(tree.reply.lastSequence == 0)
    #expect(!tree.reply.resumed)
    let entries = (0..<8).flatMap { group in (0..<100).map { TestEntry.put(UInt16(group), $0, "v\(group)/\($0)") } }
    try await tree.write(1, entries)
    try await tree.write(2, [TestEntry(key: testKey(3, 5), kind: .delete), .put(3, 7, "new")])
    #expect(
        try await tree.get([testKey(0, 0), testKey(3, 5), testKey(3, 7), testKey(7, 100)]) == ["v0/0", nil, "new", nil])

    let scanned = try await tree.scanAll()
    #expect(scanned.count == 799)
    #expect(scanned.map(\.key) == scanned.map(\.key).sorted { $0.lexicographicallyPrecedes($1) })
    #expect(try await tree.scanAll(entriesMax: 7) == scanned)
    #expect(try await tree.scanAll(bytesMax: 1) == scanned)
    let (bounded, next) = try await tree.page(start: testKey(2, 10), end: testKey(2, 20))
    #expect(bounded.map(\.key) == (10..<20).map { testKey(2, $0) })
    #expect(next.isEmpty)
    let (keys, _) = try await tree.page(entriesMax: 3, keysOnly: true)
    #expect(keys.allSatisfy { $0.value.isEmpty })
    #expect(try await tree.keyIndex().keys == scanned.map(\.key))
    await harness.server.shutdown()
}

@Test func theKeyIndexComesInPagesAndOthersAreServedMeanwhile() async throws {
    let harness = try await ServerHarness.start()
    let client = try await harness.connect()
    let tree = try await client.attach()
    for batch in 0..<20 {
        let entries = (0..<2_500).map { TestEntry.put(UInt16(batch / 3), batch * 2_500 + $0, "x") }
        try await tree.write(UInt64(batch + 1), entries)
    }
    async let index = tree.keyIndex()
    async let other = tree.keyIndex()
    #expect(try await tree.get([testKey(0, 0)]) == ["x"])
    let (first, second) = try await (index, other)
    #expect(first.keys.count == 50_000)
    #expect(first.pages > 1)
    #expect(first.keys == second.keys)
    await harness.server.shutdown()
}

@Test func expiredEntriesAreNotSeenByEitherClock() async throws {
    let harness = try await ServerHarness.start()
    let tree = try await harness.connect().attach()
    let past = Expiry.processingTime(milliseconds: 1)
    let event = Expiry.eventTime(milliseconds: 1_000)
    try await tree.write(
        1,
        [
            TestEntry(key: testKey(0, 1), value: [65], expiry: past),
            TestEntry(key: testKey(0, 2), value: [66], expiry: event),
        ], watermark: 500)
    #expect(try await tree.get([testKey(0, 1), testKey(0, 2)]) == [nil, "B"])
    #expect(try await tree.get([testKey(0, 2)], watermark: 1_000) == [nil])
    try await tree.write(2, [.put(0, 3, "C")], watermark: 1_000)
    #expect(try await tree.scanAll().map(\.key) == [testKey(0, 3)])
    await harness.server.shutdown()
}

/// The answer tells how often that happened and what stored expiries mean; a registration without a clock changes nothing.
@Test func aRegistrationThatNamesItsClockMovesWhatIsStored() async throws {
    let files = MemoryFileSystem()
    var harness = try await ServerHarness.start(files)
    var tree = try await harness.connect().attach()
    #expect(tree.reply.ttlChanges == 0)
    let first = try await tree.register("last", .value, 100, .event)
    #expect(first.state.id == 1 && first.ttlChanges == 0 && first.expiryRules.isEmpty)
    let entries = [1, 2].map { number in
        TestEntry(key: testKey(0, number), value: [65], expiry: .eventTime(milliseconds: UInt64(number) * 100 + 100))
    }
    try await tree.write(1, [entries[0]], watermark: 100)
    try await tree.write(2, [entries[1]], watermark: 200)
    #expect(try await tree.get([testKey(0, 1), testKey(0, 2)]) == [nil, "A"])
    #expect(try await tree.register("last", .value, 500, .unspecified).ttlChanges == 0)

    let longer = try await tree.register("last", .value, 300, .event)
    #expect(longer.ttlChanges == 1)
    let rule = try #require(longer.expiryRules.first)
    #expect(rule.storedTtlMilliseconds == 100 && rule.ttlMilliseconds == 300 && rule.endedEvent == 200)
    #expect(try await tree.scanAll().map(\.expiry) == [.eventTime(milliseconds: 500)])
    await harness.server.shutdown()

    harness = try await ServerHarness.start(files)
    tree = try await harness.connect().attach(epoch: 2)
    #expect(tree.reply.ttlChanges == 1)
    #expect(try await tree.register("last", .value, 300, .event).expiryRules == longer.expiryRules)
    #expect(await refusalCode { _ = try await tree.register("last", .value, 1 << 51, .event) } != nil)
    #expect(try await tree.get([testKey(0, 1), testKey(0, 2)], watermark: 500) == [nil, nil])
    await harness.server.shutdown()
}

@Test func aMultiGetCollectsNoMoreThanAnAnswerHolds() async throws {
    let harness = try await ServerHarness.start()
    let tree = try await harness.connect().attach()
    try await tree.write(1, [TestEntry(key: testKey(0, 1), value: [UInt8](repeating: 65, count: 1 << 20))])
    let error = await refusal { _ = try await tree.get([[UInt8]](repeating: testKey(0, 1), count: 60)) }
    #expect(error?.errorCode == .limitExceeded)
    // It stopped there: what a request names must not decide how much memory the server takes.
    #expect(error?.summary.contains("the first 17 values") == true, "\(error as Any)")
    #expect(try await tree.get([testKey(0, 1), testKey(0, 2)]).map { $0?.utf8.count } == [1 << 20, nil])
    await harness.server.shutdown()
}

@Test func aRepeatedBatchIsAcknowledgedOnceAppliedAndAGapIsRefused() async throws {
    let harness = try await ServerHarness.start()
    let tree = try await harness.connect().attach()
    try await tree.write(1, [TestEntry(key: testKey(0, 1), kind: .append, value: [65])])
    try await tree.write(1, [TestEntry(key: testKey(0, 1), kind: .append, value: [65])])
    #expect(try await tree.get([testKey(0, 1)]) == ["A"])
    let gap = await refusal { try await tree.write(3, [.put(0, 2, "x")]) }
    #expect(gap?.errorCode == .sequenceGap)
    #expect(gap?.expectedSequence == 2)
    #expect(try await tree.get([testKey(0, 2)]) == [nil])
    try await tree.write(2, [.put(0, 2, "x")])
    await harness.server.shutdown()
}

@Test func theNewestEpochWinsAndFencesTheOthers() async throws {
    let harness = try await ServerHarness.start()
    let old = try await harness.connect().attach(epoch: 1, writer: "old")
    try await old.write(1, [.put(0, 1, "old")])
    let new = try await harness.connect().attach(epoch: 2, writer: "new")
    #expect(!new.reply.resumed)
    #expect(new.reply.lastSequence == 0)
    #expect(try await new.get([testKey(0, 1)]) == ["old"])
    for work in [
        { try await old.write(2, [.put(0, 1, "zombie")]) },
        { _ = try await old.get([testKey(0, 1)]) },
        { _ = try await old.page() },
        { _ = try await old.snapshot(1) },
        { try await old.detach() },
    ] as [@Sendable () async throws -> Void] {
        let error = await refusal { try await work() }
        #expect(error?.errorCode == .fenced)
        #expect(error?.currentEpoch == 2)
    }
    // The zombie attaches again with what it has.
    let again = await refusal { _ = try await harness.connect().attach(epoch: 1, writer: "old") }
    #expect(again?.errorCode == .fenced)
    #expect(again?.currentEpoch == 2)
    let twin = await refusalCode { _ = try await harness.connect().attach(epoch: 2, writer: "twin") }
    #expect(twin == .fenced)
    try await new.write(1, [.put(0, 1, "new")])
    #expect(try await new.get([testKey(0, 1)]) == ["new"])
    // A batch that names another epoch than its attach.
    #expect(await refusalCode { try await new.write(2, [.put(0, 1, "x")], epoch: 1) } == .fenced)
    await harness.server.shutdown()
}

@Test func theSameWriterResumesOverAnotherConnection() async throws {
    let harness = try await ServerHarness.start()
    // Two loops: connections alternate, so the tree moves from one to the other.
    var sequence: UInt64 = 0
    var previous: TestTree?
    for round in 0..<6 {
        let tree = try await harness.connect().attach()
        #expect(tree.reply.resumed == (round > 0))
        #expect(tree.reply.lastSequence == sequence)
        for _ in 0..<20 {
            sequence += 1
            try await tree.write(sequence, [.put(UInt16(sequence % 8), Int(sequence), "r\(round)")])
        }
        if let previous { #expect(await refusalCode { try await previous.write(sequence + 1, []) } == .notAttached) }
        previous = tree
    }
    #expect(try await previous!.scanAll().count == 120)
    #expect(harness.server.openTreeCount == 1)
    await harness.server.shutdown()
}

@Test func rangesMustFitOrBeRestored() async throws {
    let harness = try await ServerHarness.start()
    let client = try await harness.connect()
    let left = try await client.attach(groups: 8, 0, 3)
    _ = try await client.attach(groups: 8, 4, 7)
    #expect(await refusalCode { _ = try await client.attach(groups: 8, 0, 7, epoch: 2) } == .rangeMismatch)
    #expect(await refusalCode { _ = try await client.attach(groups: 8, 2, 5, epoch: 1) } == .rangeMismatch)
    #expect(await refusalCode { _ = try await client.attach(groups: 16, 0, 3) } == .stateMismatch)
    #expect(await refusalCode { _ = try await client.attach(groups: 8, 5, 9) } == .badMessage)
    #expect(await refusalCode { _ = try await client.attach("a/b", groups: 8, 0, 3) } == .limitExceeded)
    #expect(await refusalCode { try await left.write(1, [.put(4, 1, "x")]) } == .keyOutOfRange)
    #expect(await refusalCode { _ = try await left.get([testKey(4, 1)]) } == .keyOutOfRange)
    #expect(await refusalCode { _ = try await left.get([[0]]) } == .keyOutOfRange)
    // The tree is as it was.
    try await left.write(1, [.put(3, 1, "x")])
    await harness.server.shutdown()
}

@Test func aSnapshotRestoresAtOtherRangesAndIsReleased() async throws {
    let harness = try await ServerHarness.start()
    let client = try await harness.connect()
    let two = [try await client.attach(0, 3), try await client.attach(4, 7)]
    for (index, tree) in two.enumerated() {
        let groups = (0..<4).map { UInt16($0 + index * 4) }
        try await tree.write(1, groups.flatMap { group in (0..<50).map { .put(group, $0, "v\(group)") } })
    }
    var handles: [String] = []
    for tree in two { handles.append(try await tree.snapshot(1, sequence: 1).handle) }
    #expect(try await two[0].snapshot(1, sequence: 1).handle == handles[0], "the same checkpoint gives the same handle")
    #expect(await refusalCode { _ = try await two[0].snapshot(2, sequence: 9) } == .sequenceGap)
    // Written after the snapshot: not in the restored content.
    for tree in two { try await tree.write(2, [.put(tree.reply.tree == 1 ? 0 : 4, 999, "late")]) }

    // 2 → 3
    var three: [TestTree] = []
    for (first, last) in [(0, 2), (3, 5), (6, 7)] as [(UInt16, UInt16)] {
        three.append(try await client.attach(first, last, epoch: 2, restoring: handles))
    }
    #expect(await refusalCode { try await two[0].write(3, []) } == .fenced)
    var groups: [UInt16] = []
    for tree in three {
        let entries = try await tree.scanAll()
        #expect(entries.allSatisfy { $0.value == Array("v\($0.key[1])".utf8) })
        groups += entries.map { UInt16($0.key[1]) }
    }
    #expect(groups.count == 400)
    // An attach of the same writer again finds the restore done.
    let again = try await client.attach(0, 2, epoch: 2, restoring: handles)
    #expect(again.reply.resumed)
    #expect(await refusalCode { _ = try await client.attach(0, 3, epoch: 1) } == .fenced)

    // 3 → 1, from snapshots of the restored trees.
    try await again.write(1, [.put(0, 0, "changed")])
    var next: [String] = []
    for tree in [again, three[1], three[2]] { next.append(try await tree.snapshot(2).handle) }
    let missing = await refusalCode { _ = try await client.attach(0, 7, epoch: 3, restoring: [next[0], next[2]]) }
    #expect(missing == .noSuchSnapshot)
    let twice = await refusalCode { _ = try await client.attach(0, 7, epoch: 3, restoring: next + [next[0]]) }
    #expect(twice == .noSuchSnapshot)
    let one = try await client.attach(0, 7, epoch: 3, restoring: next)
    #expect(try await one.scanAll().count == 400)
    #expect(try await one.get([testKey(0, 0), testKey(0, 1)]) == ["changed", "v0"])
    #expect(harness.server.openTreeCount == 1)

    #expect(try await client.snapshots().count == 5)
    #expect(try await client.release(handles) == 2)
    #expect(try await client.release(handles) == 0)
    #expect(try await client.snapshots().map(\.handle).sorted() == next.sorted())
    let released = await refusalCode { _ = try await client.attach(0, 7, epoch: 4, restoring: handles) }
    #expect(released == .noSuchSnapshot)
    #expect(await refusalCode { _ = try await client.release(["other/1/0-1"]) } == .noSuchSnapshot)
    #expect(try await one.scanAll().count == 400)
    let empty = try await client.attach(0, 7, epoch: 5, restoring: [])
    #expect(try await empty.scanAll().isEmpty)
    await harness.server.shutdown()
}

@Test func statesAndDictionariesAreKeptAndGivenBack() async throws {
    let files = MemoryFileSystem()
    var harness = try await ServerHarness.start(files)
    var client = try await harness.connect()
    var tree = try await client.attach()
    let last = try await tree.register("last", .value)
    let seen = try await tree.register("seen", .map, ttlMilliseconds: 60_000)
    #expect([last.id, seen.id] == [1, 2])
    #expect(try await tree.register("last", .value).id == 1)
    #expect(await refusalCode { _ = try await tree.register("last", .list) } == .stateMismatch)
    let put = Cistern_V1_PutDictionary(stateID: 1, dictionaryBytes: [1, 2, 3])
    let id = try await client.request(.putDictionary, tree: tree.handle, put, Cistern_V1_PutDictionaryReply.self).id
    let wrong = Cistern_V1_PutDictionary(stateID: 9, dictionaryBytes: [1])
    #expect(
        await refusalCode {
            _ = try await client.request(.putDictionary, tree: tree.handle, wrong, Cistern_V1_PutDictionaryReply.self)
        } == .stateMismatch)
    await harness.server.shutdown()

    harness = try await ServerHarness.start(files)
    client = try await harness.connect()
    tree = try await client.attach(epoch: 2)
    #expect(tree.reply.states.map(\.name) == ["last", "seen"])
    #expect(tree.reply.states[1].ttlMilliseconds == 60_000)
    #expect(tree.reply.dictionaries.map(\.id) == [id])
    var get = Cistern_V1_GetDictionary()
    get.id = id
    let found = try await client.request(.getDictionary, tree: tree.handle, get, Cistern_V1_GetDictionaryReply.self)
    #expect(found.dictionaryBytes == [1, 2, 3])
    get.id = 77
    let unknown = get
    #expect(
        await refusalCode {
            _ = try await client.request(.getDictionary, tree: tree.handle, unknown, Cistern_V1_GetDictionaryReply.self)
        } == .noSuchDictionary)
    await harness.server.shutdown()
}

@Test(arguments: LogRule.allCases)
func aRestartInOrderRecoversEverythingAcknowledged(log: LogRule) async throws {
    let files = MemoryFileSystem()
    var harness = try await ServerHarness.start(files) { $0.log = log }
    var tree = try await harness.connect().attach()
    for sequence in 1...40 {
        try await tree.write(
            UInt64(sequence), (0..<50).map { .put(UInt16(sequence % 8), sequence * 100 + $0, "v\(sequence)") })
    }
    let before = try await tree.scanAll()
    #expect(before.count == 2_000)
    await harness.server.shutdown()
    harness = try await ServerHarness.start(files) { $0.log = log }
    tree = try await harness.connect().attach()
    #expect(tree.reply.resumed)
    #expect(tree.reply.lastSequence == 40)
    #expect(try await tree.scanAll() == before)
    await harness.server.shutdown()
}

@Test func aPowerCutLosesNothingAcknowledged() async throws {
    let files = MemoryFileSystem()
    let harness = try await ServerHarness.start(files)
    let tree = try await harness.connect().attach()
    for sequence in 1...30 { try await tree.write(UInt64(sequence), [.put(0, sequence, "v")]) }
    let after = files.afterPowerCut(seed: 7)
    await harness.server.shutdown()
    let second = try await ServerHarness.start(after)
    let back = try await second.connect().attach()
    #expect(back.reply.lastSequence == 30)
    #expect(try await back.scanAll().count == 30)
    await second.server.shutdown()
}

@Test func aFullDiskMakesTheTreeReadOnlyUntilThereIsRoom() async throws {
    let files = MemoryFileSystem()
    let harness = try await ServerHarness.start(files)
    let tree = try await harness.connect().attach()
    try await tree.write(1, [.put(0, 1, "kept")])
    files.capacityBytes = files.usedBytes
    let full = await refusal { try await tree.write(2, [.put(0, 2, "x")]) }
    #expect(full?.errorCode == .readOnly)
    #expect(full?.class == .retry)
    #expect((full?.retryMilliseconds ?? 0) > 0)
    #expect(full?.message.contains("free space") == true)
    #expect(try await tree.get([testKey(0, 1)]) == ["kept"])
    files.capacityBytes = .max
    var attempts = 0
    // The first may be acknowledged as a duplicate while the log is still to begin anew, so both are resent.
    for (sequence, value) in [(UInt64(2), "x"), (3, "y")] {
        while true {
            // The writer resends the same batch, as the error says; each answer is one turn, nothing sleeps.
            let put = TestEntry.put(0, Int(sequence), value)
            guard let error = await refusal({ try await tree.write(sequence, [put]) }) else { break }
            try #require(error.errorCode == .readOnly, "\(error)")
            attempts += 1
            try #require(attempts < 1_000_000, "the tree stays read-only")
        }
    }
    #expect(try await tree.scanAll().map { String(decoding: $0.value, as: UTF8.self) } == ["kept", "x", "y"])
    await harness.server.shutdown()
}

@Test func aDamagedTreeIsReportedAndNotReplacedByAnEmptyOne() async throws {
    let files = MemoryFileSystem()
    var harness = try await ServerHarness.start(files)
    var client = try await harness.connect()
    let tree = try await client.attach()
    try await tree.write(1, [.put(0, 1, "v")])
    let handle = try await tree.snapshot(1).handle
    await harness.server.shutdown()
    let manifest = try #require(files.paths.first { $0.contains("MANIFEST") })
    var bytes = try #require(files.contents(manifest))
    bytes[40] ^= 1
    files.setContents(manifest, bytes)

    harness = try await ServerHarness.start(files)
    client = try await harness.connect()
    let damaged = client
    let error = await refusal { _ = try await damaged.attach(epoch: 2) }
    #expect(error?.errorCode == .corruption)
    #expect(error?.message.contains("MANIFEST") == true || error?.message.contains("trees/") == true)
    // Another store is not touched by it, and a checkpoint brings the range back.
    _ = try await client.attach("other")
    let back = try await client.attach(epoch: 2, restoring: [handle])
    #expect(try await back.get([testKey(0, 1)]) == ["v"])
    await harness.server.shutdown()
}

@Test func snapshotsTellWhatTheyAdd() async throws {
    let harness = try await ServerHarness.start()
    let tree = try await harness.connect().attach()
    try await tree.write(1, (0..<1_000).map { .put(0, $0, "value \($0)") })
    let first = try await tree.snapshot(1)
    #expect(first.bytesTotal > 0)
    #expect(first.bytesNew == first.bytesTotal)
    let second = try await tree.snapshot(2)
    #expect(second.handle != first.handle)
    #expect(second.bytesNew == 0)
    try await tree.write(2, [.put(1, 1, "one more")])
    let third = try await tree.snapshot(3)
    #expect(third.bytesNew > 0)
    #expect(third.bytesNew < third.bytesTotal)
    await harness.server.shutdown()
}

@Test func drainingAnswersWhatIsInFlightAndRefusesWhatComesLater() async throws {
    let files = MemoryFileSystem()
    let harness = try await ServerHarness.start(files)
    let client = try await harness.connect()
    let tree = try await client.attach()
    let (answers, ends) = AsyncStream<Result<Void, TransportError>>.makeStream()
    for sequence in 1...200 {
        let body = tree.batch(UInt64(sequence), [.put(0, sequence, "v")], epoch: 1)
        client.connection.send(.writeBatch, tree: tree.handle, body: body) { ends.yield($0.map { _ in }) }
    }
    // One is answered, so that the rest is on its way or in the server.
    var results: [Result<Void, TransportError>] = []
    var iterator = answers.makeAsyncIterator()
    results.append(await iterator.next()!)
    await harness.server.drain()
    while results.count < 200 { results.append(await iterator.next()!) }
    let acknowledged = results.filter { if case .success = $0 { true } else { false } }.count
    for case .failure(let error) in results {
        switch error {
        case .goingAway, .closed: break
        case .remote(let body): #expect(body.errorCode == .draining)
        default: Issue.record("\(error)")
        }
    }
    await harness.server.shutdown()
    let second = try await ServerHarness.start(files)
    let back = try await second.connect().attach()
    #expect(acknowledged > 0)
    #expect(back.reply.lastSequence >= UInt64(acknowledged))
    #expect(try await back.scanAll().count == Int(back.reply.lastSequence))
    await second.server.shutdown()
}

@Test func aConnectionThatLeavesLetsGoOfItsTreesAndTheyCloseLater() async throws {
    let harness = try await ServerHarness.start { $0.idleTreeMilliseconds = 0 }
    let client = try await harness.connect()
    let kept = try await client.attach("kept")
    let tree = try await client.attach("left")
    try await tree.write(1, [.put(0, 1, "v")])
    try await tree.detach()
    #expect(harness.server.openTreeCount == 1)
    #expect(await refusalCode { try await tree.write(2, []) } == .notAttached)
    let back = try await client.attach("left")
    #expect(back.reply.lastSequence == 1)
    try await back.detach()
    _ = kept
    await client.connection.close()
    // The server closes the idle tree; how long that takes is not promised, that it happens is.
    while harness.server.openTreeCount > 0 { await Task.yield() }
    await harness.server.shutdown()
}

@Test func aTreeThatAFailedAttachTookFromItsSessionIsClosedLater() async throws {
    let files = MemoryFileSystem()
    let harness = try await ServerHarness.start(files) { $0.idleTreeMilliseconds = 0 }
    let old = try await harness.connect().attach(epoch: 1, writer: "old")
    try await old.write(1, [.put(0, 1, "v")])
    files.inject(MemoryFileSystem.Fault([.createDirectory, .create], count: 1))
    #expect(
        await refusal { _ = try await harness.connect().attach(0, 7, epoch: 2, writer: "new", restoring: []) } != nil)
    #expect(await refusalCode { try await old.write(2, []) } == .fenced)
    for _ in 0..<200_000 where harness.server.openTreeCount > 0 { await Task.yield() }
    #expect(harness.server.openTreeCount == 0)
    let new = try await harness.connect().attach(epoch: 2, writer: "new")
    #expect(try await new.get([testKey(0, 1)]) == ["v"])
    await harness.server.shutdown()
}

@Test func malformedAndForeignRequestsAreRefusedAndTheConnectionLives() async throws {
    let harness = try await ServerHarness.start()
    let client = try await harness.connect()
    let tree = try await client.attach()
    for opcode in [Opcode.writeBatch, .multiGet, .scan, .keyIndex, .attach, .snapshot] {
        let code = await refusalCode {
            _ = try await client.connection.request(opcode, tree: tree.handle, body: [0xFF, 0xFF, 0xFF])
        }
        #expect(code == .badMessage, "\(opcode)")
    }
    for handle in [UInt32(0), 2, 77, .max] {
        let body = tree.batch(1, [], epoch: 1)
        let code = await refusalCode {
            _ = try await client.connection.request(.writeBatch, tree: handle, body: body)
        }
        #expect(code == .notAttached)
    }
    #expect(await refusalCode { _ = try await client.snapshots(store: "nowhere") } == .noSuchStore)
    try await tree.write(1, [.put(0, 1, "v")])
    await harness.server.shutdown()
}

@Test func aSecondServerOnTheDirectoryIsRefused() async throws {
    let files = MemoryFileSystem()
    let harness = try await ServerHarness.start(files)
    await #expect(throws: ServerStartError.self) { _ = try await ServerHarness.start(files) }
    await harness.server.shutdown()
    await harness.server.shutdown()
    let again = try await ServerHarness.start(files)
    await again.server.shutdown()
}
