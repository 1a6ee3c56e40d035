// Redis's protocol, as little of it as the cases need: commands gathered in one buffer, one write, replies counted and
// checked where they lie in the read buffer. Blocking, on the caller's thread: the cheapest client there can be.

import CisternBenchKit
import Glibc

final class RespClient {
    private static let inputBytes = 1 << 20

    private let descriptor: Int32
    private var output: [UInt8] = []
    private let input = UnsafeMutablePointer<UInt8>.allocate(capacity: RespClient.inputBytes)
    private var start = 0
    private var end = 0

    init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = loopback(port: port)
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard connected == 0 else { throw BenchFailure("cannot connect to port \(port): errno \(errno)") }
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        output.reserveCapacity(1 << 20)
    }

    deinit {
        close(descriptor)
        input.deallocate()
    }

    // MARK: Commands

    /// Begins a command of `count` parts.
    func begin(count: Int) {
        output.append(UInt8(ascii: "*"))
        number(count)
    }

    func begin(_ parts: [StaticString]) {
        begin(count: parts.count)
        for text in parts { part(text) }
    }

    func part(_ text: StaticString) {
        part(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    func part(_ bytes: UnsafeRawBufferPointer) {
        output.append(UInt8(ascii: "$"))
        number(bytes.count)
        output.append(contentsOf: bytes)
        output.append(13)
        output.append(10)
    }

    private func number(_ value: Int) {
        var divisor = 1
        while value / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            output.append(UInt8(48 + value / divisor % 10))
            divisor /= 10
        }
        output.append(13)
        output.append(10)
    }

    /// Sends what was gathered.
    func send() throws {
        try output.withUnsafeBytes { bytes in
            var sent = 0
            while sent < bytes.count {
                let written = write(descriptor, bytes.baseAddress! + sent, bytes.count - sent)
                guard written > 0 else { throw BenchFailure("Redis took no commands: errno \(errno)") }
                sent += written
            }
        }
        output.removeAll(keepingCapacity: true)
    }

    // MARK: Replies

    /// Sends, and takes so many replies.
    @discardableResult
    func finish(replies: Int, visit: (UnsafeRawBufferPointer?) throws -> Void = { _ in }) throws -> Int {
        try send()
        var values = 0
        for _ in 0..<replies { values += try reply(visit) }
        return values
    }

    /// Takes one reply; visits its values, nil for an absent one. Returns how many there were.
    func reply(_ visit: (UnsafeRawBufferPointer?) throws -> Void = { _ in }) throws -> Int {
        let (kind, count) = try line()
        switch kind {
        case UInt8(ascii: "+"), UInt8(ascii: ":"): return 0
        case UInt8(ascii: "$"):
            try bulk(count, visit)
            return 1
        case UInt8(ascii: "*"):
            for _ in 0..<count {
                let (inner, size) = try line()
                guard inner == UInt8(ascii: "$") else { throw BenchFailure("Redis answered with a nested reply") }
                try bulk(size, visit)
            }
            return count
        default: throw BenchFailure("Redis answered with an error")
        }
    }

    private func bulk(_ size: Int, _ visit: (UnsafeRawBufferPointer?) throws -> Void) throws {
        if size < 0 { return try visit(nil) }
        while end - start < size + 2 { try fill() }
        try visit(UnsafeRawBufferPointer(start: input + start, count: size))
        start += size + 2
    }

    /// The first byte of the next line and the number behind it; texts are skipped.
    private func line() throws -> (UInt8, Int) {
        var position = start
        while true {
            while position < end, input[position] != 10 { position += 1 }
            if position < end { break }
            let offset = position - start
            try fill()
            position = start + offset
        }
        let kind = input[start]
        var value = 0
        if kind == UInt8(ascii: "$") || kind == UInt8(ascii: "*") || kind == UInt8(ascii: ":") {
            var isNegative = false
            for index in start + 1..<position - 1 {
                if input[index] == UInt8(ascii: "-") {
                    isNegative = true
                } else {
                    value = value * 10 + Int(input[index]) - 48
                }
            }
            if isNegative { value = -value }
        }
        start = position + 1
        return (kind, value)
    }

    private func fill() throws {
        if start == end {
            (start, end) = (0, 0)
        } else if end == RespClient.inputBytes {
            memmove(input, input + start, end - start)
            (start, end) = (0, end - start)
        }
        let got = read(descriptor, input + end, RespClient.inputBytes - end)
        guard got > 0 else { throw BenchFailure("Redis closed the connection: errno \(errno)") }
        end += got
    }
}
