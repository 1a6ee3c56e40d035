// Settings and bounds of connections, by name.

package import CisternPrimitives
internal import CisternWire
package import NIOCore

/// Dead-peer detection: after an interval without a byte a PING goes out, after `missedMax` more the connection is closed.
package struct KeepAliveOptions: Sendable {
    package var interval: TimeAmount = .seconds(10)
    package var missedMax = 2

    package init() {}
}

package struct ServerTransportOptions: Sendable {
    /// Name and version, for people.
    package var server = "cistern"
    /// Identity of the data directory.
    package var serverID = ""
    package var time: any TimeSource = SystemTime()
    /// Largest frame taken from a client.
    package var frameBytesMax = WireLimits.frameBytesMaxDefault
    /// Credits of each connection.
    package var requestsMax = WireLimits.requestsMaxDefault
    package var bytesMax = WireLimits.bytesMaxDefault
    package var connectionsMax = 1024
    /// A connection that did not say HELLO by then is closed.
    package var handshakeTimeout: TimeAmount = .seconds(10)
    package var keepAlive = KeepAliveOptions()
    /// A client that takes no replies for so long is closed.
    package var stalledReaderTimeout: TimeAmount = .seconds(60)
    /// Replies not yet taken by the client: above `high` its requests are not read, until below `low`.
    package var unsentBytesHigh = 1 << 20
    package var unsentBytesLow = 256 << 10
    /// How long a connection that was told of an error may take to read it.
    package var lingerTimeout: TimeAmount = .seconds(2)

    /// Of TCP sockets; nil: nothing is encrypted. Unix sockets never are.
    package var tls: ServerTLS?
    /// Who may come in; nil: everybody.
    package var access: (any AccessControl)?

    package init() {}

    /// Replies are gathered up to this size before they are handed to the socket within one read.
    static let gatheredBytesMax = 256 << 10
    static let acceptBacklog: Int32 = 256

    func validate() {
        invariant(
            frameBytesMax >= WireLimits.helloFrameBytesMax && frameBytesMax <= WireLimits.frameBytesMaxHard,
            "frameBytesMax of \(frameBytesMax) is outside \(WireLimits.helloFrameBytesMax)...\(WireLimits.frameBytesMaxHard)"
        )
        invariant(bytesMax >= frameBytesMax, "bytesMax of \(bytesMax) does not allow one frame of \(frameBytesMax)")
        invariant(requestsMax > 0 && connectionsMax > 0, "requestsMax and connectionsMax must be above 0")
        invariant(unsentBytesLow < unsentBytesHigh, "unsentBytesLow must be below unsentBytesHigh")
    }
}

package struct ClientTransportOptions: Sendable {
    /// Name and version, for people.
    package var client = "cistern-client"
    /// Largest frame taken from the server.
    package var frameBytesMax = WireLimits.frameBytesMaxDefault
    package var connectTimeout: TimeAmount = .seconds(5)
    package var handshakeTimeout: TimeAmount = .seconds(5)
    package var keepAlive = KeepAliveOptions()
    /// Requests that may wait for credit before more are refused.
    package var waitingRequestsMax = 65_536
    /// nil: nothing is encrypted. Unix sockets never are.
    package var tls: ClientTLS?
    /// Shown in HELLO; empty: none.
    package var token = ""

    package init() {}
}
