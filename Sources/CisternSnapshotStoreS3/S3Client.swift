// Requests to an S3 server: signed, sent, sent again while that can help. Blocks the calling thread: never on an event loop; the
// cooperative pool is not needed for an answer to come.
//
//   sign ─► send ─► answer ─► 5xx, 429, 408, no answer, an answer cut short ─► wait, longer each time ─► sign …
//                        └──► anything else: the caller's
//
// Threading: any thread.

internal import AsyncHTTPClient
package import CisternPrimitives
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import NIOSSL
internal import Synchronization

package struct S3Request: Sendable {
    package enum Method: String, Sendable {
        case get = "GET"
        case head = "HEAD"
        case put = "PUT"
        case post = "POST"
        case delete = "DELETE"
    }

    package var method: Method
    /// Of an object; nil: the bucket itself.
    package var key: String?
    package var query: [(name: String, value: String)] = []
    /// Names in lower case.
    package var headers: [(name: String, value: String)] = []
    package var body: [UInt8] = []
    package var answerBytesMax = S3Limits.answerBytesMax
    /// A server may answer 200 before it knows, and tell in the body that it failed.
    package var mayFailLate = false

    package init(_ method: Method, key: String? = nil) {
        self.method = method
        self.key = key
    }
}

package struct S3Answer: Sendable {
    package let status: Int
    /// Names in lower case.
    package let headers: [String: String]
    package let body: [UInt8]
    /// An earlier attempt may have been carried out: this is what the server says to a repetition.
    package let isOfRepetition: Bool
}

/// Why there is no answer.
package struct S3Failure: Error, Equatable, Sendable {
    package let reason: String
    package let isTransient: Bool
}

