// Calls to a cluster of etcd: connections that are used again, members in turn, a time limit, and whether a call that had no answer may
// be tried at another member.

package import CisternTransport
internal import FoundationEssentials
package import NIOCore
internal import Synchronization

package struct EtcdOptions: Sendable {
    /// Members of one cluster; the first one that answers is asked until it does not.
    package var endpoints: [Endpoint]
    package var tls: ClientTLS?
    package var connectTimeout: TimeAmount = .seconds(2)
    /// Of a whole call, whichever members it is tried at.
    package var callTimeout: TimeAmount = .seconds(6)

    /// - Precondition: at least one endpoint.
    package init(endpoints: [Endpoint]) {
        precondition(!endpoints.isEmpty, "an etcd without endpoints")
        self.endpoints = endpoints
    }
}

final class EtcdClient: Sendable {
    static let idleConnectionsMax = 8

    private struct State {
        /// Index of the member that is asked first.
        var current = 0
        var idle: [EtcdConnection] = []
        /// Connections are not kept any more.
        var isClosed = false
    }

    let options: EtcdOptions
    private let group: any EventLoopGroup
    private let state = Mutex(State())

    init(options: EtcdOptions, group: any EventLoopGroup) {
        self.options = options
        self.group = group
    }

    deinit { close() }

    /// Idempotent. Calls go on, each with a connection of its own.
    func close() {
        let idle = state.withLock { state in
            state.isClosed = true
            defer { state.idle = [] }
            return state.idle
        }
        for connection in idle { connection.close() }
    }

    /// - Parameter isRepeatable: doing it twice is the same as doing it once.
    func call<Reply: Decodable>(
        _ path: String, _ request: some Encodable, isRepeatable: Bool, as reply: Reply.Type = Reply.self
    ) async throws(EtcdFailure) -> Reply {
        let body = try encode(request)
        let deadline = NIODeadline.now() + options.callTimeout
        // A member that hears and does not answer must leave time for the others.
        let share = options.callTimeout / min(options.endpoints.count, 3)
        var last = EtcdFailure.notSent("no endpoint was tried")
        for attempt in options.endpoints.indices {
            let left = deadline - .now()
            guard attempt == 0 || left > .nanoseconds(0) else { break }
            let index = state.withLock { $0.current }
            do throws(EtcdFailure) {
                return try await exchange(
                    options.endpoints[index], path, body, timeout: min(share, max(left, .milliseconds(1))))
            } catch {
                last = error
                switch error {
                case .notSent: break
                case .noAnswer:
                    if !isRepeatable {
                        leave(index)
                        throw error
                    }
                case .refused(let code, _):
                    guard EtcdClient.isUnavailable(code) else { throw error }
                    if !isRepeatable {
                        leave(index)
                        throw error
                    }
                case .tooLarge, .compacted: throw error
                }
                leave(index)
            }
        }
        throw last
    }

    /// gRPC: deadline exceeded, unavailable. What was asked may have been done.
    static func isUnavailable(_ code: Int) -> Bool { code == 4 || code == 14 }

    /// A connection of its own with the request sent, for answers that go on.
    func open(_ path: String, _ request: some Encodable) async throws(EtcdFailure) -> EtcdConnection {
        let body = try encode(request)
        var last = EtcdFailure.notSent("no endpoint was tried")
        for _ in options.endpoints.indices {
            let index = state.withLock { $0.current }
            do throws(EtcdFailure) {
                let connection = try await connect(options.endpoints[index])
                await connection.send(path, body)
                return connection
            } catch {
                last = error
                leave(index)
            }
        }
        throw last
    }

    /// The member that `connection` goes to is not asked first any more.
    func leave(_ connection: EtcdConnection) {
        if let index = options.endpoints.firstIndex(of: connection.endpoint) { leave(index) }
    }

    private func leave(_ index: Int) {
        state.withLock { if $0.current == index { $0.current = (index + 1) % options.endpoints.count } }
    }

    func decode<Reply: Decodable>(_ type: Reply.Type, _ line: EtcdLine) throws(EtcdFailure) -> Reply {
        let data = Data(line.bytes.readableBytesView)
        guard line.status == 200 else {
            let found = try? JSONDecoder().decode(EtcdErrorReply.self, from: data)
            guard let code = found?.code else {
                throw .noAnswer("HTTP status \(line.status) instead of an answer of etcd's gateway")
            }
            throw .refused(code: code, message: found?.message ?? found?.error ?? "no message")
        }
        do {
            return try JSONDecoder().decode(type, from: data)
        } catch {
            throw .noAnswer("an answer cannot be read: \(error)")
        }
    }

    private func encode(_ request: some Encodable) throws(EtcdFailure) -> [UInt8] {
        do {
            return [UInt8](try JSONEncoder().encode(request))
        } catch {
            throw .notSent("the request cannot be encoded: \(error)")
        }
    }

    // MARK: Exchanges

    private func exchange<Reply: Decodable>(
        _ endpoint: Endpoint, _ path: String, _ body: [UInt8], timeout: TimeAmount
    ) async throws(EtcdFailure) -> Reply {
        let connection = try await connect(endpoint)
        await connection.send(path, body)
        do throws(EtcdFailure) {
            guard let line = try await connection.nextLine(timeout: timeout) else {
                throw .noAnswer("\(endpoint) has sent an empty answer")
            }
            let reply = try decode(Reply.self, line)
            await giveBack(connection)
            return reply
        } catch {
            if case .refused = error { await giveBack(connection) } else { connection.close() }
            throw error
        }
    }

    private func connect(_ endpoint: Endpoint) async throws(EtcdFailure) -> EtcdConnection {
        while let idle = state.withLock({ takeIdle(endpoint, &$0) }) {
            if await idle.isIdle() { return idle }
            idle.close()
        }
        return try await EtcdConnection.connect(
            endpoint, group: group, tls: options.tls, timeout: options.connectTimeout)
    }

    private func takeIdle(_ endpoint: Endpoint, _ state: inout State) -> EtcdConnection? {
        guard let index = state.idle.lastIndex(where: { $0.endpoint == endpoint }) else { return nil }
        return state.idle.remove(at: index)
    }

    private func giveBack(_ connection: EtcdConnection) async {
        // Behind its line the answer has an end, which is there at once.
        do throws(EtcdFailure) {
            guard try await connection.nextLine(timeout: .seconds(1)) == nil else {
                return connection.close()
            }
        } catch {
            return connection.close()
        }
        let isKept = state.withLock { state in
            guard !state.isClosed, state.idle.count < EtcdClient.idleConnectionsMax else { return false }
            state.idle.append(connection)
            return true
        }
        if !isKept { connection.close() }
    }
}

extension TimeAmount {
    fileprivate static func / (amount: TimeAmount, parts: Int) -> TimeAmount {
        .nanoseconds(amount.nanoseconds / Int64(parts))
    }
}
