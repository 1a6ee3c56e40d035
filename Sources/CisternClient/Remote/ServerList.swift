// The servers that a client may speak to. Which of them has a tree is known to whoever is asked: with replicated trees any of them
// takes over what its last server does not answer for.

package import CisternTransport
internal import CisternWire
internal import NIOCore
internal import Synchronization

package struct ServerList: Sendable {
    /// In the order they are tried; one at least.
    package let endpoints: [Endpoint]
    package let options: ClientTransportOptions

    package init(_ endpoints: [Endpoint], _ options: ClientTransportOptions) {
        precondition(!endpoints.isEmpty, "a client has a server")
        self.endpoints = endpoints
        self.options = options
    }

    /// Reads the files of TLS.
    init(_ configuration: ClientConfiguration) throws(ClientError) {
        let texts = configuration.endpoint.split(separator: ",", omittingEmptySubsequences: false)
        var endpoints: [Endpoint] = []
        for text in texts {
            guard let endpoint = Endpoint(String(text)) else {
                throw ClientError(
                    .invalidArgument, .fixTheCall,
                    "\(text) is no endpoint; write HOST:PORT, [IPV6]:PORT or unix:/path, and a comma between several")
            }
            endpoints.append(endpoint)
        }
        var options = ClientTransportOptions()
        for endpoint in endpoints { options = try configuration.transportOptions(for: endpoint) }
        self.init(endpoints, options)
    }
}

/// Where one connection of a client is, and where it is tried next.
final class ServerChoice: Sendable {
    let servers: ServerList
    private let index = Atomic(0)

    init(_ servers: ServerList) { self.servers = servers }

    /// The server that is tried next, or was connected to last.
    var endpoint: Endpoint { servers.endpoints[index.load(ordering: .relaxed)] }

    /// Connects to the first that answers, beginning with the one before, and asks `body` of it.
    /// - Parameter body: what is asked as the first thing; the next server is asked when this one is lost over it, or stops.
    /// - Throws: what the last one has said.
    func connect<Answer: Sendable>(
        group: any EventLoopGroup,
        body: (ClientConnection, Endpoint) async throws(TransportError) -> Answer
    ) async throws(TransportError) -> (ClientConnection, Answer) {
        var attempts = 0
        while true {
            attempts += 1
            let tried = index.load(ordering: .relaxed)
            let endpoint = servers.endpoints[tried]
            do throws(TransportError) {
                let connection = try await ClientConnection.connect(endpoint, group: group, options: servers.options)
                do throws(TransportError) {
                    return (connection, try await body(connection, endpoint))
                } catch {
                    await connection.close()
                    throw error
                }
            } catch {
                guard error.isOfTheServer else { throw error }
                // Unless somebody else has moved on already.
                _ = index.compareExchange(
                    expected: tried, desired: (tried + 1) % servers.endpoints.count, ordering: .relaxed)
                guard attempts < servers.endpoints.count else { throw error }
            }
        }
    }
}

extension TransportError {
    /// Whether another server may do what this one did not.
    fileprivate var isOfTheServer: Bool {
        switch self {
        case .connectFailed, .handshakeFailed, .closed, .deadlineExceeded, .goingAway: true
        case .remote(let body): body.errorCode == .draining
        case .bindFailed, .overloaded, .requestTooLarge, .protocolViolation: false
        }
    }
}
