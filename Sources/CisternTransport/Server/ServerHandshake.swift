// The server's answer to HELLO. Pure.

internal import CisternPrimitives
internal import CisternWire
internal import CisternWireMessages

struct ServerHandshake {
    struct Agreement {
        let reply: Cistern_V1_HelloReply
        let checksums: Bool
        /// Largest frame the client takes.
        let clientFrameBytesMax: Int
        let grant: AccessGrant
    }

    let options: ServerTransportOptions

    /// What a client takes that says nothing.
    private static let clientFrameBytesMaxDefault = WireLimits.frameBytesMaxDefault

    func answer(_ hello: Cistern_V1_Hello) throws(HandshakeRefusal) -> Agreement {
        guard let version = WireVersion.negotiate(peerMin: hello.versionMin, peerMax: hello.versionMax) else {
            throw HandshakeRefusal(
                error: ErrorBody(
                    .unsupportedVersion,
                    "client \(hello.client) speaks versions \(hello.versionMin) to \(hello.versionMax), this server "
                        + "\(WireVersion.min) to \(WireVersion.max)"))
        }
        let grant = try grant(hello)
        let features = WireFeatures(rawValue: hello.features).intersection(.supported)
        var reply = Cistern_V1_HelloReply()
        reply.version = version
        reply.features = features.rawValue
        reply.server = options.server
        reply.serverID = options.serverID
        reply.frameBytesMax = UInt32(options.frameBytesMax)
        reply.requestsMax = UInt32(options.requestsMax)
        reply.bytesMax = UInt64(options.bytesMax)
        reply.wallMilliseconds = options.time.wallMilliseconds
        let clientMax = hello.frameBytesMax == 0 ? Self.clientFrameBytesMaxDefault : Int(hello.frameBytesMax)
        return Agreement(
            reply: reply, checksums: features.contains(.checksums),
            // Even a client that takes less must be able to read an error.
            clientFrameBytesMax: min(max(clientMax, WireLimits.helloFrameBytesMax), WireLimits.frameBytesMaxHard),
            grant: grant)
    }

    private func grant(_ hello: Cistern_V1_Hello) throws(HandshakeRefusal) -> AccessGrant {
        guard let access = options.access else { return .everything }
        if let grant = access.grant(token: hello.token) { return grant }
        let found = hello.token.isEmpty ? "showed no token" : "showed a token that this server does not know"
        throw HandshakeRefusal(error: ErrorBody(.unauthenticated, "client \(hello.client) \(found)"))
    }
}

struct HandshakeRefusal: Error {
    let error: ErrorBody
}
