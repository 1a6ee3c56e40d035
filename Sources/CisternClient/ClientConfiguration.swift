// Settings of a client, checked together before anything is connected.

/// Bounds the client enforces before it sends; the server has the same or wider ones.
public enum ClientLimits {
    /// Bytes of a whole store key: key group, state, key, namespace and user key.
    public static let keyBytesMax = 32 * 1024 - 1
    /// Bytes of one serialized value or list addition: it must fit a batch of 8 MiB with what compression may add.
    public static let valueBytesMax = 7 * 1024 * 1024
    /// Bytes of keys and values in the write buffer, so that a batch stays below the server's 8 MiB.
    public static let writeBufferBytesMax = 4 * 1024 * 1024
    /// Entries of one batch.
    public static let writeBufferEntriesMax = 65_536
    /// Of the key index: far more keys than one worker has.
    public static let keyIndexBytesMax = 1 << 40
}

/// How a client connects and how much memory and time it may take.
public struct ClientConfiguration: Sendable {
    /// What the client knows of the keys that exist.
    public enum KeyIndex: String, Sendable {
        /// Nothing: an absent key costs a request, once, and is then remembered by the value cache.
        case off
        /// Every key: reading an absent key costs no request.
        case keys
        /// As `keys`, but the server is asked all the same and disagreements are counted. For gaining trust; not for speed.
        case verify
    }

    /// `HOST:PORT` or `unix:/path`. Several, with commas between them, where trees are replicated (`durability = replicated`): the
    /// first that answers is used, and when it is lost or stops the next one, which takes the trees over. Of servers with trees of their own
    /// only one may be named: another one has not got the tree, and says that acknowledged writes are lost.
    public var endpoint: String
    /// Bytes of keys and values at which the write buffer is sent; 64 KiB … 4 MiB.
    public var writeBufferBytes = 1024 * 1024
    /// Distinct keys at which the write buffer is sent; 1 … 65,536.
    public var writeBufferEntries = 8192
    /// Age of the oldest write at which the buffer is sent. It is looked at by writes and watermarks: a worker that does
    /// nothing sends nothing until its next write or checkpoint.
    public var writeBufferAgeMilliseconds = 100
    /// Batches that may wait for their acknowledgement; the writer waits when there would be more; 1 … 64.
    public var batchesInFlight = 4
    /// Memory for values read or written before; 0 switches the cache off.
    public var valueCacheBytes = 64 * 1024 * 1024
    public var keyIndex = KeyIndex.keys
    /// Memory for the key index: 10 to 11.3 bytes a key, 14.4 to 16.3 for keys that expire. When the keys need more, the index is dropped, reads of absent keys cost a request again,
    /// and `ClientMetrics.keyIndexDropped` says so.
    public var keyIndexBytesMax = 256 * 1024 * 1024
    /// False: `attach` returns when every key is known. True: it returns at once and the index loads meanwhile.
    public var keyIndexLoadsInBackground = false
    /// A request without an answer for this long is taken as a lost connection.
    public var requestTimeoutMilliseconds = 30_000
    /// For how long a call tries again (reconnecting, busy server) before it throws.
    public var retryForMilliseconds = 60_000
    /// First and longest pause between attempts; the pause doubles, with jitter.
    public var reconnectPauseMilliseconds = 20
    public var reconnectPauseMaxMilliseconds = 1000
    /// Name of this program in the server's log.
    public var clientName = "cistern-client"
    /// How connections are encrypted; nil: not at all. Unix sockets never are.
    public var tls: TLS?
    /// Shows the server who the client is; empty: none. Sent over TLS, Unix sockets and to this machine only, unless
    /// `allowsTokenWithoutTLS` is set.
    public var token = ""
    /// Sends the token where everybody on the way can read it. For trusted networks.
    public var allowsTokenWithoutTLS = false

    /// Files of PEM, read when a client connects first.
    public struct TLS: Sendable, Hashable {
        /// Who may sign the server's certificate; nil: the system's authorities.
        public var trustedCertificatesFile: String?
        /// The client's own certificate and its key, for servers that ask for one; both or none.
        public var certificateFile: String?
        public var privateKeyFile: String?
        /// The name that the server's certificate must have; nil: the host of `endpoint`.
        public var serverName: String?

        public init(
            trustedCertificatesFile: String? = nil, certificateFile: String? = nil, privateKeyFile: String? = nil,
            serverName: String? = nil
        ) {
            self.trustedCertificatesFile = trustedCertificatesFile
            self.certificateFile = certificateFile
            self.privateKeyFile = privateKeyFile
            self.serverName = serverName
        }
    }

    public init(endpoint: String) { self.endpoint = endpoint }

    /// Checks every setting and their combinations.
    /// - Throws: `.limitExceeded` naming the setting, its value and the bounds.
    public func validate() throws(ClientError) {
        if let tls, (tls.certificateFile == nil) != (tls.privateKeyFile == nil) {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "client setting tls has a certificate without its private key, or the other way "
                    + "round: give both files or none")
        }
        try Self.check("writeBufferBytes", writeBufferBytes, 1...ClientLimits.writeBufferBytesMax)
        try Self.check("writeBufferEntries", writeBufferEntries, 1...ClientLimits.writeBufferEntriesMax)
        try Self.check("writeBufferAgeMilliseconds", writeBufferAgeMilliseconds, 1...3_600_000)
        try Self.check("batchesInFlight", batchesInFlight, 1...64)
        try Self.check("valueCacheBytes", valueCacheBytes, 0...Int.max)
        try Self.check("keyIndexBytesMax", keyIndexBytesMax, 0...ClientLimits.keyIndexBytesMax)
        try Self.check("requestTimeoutMilliseconds", requestTimeoutMilliseconds, 1...3_600_000)
        try Self.check("retryForMilliseconds", retryForMilliseconds, 0...86_400_000)
        try Self.check("reconnectPauseMilliseconds", reconnectPauseMilliseconds, 1...reconnectPauseMaxMilliseconds)
        try Self.check("reconnectPauseMaxMilliseconds", reconnectPauseMaxMilliseconds, 1...600_000)
    }

    private static func check(_ name: String, _ value: Int, _ bounds: ClosedRange<Int>) throws(ClientError) {
        guard bounds.contains(value) else {
            throw ClientError(
                .limitExceeded, .fixTheCall,
                "client setting \(name) is \(value); it must be within \(bounds.lowerBound)...\(bounds.upperBound)")
        }
    }
}
