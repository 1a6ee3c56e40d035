// An S3 server in the tests' process, on a free port of the loopback interface: one bucket in memory, every signature checked against the
// bytes that came, and faults on demand. Strict where real servers are: tags of parts, conditions, names of buckets.
//
// Threading: requests on one event loop; the rest from any thread.

import CisternPrimitives
import CisternSnapshotStoreS3
import CisternTransport
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

package final class S3Double: Sendable {
    package static let credentials = S3Credentials(accessKeyID: "AKIDOUBLE", secretAccessKey: "secret of the double")
    package static let bucket = "cistern-test"
    package static let region = "eu-test-1"

    /// Of one request, instead of or after carrying it out.
    package enum Fault: Sendable {
        /// An answer of this status and code; nothing is carried out.
        case refuse(Int, String)
        /// The connection ends; nothing is carried out.
        case drop
        /// No answer, and the connection stays; nothing is carried out.
        case silence
        /// The connection ends when so many bytes of the body have come.
        case cutRequest(afterBytes: Int)
        /// Carried out; the connection ends without an answer.
        case dropAnswer
        /// Carried out; the answer ends after so many bytes of its body.
        case cutAnswer(afterBytes: Int)
        /// Carried out; answered with a refusal.
        case refuseAfterwards(Int, String)
        /// An answer with these bytes.
        case answer([UInt8])
    }

    /// Which requests a fault is for, and how many of them.
    package struct FaultRule: Sendable {
        var fault: Fault
        var count: Int
        var skipping: Int
        var matches: @Sendable (S3DoubleRequest) -> Bool
    }

    struct State: Sendable {
        var bucket = S3Bucket()
        var log: [String] = []
        var credentials: [S3Credentials] = [S3Double.credentials]
        var region = S3Double.region
        var knowsConditions = true
        var knowsRanges = true
    }

    private struct Faults: Sendable {
        var rules: [FaultRule] = []
        var storm: (random: S3Storm, rate: Int)?
    }

    let state = Mutex(State())
    /// Apart, because rules look at the state and change it.
    private let faults = Mutex(Faults())
    private let listening: any Channel

    private let scheme: String

    /// Serves when it returns. Blocks.
    /// - Parameter tls: nil: nothing is encrypted.
    package init(tls: ServerTLS? = nil) throws {
        scheme = tls == nil ? "http" : "https"
        let box = NIOLockedBox()
        listening = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 64)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls { try pipeline.addHandler(tls.makeHandler()) }
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(S3DoubleHandler(box))
                }
            }
            .bind(host: "127.0.0.1", port: 0).wait()
        box.set(self)
    }

    deinit { listening.close(promise: nil) }

    package var endpoint: String { "\(scheme)://127.0.0.1:\(listening.localAddress?.port ?? 0)" }

    /// Options for a store in it, with short waits.
    package func options(prefix: String = "") -> S3Options {
        guard let location = S3Location("s3://\(S3Double.bucket)" + (prefix.isEmpty ? "" : "/\(prefix)")),
            let endpoint = S3Endpoint(endpoint)
        else { preconditionFailure("not a prefix: \(prefix)") }
        var options = S3Options(location: location, endpoint: endpoint, region: S3Double.region, isHostStyle: false)
        options.limits.backoffFirstMilliseconds = 1
        options.limits.backoffLastMilliseconds = 4
        return options
    }

    package func store(prefix: String = "", _ change: (inout S3Options) -> Void = { _ in }) throws -> S3SnapshotStore {
        var options = options(prefix: prefix)
        change(&options)
        return try S3SnapshotStore(
            options, credentials: S3CredentialSource(S3Double.credentials), time: SystemTime())
    }

    // MARK: What is in it

    package var keys: [String] { state.withLock { $0.bucket.objects.keys.sorted() } }
    package var uploadCount: Int { state.withLock { $0.bucket.uploads.count } }
    package func bytes(_ key: String) -> [UInt8]? { state.withLock { $0.bucket.objects[key]?.bytes } }
    package func setBytes(_ key: String, _ bytes: [UInt8]?) {
        state.withLock { $0.bucket.objects[key] = bytes.map { S3Object(bytes: $0, mark: nil) } }
    }
    /// Begins an upload that nobody will end.
    package func plantUpload(_ key: String) { state.withLock { _ = $0.bucket.begin(key, mark: nil) } }

    /// Method, path and query of each request that was answered or not, in order.
    package var log: [String] { state.withLock { $0.log } }
    package func clearLog() { state.withLock { $0.log = [] } }

    // MARK: What is wrong with it

    package func inject(
        _ fault: Fault, count: Int = 1, skipping: Int = 0,
        _ matches: @escaping @Sendable (S3DoubleRequest) -> Bool = { _ in true }
    ) {
        faults.withLock {
            $0.rules.append(FaultRule(fault: fault, count: count, skipping: skipping, matches: matches))
        }
    }

    /// One request of `rate` meets a random fault, from now on.
    package func storm(seed: UInt64, oneOf rate: Int) { faults.withLock { $0.storm = (S3Storm(seed: seed), rate) } }

    package func calm() {
        faults.withLock {
            $0.storm = nil
            $0.rules = []
        }
    }

    package func accept(_ credentials: [S3Credentials]) { state.withLock { $0.credentials = credentials } }
    package func setRegion(_ region: String) { state.withLock { $0.region = region } }
    package func forgetConditions() { state.withLock { $0.knowsConditions = false } }
    package func forgetRanges() { state.withLock { $0.knowsRanges = false } }

    func fault(for request: S3DoubleRequest) -> Fault? {
        state.withLock {
            $0.log.append("\(request.method) \(request.path)\(request.query.isEmpty ? "" : "?\(request.query)")")
        }
        return faults.withLock { faults in
            for index in faults.rules.indices where faults.rules[index].matches(request) {
                if faults.rules[index].skipping > 0 {
                    faults.rules[index].skipping -= 1
                    continue
                }
                let fault = faults.rules[index].fault
                faults.rules[index].count -= 1
                if faults.rules[index].count == 0 { faults.rules.remove(at: index) }
                return fault
            }
            guard var storm = faults.storm else { return nil }
            let fault = storm.random.next(oneOf: storm.rate)
            faults.storm = storm
            return fault
        }
    }
}

/// The handlers are made before the double is whole.
final class NIOLockedBox: Sendable {
    private struct Weak: Sendable { weak var double: S3Double? }
    private let double = Mutex(Weak())

    func set(_ value: S3Double) { double.withLock { $0.double = value } }
    func get() -> S3Double? { double.withLock { $0.double } }
}

/// Random faults, by a seed.
struct S3Storm: Sendable {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    private mutating func random() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func next(oneOf rate: Int) -> S3Double.Fault? {
        guard random() % UInt64(rate) == 0 else { return nil }
        switch random() % 8 {
        case 0: return .refuse(503, "SlowDown")
        case 1: return .refuse(500, "InternalError")
        case 2: return .refuse(429, "TooManyRequests")
        case 3: return .drop
        case 4: return .cutRequest(afterBytes: Int(random() % 3000))
        case 5: return .dropAnswer
        case 6: return .cutAnswer(afterBytes: Int(random() % 500))
        default: return .refuseAfterwards(500, "InternalError")
        }
    }
}