package final class S3Client: Sendable {
    private let options: S3Options
    private let credentials: S3CredentialSource
    private let time: any TimeSource
    private let http: HTTPClient
    private let isClosed = Atomic(false)

    /// - Throws: when the authorities cannot be used.
    package init(
        _ options: S3Options, credentials: S3CredentialSource, time: any TimeSource
    ) throws(S3Failure) {
        self.options = options
        self.credentials = credentials
        self.time = time
        var configuration = HTTPClient.Configuration()
        configuration.redirectConfiguration = .disallow
        configuration.httpVersion = .http1Only
        configuration.timeout = .init(
            connect: .milliseconds(options.limits.connectMilliseconds),
            read: .milliseconds(options.limits.idleMilliseconds),
            write: .milliseconds(options.limits.idleMilliseconds))
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = S3Limits.requestsMax
        // Attempts are counted here.
        configuration.connectionPool.retryConnectionEstablishment = false
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        if !options.authorities.isEmpty {
            do {
                tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(options.authorities))
            } catch {
                throw S3Failure(
                    reason: "cannot read certificates from \(options.authorities): \(error); give a PEM file with them",
                    isTransient: false)
            }
        }
        configuration.tlsConfiguration = tls
        http = HTTPClient(
            eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup.singleton), configuration: configuration)
    }

    deinit { close() }

    /// Ends calls under way with an error. Does not wait. Idempotent.
    package func close() {
        guard !isClosed.exchange(true, ordering: .acquiringAndReleasing) else { return }
        // Its only errors are of a client that is closed already.
        http.shutdown { _ in }
    }

    /// One answer for each request, in order. Those that fail go again together.
    /// - Precondition: at most `S3Limits.requestsMax` requests, each of which may be carried out twice.
    package func call(_ requests: [S3Request]) throws(S3Failure) -> [S3Answer] {
        precondition(requests.count <= S3Limits.requestsMax, "\(requests.count) requests at once")
        var answers = [S3Answer?](repeating: nil, count: requests.count)
        var mayBeDone = [Bool](repeating: false, count: requests.count)
        var random = SystemRandomNumberGenerator()
        var isRefused = false
        var attempt = 1
        while true {
            let signer = try signer(isRefused: isRefused)
            let open = answers.indices.filter { answers[$0] == nil }
            var askedMilliseconds: UInt64 = 0
            var last = S3Failure(reason: "nothing was sent", isTransient: true)
            var refused = false
            let sent = open.map { ($0, send(requests[$0], signer)) }
            for (index, pending) in sent {
                switch outcome(of: pending, requests[index], isOfRepetition: mayBeDone[index]) {
                case .answer(let answer):
                    if !isRefused, credentials.mayChange, S3Client.isCredentialRefusal(answer),
                        attempt < options.limits.attemptsMax
                    {
                        refused = true
                        last = S3Failure(reason: "the credentials are refused", isTransient: false)
                    } else {
                        answers[index] = answer
                    }
                case .again(let reason, let asked):
                    mayBeDone[index] = true
                    askedMilliseconds = max(askedMilliseconds, asked)
                    last = S3Failure(reason: reason, isTransient: true)
                case .never(let failure): throw failure
                }
            }
            let found = answers.compactMap(\.self)
            if found.count == answers.count { return found }
            attempt += 1
            guard attempt <= options.limits.attemptsMax else {
                throw S3Failure(
                    reason:
                        "\(last.reason); tried \(options.limits.attemptsMax) times: see that \(options.endpoint) can be "
                        + "reached and is well, then try again", isTransient: true)
            }
            // Others are there already or never.
            isRefused = isRefused || refused
            try pause(
                milliseconds: refused
                    ? 0
                    : options.limits.backoffMilliseconds(before: attempt - 1, asked: askedMilliseconds, using: &random))
        }
    }

    package func call(_ request: S3Request) throws(S3Failure) -> S3Answer { try call([request])[0] }

    // MARK: One attempt

    private enum Outcome {
        case answer(S3Answer)
        case again(String, askedMilliseconds: UInt64)
        case never(S3Failure)
    }

    private func signer(isRefused: Bool) throws(S3Failure) -> SignatureV4 {
        do throws(S3CredentialsError) {
            return SignatureV4(credentials: try credentials.current(isRefused: isRefused), region: options.region)
        } catch {
            throw S3Failure(reason: "\(error)", isTransient: true)
        }
    }

    private func send(_ request: S3Request, _ signer: SignatureV4) -> EventLoopFuture<HTTPClient.Response> {
        let (authority, path) = options.target(request.key)
        let query = S3Encoding.query(request.query)
        let headers = signer.sign(
            SignatureV4.Message(
                method: request.method.rawValue, path: path, query: query,
                headers: [("host", authority)] + request.headers, payloadHash: S3Encoding.hash(request.body)),
            at: S3Time(wallMilliseconds: time.wallMilliseconds))
        let hasBody = !request.body.isEmpty || request.method == .put
        // A server that answers in the middle of a body and then drops the connection trips async-http-client 1.37.0: it gives the
        // connection back to its pool when the body's end has been written, and traps where the pool has let go of it before. A
        // connection that is closed behind its request is not given back.
        let closing = hasBody ? [("connection", "close")] : []
        do {
            let sending = try HTTPClient.Request(
                url: "\(options.endpoint.isEncrypted ? "https" : "http")://\(authority)\(path)"
                    + (query.isEmpty ? "" : "?\(query)"), method: HTTPMethod(rawValue: request.method.rawValue),
                headers: HTTPHeaders(headers.map { ($0.name, $0.value) } + closing),
                body: hasBody ? .byteBuffer(ByteBuffer(bytes: request.body)) : nil)
            return http.execute(
                request: sending,
                delegate: ResponseAccumulator(request: sending, maxBodySize: request.answerBytesMax),
                deadline: .now() + .milliseconds(options.limits.attemptMilliseconds)
            ).futureResult
        } catch {
            return MultiThreadedEventLoopGroup.singleton.any().makeFailedFuture(error)
        }
    }

    private func outcome(
        of pending: EventLoopFuture<HTTPClient.Response>, _ request: S3Request, isOfRepetition: Bool
    ) -> Outcome {
        let response: HTTPClient.Response
        do { response = try pending.wait() } catch {
            if isClosed.load(ordering: .acquiring) { return .never(S3Client.closed) }
            if error is ResponseAccumulator.ResponseTooBigError {
                return .never(
                    S3Failure(
                        reason:
                            "the answer has more than \(request.answerBytesMax) bytes; see that \(options.endpoint) is an "
                            + "S3 server which knows ranges", isTransient: false))
            }
            if S3Client.isDistrust(error) {
                return .never(
                    S3Failure(
                        reason:
                            "the certificate of \(options.endpoint) is not trusted: set s3_authorities to a file with who "
                            + "has signed it (\(error))", isTransient: false))
            }
            return .again("no answer: \(error)", askedMilliseconds: 0)
        }
        var headers: [String: String] = [:]
        for header in response.headers { headers[header.name.lowercased()] = header.value }
        let body = response.body.map { Array($0.readableBytesView) } ?? []
        let answer = S3Answer(
            status: Int(response.status.code), headers: headers, body: body, isOfRepetition: isOfRepetition)
        if request.method != .head, let length = headers["content-length"].flatMap({ Int($0) }), length != body.count {
            return .again("an answer of \(length) bytes was cut short after \(body.count)", askedMilliseconds: 0)
        }
        guard let reason = S3Client.transientReason(answer, mayFailLate: request.mayFailLate) else {
            return .answer(answer)
        }
        let seconds = headers["retry-after"].flatMap { UInt64($0) } ?? 0
        return .again(reason, askedMilliseconds: min(seconds, 3600) * 1000)
    }

    private static func isDistrust(_ error: any Error) -> Bool {
        if error is NIOSSLExtraError { return true }
        guard case .handshakeFailed = error as? NIOSSLError else { return false }
        return "\(error)".contains("CERTIFICATE_VERIFY_FAILED")
    }

    /// What a server says when the same may well succeed later.
    private static func transientReason(_ answer: S3Answer, mayFailLate: Bool) -> String? {
        let document = answer.status >= 400 || mayFailLate ? S3ErrorDocument(answer.body) : nil
        let isTransient =
            switch answer.status {
            case 200: document.map { transientCodes.contains($0.code) } == true
            case 501: false
            case 408, 429, 500...: true
            default: document.map { transientCodes.contains($0.code) } == true
            }
        guard isTransient else { return nil }
        return "the server answers \(answer.status)" + (document.map { " \($0.code): \($0.message)" } ?? "")
    }

    /// Whatever status they come with.
    private static let transientCodes: Set<String> = [
        "InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "ConditionalRequestConflict",
        "OperationAborted", "Busy", "TooManyRequests",
    ]

    /// Keys that have come to their end, or that a file has newer ones of.
    private static func isCredentialRefusal(_ answer: S3Answer) -> Bool {
        guard answer.status == 400 || answer.status == 403 else { return false }
        // An answer to HEAD has no document.
        guard let code = S3ErrorDocument(answer.body)?.code else { return answer.status == 403 }
        return ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"].contains(code)
    }

    private static let closed = S3Failure(reason: "the store is being closed", isTransient: true)

    /// The longest time that a close is not seen.
    private static let pauseSliceMilliseconds: UInt64 = 50

    private func pause(milliseconds: UInt64) throws(S3Failure) {
        var left = milliseconds
        while left > 0 {
            if isClosed.load(ordering: .acquiring) { throw S3Client.closed }
            let slice = min(left, S3Client.pauseSliceMilliseconds)
            let waited = MultiThreadedEventLoopGroup.singleton.any().scheduleTask(in: .milliseconds(Int64(slice))) {}
            do { try waited.futureResult.wait() } catch { throw S3Client.closed }
            left -= slice
        }
    }
}
