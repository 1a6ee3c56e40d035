// An etcd, log nodes and state servers on loopback ports, with everything in one directory: for trying things out and for tests.
//
//   up     etcd ─► log nodes (registered) ─► state servers; what runs already is left alone, what died is started again
//   down   state servers ─► log nodes ─► etcd, each asked to go and killed after `stopTime`

internal import CisternDaemon
internal import CisternFileSystem
internal import Foundation
internal import Glibc

struct DevCluster {
    static let logNodes = 3
    static let stateServers = 2
    static let name = "dev"
    /// A process that is not ready by then has failed.
    static let startTime = Duration.seconds(60)
    /// A process that has not ended by then is killed. More than its own `drain`.
    static let stopTime = Duration.seconds(20)

    let directory: String

    init(directory: String) { self.directory = URL(fileURLWithPath: directory).standardizedFileURL.path }

    var etcd: DevMember { DevMember(name: "etcd", directory: directory) }
    var logs: [DevMember] { (1...DevCluster.logNodes).map { DevMember(name: "log-\($0)", directory: directory) } }
    var states: [DevMember] {
        (1...DevCluster.stateServers).map { DevMember(name: "state-\($0)", directory: directory) }
    }
    var members: [DevMember] { [etcd] + logs + states }

    var exists: Bool { FileManager.default.fileExists(atPath: directory + "/run") }

    // MARK: Up

    /// All of it serves when it returns.
    func up() async throws {
        guard let program = DevCluster.find("etcd") else {
            throw DevClusterError(
                "etcd is not in PATH, and without it several processes cannot share metadata: apt install etcd-server")
        }
        for folder in ["run", "logs"] { try PosixFileSystem().createDirectory(directory + "/" + folder) }
        let lock = try takeLock()
        defer { lock.release() }
        let metadata = try await startEtcd(program)
        try await start(logs) { member, listen, admin in
            let number = member.name.drop { $0 != "-" }.dropFirst()
            return [
                "log-node", "--data", member.data, "--node", String(number), "--cluster", DevCluster.name, "--etcd",
                metadata, "--listen", listen, "--admin", admin,
            ]
        }
        try await start(states) { member, listen, admin in
            [
                "serve", "--data", member.data, "--listen", listen, "--admin", admin, "--durability", "replicated",
                "--etcd",
                metadata, "--cluster", DevCluster.name, "--snapshot-store", "file://" + directory + "/snapshots",
            ]
        }
    }

    /// Starts those that do not run, waits for all of them.
    private func start(
        _ members: [DevMember], _ arguments: (DevMember, _ listen: String, _ admin: String) -> [String]
    ) async throws {
        var started: [(DevMember, DetachedProcess)] = []
        for member in members {
            if case .running = member.state { continue }
            let before = member.addresses.map { DevCluster.isFree($0) ? $0 : DevCluster.anyPort }
            let listen = before.first ?? DevCluster.anyPort
            let admin = before.dropFirst().first ?? DevCluster.anyPort
            started.append((member, try member.start(DevCluster.thisProgram, arguments(member, listen, admin))))
        }
        for (member, process) in started {
            try await wait(for: member, process) { !member.printed("admin on ").isEmpty }
            try member.remember(member.printed("listening on ") + member.printed("admin on "))
        }
    }

    private func startEtcd(_ program: String) async throws -> String {
        if case .running = etcd.state, let client = etcd.addresses.first { return client }
        // A member is known by its peer address, so both stay what they were.
        var addresses = etcd.addresses
        if addresses.count != 2 { addresses = try DevCluster.freeAddresses(2) }
        for address in addresses where !DevCluster.isFree(address) {
            throw DevClusterError(
                "etcd of \(directory) had \(address), where something else listens: end that, or begin with another directory"
            )
        }
        try etcd.remember(addresses)
        let (client, peer) = ("http://" + addresses[0], "http://" + addresses[1])
        let process = try etcd.start(
            program,
            [
                "--data-dir", etcd.data, "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster",
                "default=\(peer)",
            ])
        try await wait(for: etcd, process) {
            // Refused until it listens.
            (try? await AdminClient.get("/health", from: addresses[0]))?.contains("\"true\"") == true
        }
        return addresses[0]
    }

    private func wait(
        for member: DevMember, _ process: DetachedProcess, until isReady: () async -> Bool
    ) async throws {
        let deadline = ContinuousClock.now + DevCluster.startTime
        while await !isReady() {
            guard process.isRunning else {
                throw DevClusterError(
                    "\(member.name) ended while it started; \(member.log) ends with:\n\(member.lastLines)")
            }
            guard ContinuousClock.now < deadline else {
                throw DevClusterError(
                    "\(member.name) (process \(process.id)) is not ready after \(DevCluster.startTime); see \(member.log)"
                )
            }
            try await Task.sleep(for: DetachedProcess.pollInterval)
        }
    }

    // MARK: Down

    /// Nothing of it runs when it returns. Idempotent.
    /// - Returns: who had to be killed.
    func down() async throws -> [DevMember] {
        guard exists else { return [] }
        let lock = try takeLock()
        defer { lock.release() }
        var killed: [DevMember] = []
        for group in [states, logs, [etcd]] {
            killed += try await withThrowingTaskGroup(of: DevMember?.self) { tasks in
                for member in group {
                    tasks.addTask { try await member.stop(within: DevCluster.stopTime) ? member : nil }
                }
                return try await tasks.reduce(into: []) { if let member = $1 { $0.append(member) } }
            }
        }
        return killed
    }

    /// One command at a time.
    private func takeLock() throws -> any DirectoryLock {
        do throws(FileError) {
            return try PosixFileSystem().lock(directory + "/run/lock")
        } catch {
            guard error.reason == .locked else { throw error }
            throw DevClusterError("another dev-cluster command is at work in \(directory): wait for it")
        }
    }
}

// MARK: Programs and ports

extension DevCluster {
    static let anyPort = "127.0.0.1:0"

    static var thisProgram: String {
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
    }

    static func find(_ program: String) -> String? {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        return folders.map { "\($0)/\(program)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Nothing listens at a loopback address.
    static func isFree(_ address: String) -> Bool {
        guard let colon = address.lastIndex(of: ":"), let port = UInt16(address[address.index(after: colon)...]) else {
            return false
        }
        return (try? withSockets([port]) { _ in }) != nil
    }

    /// Ports that the system gave, and that are free again when this returns.
    static func freeAddresses(_ count: Int) throws -> [String] {
        try withSockets([UInt16](repeating: 0, count: count)) { ports in ports.map { "127.0.0.1:\($0)" } }
    }

    private static func withSockets<Value>(_ ports: [UInt16], _ body: ([UInt16]) -> Value) throws -> Value {
        var sockets: [Int32] = []
        defer { for socket in sockets { close(socket) } }
        let bound = try ports.map { port in
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            sockets.append(descriptor)
            var one: Int32 = 1
            // As servers do, so that a port counts as free right after its server has ended.
            _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            address.sin_addr = in_addr(s_addr: INADDR_LOOPBACK.bigEndian)
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let status = unsafe withUnsafeMutablePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    unsafe bind(descriptor, $0, length) | getsockname(descriptor, $0, &length)
                }
            }
            guard status == 0 else { throw DevClusterError("no port of 127.0.0.1 could be taken (errno \(errno))") }
            return UInt16(bigEndian: address.sin_port)
        }
        return body(bound)
    }
}
