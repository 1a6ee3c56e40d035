// The other side of a connection, byte by byte: blocking sockets on a thread of their own, so that tests can send what no
// client of ours would.

import CisternPrimitives
import CisternTransport
import CisternWire
import CisternWireMessages
import Foundation
import Glibc
import NIOCore
import NIOPosix

enum TestGroup {
    static let shared = MultiThreadedEventLoopGroup(numberOfThreads: 2)
}

/// Runs blocking code outside of the cooperative pool.
func blocking<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread {
            continuation.resume(with: Result { try body() })
        }
    }
}

struct RawFrame: Equatable, Sendable {
    var header: FrameHeader
    var body: [UInt8]

    var error: ErrorBody? {
        guard header.isError else { return nil }
        return body.withUnsafeBytes { try? ControlMessage.decode(ErrorBody.self, from: $0) }
    }
}

struct RawPeerError: Error {
    let text: String
    init(_ text: String) { self.text = text }
}

/// A `sockaddr_in` of 127.0.0.1, byte by byte: NIO's C modules declare the struct as well, and then its members belong to
/// whichever module was loaded first.
private func loopback(port: Int) -> [UInt8] {
    [UInt8(AF_INET), 0, UInt8(port >> 8), UInt8(port & 255), 127, 0, 0, 1] + [UInt8](repeating: 0, count: 8)
}

/// A blocking socket that speaks frames. Reads give up after a while, so that a failing test ends.
final class RawPeer: @unchecked Sendable {
    // Used by one thread at a time: the test's.
    let descriptor: Int32
    private var input: [UInt8] = []
    static let patienceSeconds = 20

    init(descriptor: Int32) {
        self.descriptor = descriptor
        var patience = timeval(tv_sec: RawPeer.patienceSeconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(descriptor) }

    convenience init(port: Int, receiveBufferBytes: Int32? = nil) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var size = receiveBufferBytes {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        let result = loopback(port: port).withUnsafeBytes { bytes in
            connect(descriptor, bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
        }
        guard result == 0 else { throw RawPeerError("connect: errno \(errno)") }
        self.init(descriptor: descriptor)
    }

    func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress!, $0.count, 0x4000) }
            guard count > 0 else { throw RawPeerError("send: errno \(errno)") }
            sent += count
        }
    }

    func sendFrame(_ opcode: Opcode, id: UInt64, tree: UInt32 = 0, body: [UInt8] = []) throws {
        try send(FrameHeader.request(opcode, id: id, tree: tree, bodySize: body.count).frame(body: body))
    }

    /// False at the end of the stream.
    private func fill() throws -> Bool {
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        let count = chunk.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress!, $0.count, 0) }
        if count == 0 { return false }
        guard count > 0 else { throw RawPeerError("recv: errno \(errno)") }
        input += chunk[..<count]
        return true
    }

    /// The next frame, nil at the end of the stream.
    func readFrame() throws -> RawFrame? {
        while true {
            if input.count >= 4 {
                let length = input[..<4].enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) } + 4
                if input.count >= length {
                    let bytes = Array(input[..<length])
                    input.removeFirst(length)
                    return try RawPeer.parse(bytes)
                }
            }
            guard try fill() else {
                guard input.isEmpty else { throw RawPeerError("cut after \(input.count) bytes of a frame") }
                return nil
            }
        }
    }

    private static func parse(_ bytes: [UInt8]) throws -> RawFrame {
        var parser = FrameParser(frameBytesMax: 64 << 20, checksumRequired: false)
        return try bytes.withUnsafeBytes { input in
            var offset = 0
            guard let frame = try parser.next(in: input, from: &offset) else { throw RawPeerError("no frame") }
            return RawFrame(header: frame.header, body: [UInt8](frame.body))
        }
    }

    /// Everything up to the end of the stream.
    func readToEnd() throws -> [RawFrame] {
        var frames: [RawFrame] = []
        while let frame = try readFrame() { frames.append(frame) }
        return frames
    }

    static func hello(_ configure: (inout Cistern_V1_Hello) -> Void = { _ in }) -> [UInt8] {
        var hello = Cistern_V1_Hello()
        hello.versionMin = 1
        hello.versionMax = 1
        hello.features = 1
        hello.client = "raw"
        configure(&hello)
        let body = ControlMessage.encode(hello)
        return FrameHeader.request(.hello, id: 0, bodySize: body.count).frame(body: body)
    }

    /// Says HELLO and returns the answer.
    @discardableResult
    func greet(_ configure: (inout Cistern_V1_Hello) -> Void = { _ in }) throws -> Cistern_V1_HelloReply {
        try send(RawPeer.hello(configure))
        guard let frame = try readFrame(), frame.header.opcode == .hello, frame.header.isReply, !frame.header.isError
        else { throw RawPeerError("HELLO was not answered") }
        return try frame.body.withUnsafeBytes { try ControlMessage.decode(Cistern_V1_HelloReply.self, from: $0) }
    }
}

/// A server of raw bytes: every accepted connection is handed to `script` on a thread of its own.
final class RawServer: Sendable {
    let port: Int
    private let descriptor: Int32

    init(connections: Int = 1, _ script: @escaping @Sendable (RawPeer) throws -> Void) throws {
        let listening = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = loopback(port: 0)
        var size = socklen_t(address.count)
        let bound = address.withUnsafeMutableBytes { bytes in
            let address = bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self)
            return bind(listening, address, size) == 0 && listen(listening, 8) == 0
                && getsockname(listening, address, &size) == 0
        }
        guard bound else { throw RawPeerError("listen: errno \(errno)") }
        port = Int(address[2]) << 8 | Int(address[3])
        descriptor = listening
        Thread.detachNewThread {
            for _ in 0..<connections {
                let accepted = accept(listening, nil, nil)
                guard accepted >= 0 else { return }
                // A script that fails shows in what the client sees.
                try? script(RawPeer(descriptor: accepted))
            }
        }
    }

    deinit { close(descriptor) }

    var endpoint: Endpoint { .tcp(host: "127.0.0.1", port: port) }
}

extension RawPeer {
    /// Reads the client's HELLO and agrees.
    func welcome(_ configure: (inout Cistern_V1_HelloReply) -> Void = { _ in }) throws {
        guard let frame = try readFrame(), frame.header.opcode == .hello else { throw RawPeerError("no HELLO") }
        var reply = Cistern_V1_HelloReply()
        reply.version = 1
        reply.features = 1
        reply.frameBytesMax = 1 << 20
        reply.requestsMax = 4
        reply.bytesMax = 4 << 20
        configure(&reply)
        try answer(frame.header, body: ControlMessage.encode(reply))
    }

    func answer(_ request: FrameHeader, flags: FrameFlags = [], credit: UInt32? = nil, body: [UInt8]) throws {
        let header = FrameHeader(
            opcodeByte: request.opcodeByte | Opcode.replyBit, flags: flags, requestID: request.requestID,
            argument: credit ?? UInt32(request.costKiB), bodySize: body.count)
        try send(header.frame(body: body))
    }
}
