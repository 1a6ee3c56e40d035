import CisternClient
import CisternPrimitives
import NIOPosix
import Testing

@Suite struct BatchReadTests {
    /// A store with the values 0 ..< 100 of `user(0)` ..< `user(100)`.
    private func filled() async throws -> ModelServer {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server)
        let counts = try await session.valueState("counts", .int64)
        for number in 0..<100 {
            try session.setCurrentKey(user(number))
            try await counts.update(Int64(number))
        }
        try await session.detach()
        return server
    }

    @Test func valuesOfManyKeysTakeOneRequestAndKeepTheirOrder() async throws {
        let server = try await filled()
        let session = try await attach(server, epoch: 2) {
            $0.keyIndex = .off
            $0.valueCacheBytes = 0
        }
        let counts = try await session.valueState("counts", .int64)
        try session.setCurrentKey(user(7))
        let order = (0..<150).map { $0 * 71 % 150 }
        let values = try await counts.values(of: order.map(user))
        #expect(values == order.map { $0 < 100 ? Int64($0) : nil })
        #expect(server.multiGets == 1)
        #expect(session.currentKey == user(7))
    }

    @Test func valuesShowWhatIsBufferedInFlightAndRemoved() async throws {
        let server = try await filled()
        let session = try await attach(server, epoch: 2)
        let counts = try await session.valueState("counts", .int64)
        try session.setCurrentKey(user(1))
        try await counts.update(1000)
        try session.setCurrentKey(user(2))
        try await counts.clear()
        try session.setCurrentKey(user(200))
        try await counts.update(200)
        let keys = [1, 2, 3, 200, 201, 1].map(user)
        #expect(try await counts.values(of: keys) == [1000, nil, 3, 200, nil, 1000])
        try await session.flush()
        #expect(try await counts.values(of: keys) == [1000, nil, 3, 200, nil, 1000])
        #expect(session.metrics.absentReadRPCs == 0)
    }

    @Test func whatWasReadAheadWaitsForItsReadInACacheThatIsFullOfReadValues() async throws {
        let server = try await filled()
        let session = try await attach(server, epoch: 2) { $0.valueCacheBytes = 30 * 145 }
        let counts = try await session.valueState("counts", .int64)
        for _ in 0..<2 {
            for number in 0..<25 {
                try session.setCurrentKey(user(number))
                #expect(try await counts.value() == Int64(number))
            }
        }
        for first in stride(from: 30, to: 100, by: 10) {
            try await counts.prefetch((first..<first + 10).map(user))
            let requests = server.multiGets
            for number in first..<first + 10 {
                try session.setCurrentKey(user(number))
                #expect(try await counts.value() == Int64(number))
            }
            #expect(server.multiGets == requests)
        }
    }

    @Test func readingManyExtendsTheLifeOfEach() async throws {
        let time = ManualTime()
        let server = ModelServer(time: time)
        let session = try await attach(server)
        let options = StateOptions(ttl: .processing(milliseconds: 1000, refresh: .onReadAndWrite))
        let seen = try await session.valueState("seen", .int64, options)
        for number in 0..<3 {
            try session.setCurrentKey(user(number))
            try await seen.update(Int64(number))
        }
        time.advance(milliseconds: 900)
        #expect(try await seen.values(of: [user(0), user(2)]) == [0, 2])
        time.advance(milliseconds: 900)
        #expect(try await seen.values(of: [0, 1, 2].map(user)) == [0, nil, 2])
    }

    @Test func aKeyOfAnotherWorkerIsRefused() async throws {
        let server = ModelServer(time: ManualTime())
        let session = try await attach(server, keyGroups: KeyGroupRange(first: 0, last: 3))
        let counts = try await session.valueState("counts", .int64)
        let foreign = try #require((0..<1000).map(user).first { KeyGroup.group(ofKey: $0, count: 8) > 3 })
        await #expect(throws: ClientError.self) { _ = try await counts.values(of: [foreign]) }
    }
}

@Suite struct WorkerLoopTests {
    @Test func aSessionOfAWorkerLoopWorksOnItsThreadAlone() async throws {
        let threads = try await WorkerLoop().run { () async throws -> [Bool] in
            let backend = ServerBackend(seed: 1)
            try await backend.start()
            var isOnLoop = [MultiThreadedEventLoopGroup.currentEventLoop != nil]
            let session = try await backend.attach(epoch: 1, restoring: nil) { $0.keyIndex = .off }
            let counts = try await session.valueState("counts", .int64)
            for round in 0..<3 {
                for number in 0..<50 {
                    try session.setCurrentKey(user(number))
                    let count = try await counts.value() ?? 0
                    isOnLoop.append(MultiThreadedEventLoopGroup.currentEventLoop != nil)
                    #expect(count == Int64(round))
                    try await counts.update(count + 1)
                }
            }
            try await session.flush()
            let handle = try await session.snapshot(checkpoint: 1)
            #expect(!handle.rawValue.isEmpty)
            isOnLoop.append(MultiThreadedEventLoopGroup.currentEventLoop != nil)
            try await session.detach()
            await backend.stop()
            return isOnLoop
        }
        #expect(threads.count == 152)
        #expect(threads.allSatisfy { $0 })
    }

    @Test func aSessionOfAWorkerLoopComesThroughARestartOfTheServer() async throws {
        try await WorkerLoop().run {
            let backend = ServerBackend(seed: 2)
            try await backend.start()
            let session = try await backend.attach(epoch: 1, restoring: nil) { _ in }
            let counts = try await session.valueState("counts", .int64)
            for number in 0..<200 {
                if number % 50 == 25 { try await backend.restart() }
                try session.setCurrentKey(user(number))
                try await counts.update(Int64(number))
            }
            try await session.flush()
            #expect(try await counts.values(of: (0..<200).map(user)) == (0..<200).map { Int64($0) })
            try await session.detach()
            await backend.stop()
        }
    }

    @Test func cancellingTheCallerCancelsTheWork() async throws {
        let task = Task {
            try await WorkerLoop().run {
                while !Task.isCancelled { await Task.yield() }
                throw CancellationError()
            }
        }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }
}
