// A server process pinned to one core: ours or Redis. Loopback only, on a port that was free; ended with its owner.

import CisternBenchKit
import Foundation
import Glibc

final class Served {
    /// The server's core, and the client's.
    static let serverCore = 0
    static let clientCore = 1

    let port: Int
    private let process: Process
    private let output: Pipe?

    private init(_ process: Process, port: Int, output: Pipe?) {
        self.process = process
        self.port = port
        self.output = output
    }

    deinit { stop() }

    /// `cistern serve` of this build, with one event loop.
    /// - Parameter options: further flags.
    static func cistern(data: String, log: String, options: [String] = []) throws -> Served {
        let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appendingPathComponent("cistern").path
        let output = Pipe()
        let process = try start(
            [
                program, "serve", "--data", data, "--listen", "127.0.0.1:0", "--log", log, "--event-loops", "1",
                "--log-level", "error",
            ] + options, output: output)
        var text = ""
        while !text.contains("\n") {
            let bytes = output.fileHandleForReading.availableData
            guard !bytes.isEmpty else { throw BenchFailure("\(program) serve ended before it listened: see above") }
            text += String(decoding: bytes, as: UTF8.self)
        }
        let line = text.split(separator: "\n").first { $0.hasPrefix("listening on ") } ?? ""
        guard let port = Int(line.split(separator: ":").last ?? "") else {
            throw BenchFailure("\(program) serve said \"\(text)\" instead of where it listens")
        }
        return Served(process, port: port, output: output)
    }

    /// Debian's server with a log that is synced every second, as it comes, and no dumps.
    static func redis(data: String, log: Bool) throws -> Served {
        let port = try freePort()
        let process = try start(
            [
                "redis-server", "--port", "\(port)", "--bind", "127.0.0.1", "--dir", data, "--save", "", "--appendonly",
                log ? "yes" : "no", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0", "--loglevel",
                "warning",
            ], output: nil)
        let served = Served(process, port: port, output: nil)
        for _ in 0..<500 {
            if let client = try? RespClient(port: port) {
                client.begin(["PING"])
                if (try? client.finish(replies: 1)) != nil { return served }
            }
            guard process.isRunning else { break }
            sleepMilliseconds(10)
        }
        throw BenchFailure("redis-server does not answer on port \(port); apt-get install redis-server")
    }

    static func redisName() -> String {
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["redis-server", "--version"]
        process.standardOutput = pipe
        guard (try? process.run()) != nil else { return "Redis" }
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        let version = text.split(separator: " ").first { $0.hasPrefix("v=") }?.dropFirst(2) ?? ""
        return "Redis \(version)"
    }

    private static func start(_ arguments: [String], output: Pipe?) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        // `taskset` becomes the server: its process is the one that is measured and ended.
        process.arguments = ["taskset", "-c", "\(serverCore)"] + arguments
        process.standardInput = FileHandle.nullDevice
        if let output { process.standardOutput = output } else { process.standardOutput = FileHandle.nullDevice }
        do { try process.run() } catch { throw BenchFailure("cannot start \(arguments[0]): \(error)") }
        return process
    }

    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = loopback(port: 0)
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        guard bound else { throw BenchFailure("no free port on loopback: errno \(errno)") }
        return Int(UInt16(bigEndian: address.sin_port))
    }

    var endpoint: String { "127.0.0.1:\(port)" }

    /// CPU of all the server's threads so far, in nanoseconds.
    var cpuNanoseconds: Double {
        var clock = clockid_t()
        var now = timespec()
        guard clock_getcpuclockid(process.processIdentifier, &clock) == 0, clock_gettime(clock, &now) == 0 else {
            return 0
        }
        return Double(now.tv_sec) * 1e9 + Double(now.tv_nsec)
    }

    /// Of the server, at this moment.
    var residentBytes: Double {
        let path = "/proc/\(process.processIdentifier)/statm"
        guard let text = try? String(contentsOfFile: path, encoding: .utf8),
            let pages = text.split(separator: " ").dropFirst().first.flatMap({ Double($0) })
        else { return 0 }
        return pages * Double(getpagesize())
    }

    /// Waits until the server has done next to nothing for a second and a half: what was written is merged.
    func settle() {
        var quiet = 0
        while quiet < 15 {
            let before = cpuNanoseconds
            sleepMilliseconds(100)
            quiet = cpuNanoseconds - before < 2e6 ? quiet + 1 : 0
        }
    }

    func stop() {
        guard process.isRunning else { return }
        // Not by asking: a child of a pool's thread inherits its signal mask, under which Redis does not hear of SIGTERM.
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }
}

func loopback(port: Int) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(port).bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return address
}
