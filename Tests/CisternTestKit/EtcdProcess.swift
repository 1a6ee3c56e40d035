// An etcd of its own for a test: a fresh directory, ports that the kernel chose, gone when the test ends.

package import CisternTransport
import Foundation
import Glibc
import Synchronization

package struct EtcdProblem: Error, CustomStringConvertible {
    package let description: String
}

package final class EtcdProcess: Sendable {
    package static let program: String? = {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        return folders.map { "\($0)/etcd" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }()

    package let clientPort: Int
    private let peerPort: Int
    private let directory: String
    private let isSecure: Bool
    private let process: Mutex<Process?>

    package var endpoint: Endpoint { .tcp(host: "127.0.0.1", port: clientPort) }

    private init(clientPort: Int, peerPort: Int, directory: String, isSecure: Bool) {
        self.clientPort = clientPort
        self.peerPort = peerPort
        self.directory = directory
        self.isSecure = isSecure
        process = Mutex(nil)
    }

    package static func with(isSecure: Bool = false, _ body: (EtcdProcess) async throws -> Void) async throws {
        let etcd = try await start(isSecure: isSecure)
        do {
            try await body(etcd)
        } catch {
            etcd.remove()
            throw error
        }
        etcd.remove()
    }

    /// Between the choice of a port and its use another process may take it; then others are chosen.
    private static func start(isSecure: Bool) async throws -> EtcdProcess {
        var log = ""
        for _ in 0..<5 {
            let directory = NSTemporaryDirectory() + "cistern-etcd-" + UUID().uuidString
            let ports = try freePorts(2)
            let etcd = EtcdProcess(
                clientPort: ports[0], peerPort: ports[1], directory: directory, isSecure: isSecure)
            do {
                try await etcd.run()
                return etcd
            } catch let problem as EtcdProblem {
                log = problem.description
                etcd.remove()
            }
        }
        throw EtcdProblem(description: "etcd does not start; its last words: \(log)")
    }

    /// Returns when it serves clients. Its directory is used again after `kill`.
    package func run() async throws {
        guard let program = EtcdProcess.program else {
            throw EtcdProblem(description: "there is no etcd in PATH")
        }
        let scheme = isSecure ? "https" : "http"
        let (client, peer) = ("\(scheme)://127.0.0.1:\(clientPort)", "http://127.0.0.1:\(peerPort)")
        let process = Process()
        // It must not outlive a test that crashes.
        process.executableURL = URL(fileURLWithPath: "/usr/bin/setpriv")
        process.arguments = [
            "--pdeathsig", "KILL", program, "--data-dir", directory, "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer,
            "--initial-cluster", "default=\(peer)", "--heartbeat-interval", "20", "--election-timeout",
            "200",
        ]
        if isSecure {
            process.arguments! += [
                "--cert-file", TestCertificates.certificate("server"), "--key-file",
                TestCertificates.key("server"),
            ]
        }
        let pipe = Pipe()
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = pipe
        try await EtcdProcess.start(process)
        self.process.withLock { $0 = process }
        try await waitUntilReady(pipe.fileHandleForReading)
    }

    /// On a thread that is there for as long as the process: the kernel sends `pdeathsig` when the thread ends that began it.
    private static func start(_ process: Process) async throws {
        let begun: Result<Void, any Error> = await withCheckedContinuation { continuation in
            let run = SendableProcess(process: process)
            Thread.detachNewThread {
                do {
                    try run.process.run()
                } catch {
                    return continuation.resume(returning: .failure(error))
                }
                continuation.resume(returning: .success(()))
                run.process.waitUntilExit()
            }
        }
        try begun.get()
    }

    /// Handed to its thread, which only waits for it then.
    private struct SendableProcess: @unchecked Sendable { let process: Process }

    /// Reads what it says; goes on reading, so that it is never stopped by a full pipe.
    private func waitUntilReady(_ output: FileHandle) async throws {
        let (words, sink) = AsyncStream.makeStream(of: String.self)
        output.readabilityHandler = { handle in
            let data = handle.availableData
            if data.isEmpty {
                handle.readabilityHandler = nil
                sink.finish()
            } else {
                sink.yield(String(decoding: data, as: UTF8.self))
            }
        }
        var said = ""
        for await word in words {
            said += word
            if said.contains("ready to serve client requests") { return }
        }
        throw EtcdProblem(description: String(said.suffix(500)))
    }

    package func kill() {
        guard let process = process.withLock({ $0.take() }) else { return }
        _ = Glibc.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    private func remove() {
        kill()
        try? FileManager.default.removeItem(atPath: directory)
    }
}

/// Ports that nothing listens on.
package func freePorts(_ count: Int) throws -> [Int] {
    var sockets: [Int32] = []
    defer { for socket in sockets { close(socket) } }
    return try (0..<count).map { _ in
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        sockets.append(descriptor)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr = in_addr(s_addr: inet_addr("127.0.0.1"))
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) | getsockname(descriptor, $0, &length)
            }
        }
        guard status == 0 else { throw EtcdProblem(description: "no free port (errno \(errno))") }
        return Int(UInt16(bigEndian: address.sin_port))
    }
}

/// Ports that refuse connections.
package func refusingEndpoint() throws -> Endpoint { .tcp(host: "127.0.0.1", port: try freePorts(1)[0]) }
