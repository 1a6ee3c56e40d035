// Every limit of the protocol, by name. proto-spec/wire.md repeats the table; a test compares the two.

package enum WireLimits {
    /// Longest key of a store, with its key group, state, key and namespace.
    package static let keyBytesMax = 32 << 10
    /// Longest value of one entry.
    package static let valueBytesMax = 16 << 20
    /// Keys and values of one batch together, unless the batch is a single entry.
    package static let batchBytesMax = 8 << 20
    package static let batchEntriesMax = 65_536
    /// Keys of one multi-get.
    package static let multiGetKeysMax = 65_536

    /// Largest frame a server takes unless it is configured otherwise: one largest entry fits with room for its header.
    package static let frameBytesMaxDefault = valueBytesMax + (64 << 10)
    /// Largest frame any configuration may allow.
    package static let frameBytesMaxHard = 64 << 20
    /// Largest first frame: nothing is known about the peer yet.
    package static let helloFrameBytesMax = 64 << 10
    /// Largest body of a control message.
    package static let controlBodyBytesMax = 4 << 20
    /// Largest body of a PING.
    package static let pingBodyBytesMax = 64

    /// Requests and body bytes that may be outstanding on one connection unless configured otherwise.
    package static let requestsMaxDefault = 1024
    package static let bytesMaxDefault = 64 << 20

    /// Unit of the byte credit in a reply's header.
    package static let creditUnitBytes = 1024
}

/// Versions of the protocol this program speaks.
package enum WireVersion {
    package static let min: UInt32 = 1
    package static let max: UInt32 = 1

    /// The newest version both sides speak, nil when there is none.
    package static func negotiate(peerMin: UInt32, peerMax: UInt32) -> UInt32? {
        let low = Swift.max(min, peerMin)
        let high = Swift.min(max, peerMax)
        return low <= high ? high : nil
    }
}

/// Feature bits of Hello. On the wire: never renumber.
package struct WireFeatures: OptionSet, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Every frame carries a checksum. HELLO frames carry one in any case.
    package static let checksums = WireFeatures(rawValue: 1 << 0)
    package static let supported: WireFeatures = [.checksums]
}
