// A time to live that changes, over a real server: values, map entries and list elements follow it, and the key index too.

import CisternClient
import CisternPrimitives
import CisternTestKit
import Testing

private struct Reading: Equatable {
    let value: String?
    let list: [String]
    let map: [String]

    init(_ value: String?, _ list: [String], _ map: [String]) {
        self.value = value
        self.list = list
        self.map = map
    }
}

private struct States {
    let value: ValueState<String>
    let list: ListState<String>
    let map: MapState<String, String>

    init(_ session: KeyedStateSession, _ ttl: TimeToLive?) async throws {
        let options = StateOptions(ttl: ttl)
        value = try await session.valueState("value", .string, options)
        list = try await session.listState("list", .string, options)
        map = try await session.mapState("map", .string, .string, options)
    }

    func set(_ text: String) async throws {
        try await value.update(text)
        try await list.add(text)
        try await map.put(text, text)
    }

    func read(_ mapKeys: [String]) async throws -> Reading {
        var found: [String] = []
        for key in mapKeys { if try await map.get(key) != nil { found.append(key) } }
        return Reading(try await value.value(), try await list.get(), found)
    }
}

@Suite(.timeLimit(.minutes(2))) struct TimeToLiveTests {
    private let key = Array("user".utf8)

    private func attach(
        _ backend: ServerBackend, epoch: UInt64, _ mode: ClientConfiguration.KeyIndex = .keys
    ) async throws -> KeyedStateSession {
        let session = try await backend.attach(epoch: epoch, restoring: nil) { $0.keyIndex = mode }
        try session.setCurrentKey(key)
        return session
    }

    @Test(arguments: [ClientConfiguration.KeyIndex.keys, .verify, .off])
    func whatIsStoredFollowsTheTimeToLiveOfTheNextRun(mode: ClientConfiguration.KeyIndex) async throws {
        let backend = ServerBackend(seed: 1)
        try await backend.start()
        var session = try await attach(backend, epoch: 1, mode)
        var states = try await States(session, .processing(milliseconds: 1000))
        try await states.set("a")
        backend.time.advance(milliseconds: 400)
        try await states.list.add("b")
        try await states.map.put("b", "b")
        _ = try await session.snapshot(checkpoint: 1)
        try await session.detach()

        // Longer: what would have been over lives on, each element from its own writing.
        session = try await attach(backend, epoch: 2, mode)
        states = try await States(session, .processing(milliseconds: 3000))
        backend.time.advance(milliseconds: 2000)
        #expect(try await states.read(["a", "b"]) == Reading("a", ["a", "b"], ["a", "b"]))
        try await states.list.add("c")
        backend.time.advance(milliseconds: 700)
        #expect(try await states.read(["a", "b"]) == Reading(nil, ["b", "c"], ["b"]))
        try await session.detach()
        try await backend.restart()

        // Shorter: at once.
        session = try await attach(backend, epoch: 3, mode)
        states = try await States(session, .processing(milliseconds: 800))
        #expect(try await states.read(["a", "b"]) == Reading(nil, ["c"], []))
        try await states.set("d")

        // Longer again: nothing comes back.
        try await session.detach()
        session = try await attach(backend, epoch: 4, mode)
        states = try await States(session, .processing(milliseconds: 90_000))
        #expect(try await states.read(["a", "b", "d"]) == Reading("d", ["c", "d"], ["d"]))
        var lists: [[String]] = []
        try await session.forEach(states.list) { _, _, elements in lists.append(elements) }
        #expect(lists == [["c", "d"]])
        await backend.stop()
    }

    @Test func aRunningSessionSwitchesATimeToLiveOffAndOn() async throws {
        let backend = ServerBackend(seed: 2)
        try await backend.start()
        let session = try await attach(backend, epoch: 1)
        let states = try await States(session, nil)
        func set(_ ttl: TimeToLive?) async throws {
            for name in ["value", "list", "map"] { try await session.setTimeToLive(ttl, ofState: name) }
        }
        try await states.set("a")
        try await set(.processing(milliseconds: 1000))
        backend.time.advance(milliseconds: 600)
        try await states.list.add("b")
        // Written before there was a time to live: from then on.
        #expect(try await states.read(["a"]) == Reading("a", ["a", "b"], ["a"]))
        backend.time.advance(milliseconds: 400)
        #expect(try await states.read(["a"]) == Reading(nil, ["b"], []))

        try await set(nil)
        try await states.set("c")
        // Without a time to live the server's time of arrival counts.
        try await session.flush()
        backend.time.advance(milliseconds: 5000)
        #expect(try await states.read(["a", "c"]) == Reading("c", ["b", "c"], ["c"]))
        try await set(.processing(milliseconds: 6000))
        #expect(try await states.read(["c"]) == Reading("c", ["b", "c"], ["c"]))
        backend.time.advance(milliseconds: 1000)
        #expect(try await states.read(["c"]) == Reading(nil, [], []))
        await #expect(throws: ClientError.self) { try await session.setTimeToLive(nil, ofState: "nobody") }
        await backend.stop()
    }
}
