// One connection to the double: requests in, their signatures checked, answers or faults out.

import CisternPrimitives
import CisternSnapshotStoreS3
import NIOCore
import NIOHTTP1
import Synchronization

extension S3Double {
    /// How old a signature may be.
    private static let ageSecondsMax: UInt64 = 900

    func answer(_ request: S3DoubleRequest) -> S3DoubleAnswer {
        state.withLock { state in
            if let refusal = S3Double.check(request, state) { return refusal }
            return state.bucket.answer(request, knowsConditions: state.knowsConditions, knowsRanges: state.knowsRanges)
        }
    }

    /// Signs what came as its sender should have.
    private static func check(_ request: S3DoubleRequest, _ state: State) -> S3DoubleAnswer? {
        guard request.bucket == S3Double.bucket else { return .refusal(404, "NoSuchBucket") }
        let authorization = request.headers["authorization"] ?? ""
        let fields = authorization.split { $0 == " " || $0 == "," }
        guard fields.count == 4, fields[0] == "AWS4-HMAC-SHA256",
            let scope = fields[1].split(separator: "=").last?.split(separator: "/"), scope.count == 5,
            let names = fields[2].split(separator: "=").last?.split(separator: ";").map(String.init)
        else { return .refusal(400, "AuthorizationHeaderMalformed") }
        guard scope[2] == state.region else {
            return .refusal(400, "AuthorizationHeaderMalformed", "<Region>\(state.region)</Region>")
        }
        guard let credentials = state.credentials.first(where: { $0.accessKeyID == scope[0] }) else {
            return .refusal(403, "InvalidAccessKeyId")
        }
        let now = SystemTime().wallMilliseconds
        let moments = (0...ageSecondsMax).lazy.map { S3Time(wallMilliseconds: now - $0 * 1000) }
        guard let time = moments.first(where: { $0.basic == request.headers["x-amz-date"] }) else {
            return .refusal(403, "RequestTimeTooSkewed")
        }
        let hash = S3Encoding.hash(request.body)
        guard request.headers["x-amz-content-sha256"] == hash else { return .refusal(400, "XAmzContentSHA256Mismatch") }
        // Everything that changes what a request means must be signed.
        let meaningful = request.headers.keys.filter {
            $0 == "host" || $0 == "range" || $0.hasPrefix("if-") || $0.hasPrefix("x-amz-")
        }
        guard Set(meaningful).isSubset(of: names) else { return .refusal(403, "AccessDenied") }
        let added: Set<String> = ["x-amz-date", "x-amz-content-sha256", "x-amz-security-token"]
        let message = SignatureV4.Message(
            method: request.method, path: request.path, query: request.query,
            headers: names.filter { !added.contains($0) }.map { ($0, request.headers[$0] ?? "") }, payloadHash: hash)
        let expected = SignatureV4(credentials: credentials, region: state.region).sign(message, at: time)
        guard expected.contains(where: { $0 == ("authorization", authorization) }) else {
            return .refusal(403, "SignatureDoesNotMatch")
        }
        return nil
    }
}

/// Owned by its event loop.
final class S3DoubleHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let box: NIOLockedBox
    private var request: S3DoubleRequest?
    private var fault: S3Double.Fault?

    init(_ box: NIOLockedBox) { self.box = box }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let double = box.get() else { return context.close(promise: nil) }
        switch unwrapInboundIn(data) {
        case .head(let head):
            let parts = head.uri.split(separator: "?", maxSplits: 1).map(String.init)
            var headers: [String: String] = [:]
            for header in head.headers { headers[header.name.lowercased()] = header.value }
            let request = S3DoubleRequest(
                method: head.method.rawValue, path: parts[0], query: parts.count == 2 ? parts[1] : "", headers: headers)
            self.request = request
            fault = double.fault(for: request)
        case .body(var part):
            request?.body += part.readBytes(length: part.readableBytes) ?? []
            if case .cutRequest(let bytes) = fault, request?.body.count ?? 0 >= bytes { context.close(promise: nil) }
        case .end:
            guard let request else { return }
            self.request = nil
            respond(context, double, request)
        }
    }

    private func respond(_ context: ChannelHandlerContext, _ double: S3Double, _ request: S3DoubleRequest) {
        switch fault {
        case nil: write(context, double.answer(request))
        case .refuse(let status, let code): write(context, .refusal(status, code))
        case .answer(let bytes): write(context, S3DoubleAnswer(status: 200, body: bytes))
        case .silence: return
        case .drop, .cutRequest: context.close(promise: nil)
        case .dropAnswer:
            _ = double.answer(request)
            context.close(promise: nil)
        case .refuseAfterwards(let status, let code):
            _ = double.answer(request)
            write(context, .refusal(status, code))
        case .cutAnswer(let bytes):
            var answer = double.answer(request)
            answer.announcedLength = answer.announcedLength ?? answer.body.count
            let isCut = answer.body.count > bytes
            answer.body = Array(answer.body.prefix(bytes))
            write(context, answer, isCut: isCut)
        }
    }

    private func write(_ context: ChannelHandlerContext, _ answer: S3DoubleAnswer, isCut: Bool = false) {
        var headers = HTTPHeaders(answer.headers)
        if answer.status != 204 {
            headers.add(name: "Content-Length", value: "\(answer.announcedLength ?? answer.body.count)")
        }
        let status = HTTPResponseStatus(statusCode: answer.status)
        context.write(
            wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: answer.body)))), promise: nil)
        if isCut {
            context.flush()
            context.close(promise: nil)
        } else {
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
