import CisternDaemon
import CisternLSM
import CisternPrimitives
import CisternServer
import CisternTestKit
import CisternTransport
import Foundation
import NIOCore
import NIOPosix
import Synchronization
import Testing

// MARK: A small HTTP client: one request, one connection, all bytes until the end.

private struct HTTPAnswer {
    let code: Int
    let headers: [String: String]
    let body: String
}

private final class Collector: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private let text = Mutex("")
    private let whole: EventLoopPromise<String>

    init(_ whole: EventLoopPromise<String>) { self.whole = whole }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        text.withLock { $0 += String(buffer: unwrapInboundIn(data)) }
    }

    func channelInactive(context: ChannelHandlerContext) { whole.succeed(text.withLock { $0 }) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// Everything that comes back for `bytes`.
private func exchange(_ endpoint: Endpoint, _ bytes: String) async throws -> String {
    guard case .tcp(let host, let port) = endpoint else { throw HarnessError(description: "no TCP") }
    let whole = clientGroup.next().makePromise(of: String.self)
    let channel = try await ClientBootstrap(group: clientGroup)
        .channelInitializer { $0.pipeline.addHandler(Collector(whole)) }
        .connect(host: host, port: port).get()
    try await channel.writeAndFlush(ByteBuffer(string: bytes))
    return try await whole.futureResult.get()
}

private func request(
    _ endpoint: Endpoint, _ path: String, method: String = "GET", authorization: String? = nil
) async throws -> HTTPAnswer {
    let credentials = authorization.map { "authorization: \($0)\r\n" } ?? ""
    let text = try await exchange(
        endpoint, "\(method) \(path) HTTP/1.1\r\nhost: test\r\n\(credentials)connection: close\r\n\r\n")
    let (head, body) = try parts(text)
    let lines = head.components(separatedBy: "\r\n")
    var headers: [String: String] = [:]
    for line in lines.dropFirst() {
        let pieces = line.split(separator: ":", maxSplits: 1)
        headers[pieces[0].lowercased()] = pieces[1].trimmingCharacters(in: .whitespaces)
    }
    let code = lines[0].split(separator: " ").dropFirst().first.flatMap { Int($0) }
    return HTTPAnswer(code: try #require(code), headers: headers, body: body)
}

private func parts(_ text: String) throws -> (String, String) {
    let end = try #require(text.range(of: "\r\n\r\n"), "no end of the head in \(text)")
    return (String(text[..<end.lowerBound]), String(text[end.upperBound...]))
}

private func started(
    _ change: (inout ServerConfiguration) -> Void = { _ in }
) async throws -> (ServerHarness, Endpoint) {
    let harness = try await ServerHarness.start { configuration in
        configuration.admin = "127.0.0.1:0"
        change(&configuration)
    }
    return (harness, try #require(harness.server.adminEndpoint))
}

// MARK: Health

@Test func aServerThatStartsIsAliveAndNotReady() async throws {
    let admin = try await AdminServer.start(.tcp(host: "127.0.0.1", port: 0), pages: StatePages())
    let endpoint = try #require(admin.endpoint)
    #expect(try await request(endpoint, "/healthz").code == 200)
    let ready = try await request(endpoint, "/readyz")
    #expect(ready.code == 503)
    #expect(ready.body == "starting\n")
    #expect(try await request(endpoint, "/metrics").body.contains("cistern_ready 0\n"))
    await admin.close()
    await admin.close()
}

@Test func aServerIsReadyUntilItDrains() async throws {
    let (harness, admin) = try await started { $0.drainMilliseconds = 0 }
    #expect(try await request(admin, "/readyz").code == 200)
    #expect(try await request(admin, "/version").body == ServerVersion.name + "\n")
    await harness.server.drain()
    let ready = try await request(admin, "/readyz")
    #expect(ready.code == 503)
    #expect(ready.body == "draining\n")
    #expect(try await request(admin, "/healthz").code == 200)
    await harness.server.shutdown()
    await #expect(throws: (any Error).self) { try await exchange(admin, "") }
}

@Test func withoutAnAdminAddressThereIsNoAdminPort() async throws {
    let harness = try await ServerHarness.start()
    #expect(harness.server.adminEndpoint == nil)
    await harness.server.shutdown()
}

@Test func anAdminAddressThatIsTakenKeepsTheServerFromStarting() async throws {
    let (harness, admin) = try await started()
    guard case .tcp(_, let port) = admin else { return }
    await #expect(throws: ServerStartError.self) {
        _ = try await ServerHarness.start { $0.admin = "127.0.0.1:\(port)" }
    }
    await harness.server.shutdown()
}

@Test func aLivingAdminSocketIsNotTakenAndADeadOneIs() async throws {
    let path = try TemporaryDirectory()
    let socket = ListenAddress.unix(path: path.path + "/admin.sock")
    let first = try await AdminServer.start(socket, pages: StatePages())
    await #expect(throws: ServerStartError.self) { _ = try await AdminServer.start(socket, pages: StatePages()) }
    await first.close()
    let second = try await AdminServer.start(socket, pages: StatePages())
    await second.close()
}

// MARK: HTTP

@Test func onlyGetAndHeadAreTaken() async throws {
    let (harness, admin) = try await started()
    let refused = try await request(admin, "/metrics", method: "POST")
    #expect(refused.code == 405)
    #expect(refused.headers["allow"] == "GET, HEAD")
    let missing = try await request(admin, "/nothing")
    #expect(missing.code == 404)
    #expect(missing.body.contains("/metrics"))
    let head = try await request(admin, "/metrics?x=1", method: "HEAD")
    #expect(head.code == 200)
    #expect(head.body.isEmpty)
    #expect(head.headers["content-length"].flatMap { Int($0) } ?? 0 > 1000)
    await harness.server.shutdown()
}

@Test func requestsOnOneConnectionAreAnsweredInOrder() async throws {
    let (harness, admin) = try await started()
    let one = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n"
    let last = "GET /version HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    let text = try await exchange(admin, one + one + last)
    #expect(text.components(separatedBy: "HTTP/1.1 200 OK").count == 4)
    #expect(text.hasSuffix(ServerVersion.name + "\n"))
    await harness.server.shutdown()
}

@Test func whatIsNoHTTPIsRefusedAndTheServerGoesOn() async throws {
    let (harness, admin) = try await started()
    let answer = try await exchange(admin, "\u{0}\u{1}garbage\r\n\r\n")
    #expect(answer.isEmpty || answer.hasPrefix("HTTP/1.1 400"), "\(answer)")
    let endless = "GET /healthz HTTP/1.1\r\nx: " + String(repeating: "a", count: 200_000) + "\r\n\r\n"
    let refusal = try? await exchange(admin, endless)
    #expect(refusal?.contains("200 OK") != true)
    #expect(try await request(admin, "/healthz").code == 200)
    await harness.server.shutdown()
}

@Test func metricsAndPagesNeedAnAdministratorsTokenAndHealthDoesNot() async throws {
    let tokens = try TokensOnDisk()
    defer { tokens.remove() }
    let admin = try tokens.add("operator", "admin")
    let worker = try tokens.add("worker", "write:*")
    let (harness, port) = try await started { $0.tokensFile = tokens.path }
    for path in ["/healthz", "/readyz", "/version"] { #expect(try await request(port, path).code == 200) }
    for path in ["/", "/metrics", "/status.json", "/fragment", "/nothing"] {
        let refused = try await request(port, path)
        #expect(refused.code == 401)
        #expect(refused.headers["www-authenticate"]?.hasPrefix("Basic realm=") == true)
        #expect(try await request(port, path, authorization: "Bearer \(worker)").code == 401)
        let basic = Data("anyone:\(admin)".utf8).base64EncodedString()
        let expected = path == "/nothing" ? 404 : 200
        #expect(try await request(port, path, authorization: "Bearer \(admin)").code == expected)
        #expect(try await request(port, path, authorization: "Basic \(basic)").code == expected)
    }
    for nonsense in [
        "", "Bearer", "Bearer ", "Basic ====", "Basic \(Data("x".utf8).base64EncodedString())", "Digest a",
    ] {
        #expect(try await request(port, "/metrics", authorization: nonsense).code == 401, "\(nonsense)")
    }
    await harness.server.shutdown()
}

// MARK: Content

@Test func everyMetricHasATypeOnceAndEveryLineIsWellFormed() async throws {
    let (harness, admin) = try await started()
    let client = try await harness.connect()
    let tree = try await client.attach("a \"quoted\\ store")
    try await tree.write(1, (0..<100).map { .put(0, $0, "value \($0)") })
    _ = try await tree.get([testKey(0, 1), testKey(0, 1_000)])
    _ = await refusal { try await tree.write(7, []) }
    _ = try await tree.snapshot(5)
    let text = try await request(admin, "/metrics").body
    // A name, labels, a number.
    let sampleLine = /^([a-z_]+)(\{[a-z_]+="([^"\\\n]|\\.)*"(,[a-z_]+="([^"\\\n]|\\.)*")*\})? (-?[0-9.e+-]+)$/
    var types: [String: String] = [:]
    for line in text.split(separator: "\n") {
        if line.hasPrefix("# TYPE ") {
            let words = line.split(separator: " ")
            #expect(types.updateValue(String(words[3]), forKey: String(words[2])) == nil, "\(line)")
            continue
        }
        if line.hasPrefix("#") { continue }
        let match = try #require(line.wholeMatch(of: sampleLine), "\(line)")
        let name = String(match.1)
        let family = ["_bucket", "_sum", "_count"].compactMap { suffix in
            name.hasSuffix(suffix) ? String(name.dropLast(suffix.count)) : nil
        }.first { types[$0] == "histogram" }
        #expect(types[family ?? name] != nil, "\(line) has no type")
    }
    for line in [
        "cistern_ready 1", "cistern_connections 1", "cistern_requests_total{opcode=\"writeBatch\"} 2",
        "cistern_requests_total{opcode=\"multiGet\"} 1", "cistern_refusals_total{code=\"SEQUENCE_GAP\"} 1",
        "cistern_write_seconds_count 1", "cistern_snapshots 1", "cistern_checkpoint_parts_total{result=\"taken\"} 1",
        "cistern_trees{store=\"a \\\"quoted\\\\ store\",state=\"attached\"} 1",
        "cistern_batches_total{store=\"a \\\"quoted\\\\ store\"} 1",
        "cistern_entries_written_total{store=\"a \\\"quoted\\\\ store\"} 100",
    ] {
        #expect(text.contains("\n\(line)\n"), "\(line) is not in\n\(text)")
    }
    await harness.server.shutdown()
}

@Test func bucketsOfAHistogramAreCumulativeAndEndWithTheCount() async throws {
    let (harness, admin) = try await started()
    let tree = try await harness.connect().attach()
    for sequence in 1...20 { try await tree.write(UInt64(sequence), [.put(0, sequence, "x")]) }
    let text = try await request(admin, "/metrics").body
    let counts = text.split(separator: "\n").filter { $0.hasPrefix("cistern_write_seconds_bucket") }
        .compactMap { $0.split(separator: " ").last.flatMap { UInt64($0) } }
    #expect(counts.count == 25)
    #expect(counts == counts.sorted())
    #expect(counts.last == 20)
    #expect(text.contains("le=\"+Inf\"} 20\n"))
    await harness.server.shutdown()
}

@Test func theStatusIsJSONWithEveryTree() async throws {
    let (harness, admin) = try await started()
    let client = try await harness.connect()
    let low = try await client.attach(0, 3, epoch: 4, writer: "worker \"one\"")
    _ = try await client.attach(4, 7)
    try await low.write(1, [.put(0, 1, "x")])
    _ = try await low.snapshot(9)
    let answer = try await request(admin, "/status.json")
    let object = try JSONSerialization.jsonObject(with: Data(answer.body.utf8)) as? [String: Any]
    let trees = try #require(object?["trees"] as? [[String: Any]])
    #expect(trees.map { $0["keyGroupFirst"] as? Int } == [0, 4])
    #expect(trees[0]["writer"] as? String == "worker \"one\"")
    #expect(trees[0]["epoch"] as? Int == 4)
    #expect(trees[0]["isAttached"] as? Bool == true)
    #expect(trees[0]["batches"] as? Int == 1)
    let checkpoints = try #require(object?["checkpoints"] as? [[String: Any]])
    #expect(checkpoints.map { $0["checkpoint"] as? Int } == [9])
    #expect(object?["phase"] as? String == "serving")
    await harness.server.shutdown()
}

@Test func namesCannotBecomeMarkup() async throws {
    let (harness, admin) = try await started()
    _ = try await harness.connect().attach("<script>alert(1)<b>&'\"", writer: "<img src=x>")
    let page = try await request(admin, "/")
    #expect(!page.body.contains("<script>alert"))
    #expect(!page.body.contains("<img"))
    #expect(page.body.contains("&lt;script&gt;alert(1)&lt;b&gt;&amp;&#39;&quot;"))
    #expect(page.headers["content-security-policy"]?.contains("default-src 'none'") == true)
    let fragment = try await request(admin, "/fragment").body
    #expect(fragment.hasPrefix("<h1>"))
    #expect(!fragment.contains("<html"))
    await harness.server.shutdown()
}

@Test func theHistoryOfCheckpointsIsBoundedAndInOrder() {
    let history = CheckpointHistory()
    let total = CheckpointHistory.partsMax * 2 + 3
    for number in 0..<total {
        history.record(
            CheckpointPart(
                store: "s", keyGroups: "0...7", checkpoint: UInt64(number), finishedMilliseconds: 0, microseconds: 10,
                bytes: 0, newBytes: 0, failure: number % 2 == 0 ? nil : "disk full"))
    }
    let expected = (total - CheckpointHistory.partsMax..<total).map { UInt64($0) }
    #expect(history.parts.map(\.checkpoint) == expected)
    #expect(history.sums.taken == UInt64(total / 2 + 1))
    #expect(history.sums.failed == UInt64(total / 2))
    #expect(history.sums.microseconds == UInt64(total) * 10)
}

// MARK: In a browser

private let chromium = ["chromium", "chromium-browser", "google-chrome"].flatMap { name in
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(name)" }
}.first { FileManager.default.isExecutableFile(atPath: $0) }

/// The page as Chromium has it after its script ran for a while.
private func rendered(_ browser: String, _ endpoint: Endpoint) throws -> String {
    let profile = try TemporaryDirectory()
    let process = Process()
    process.executableURL = URL(filePath: browser)
    process.arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=\(profile.path)", "--virtual-time-budget=5000",
        "--dump-dom", "http://\(endpoint)/",
    ]
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    let text = try output.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    return String(decoding: text, as: UTF8.self)
}

@Test(.enabled(if: chromium != nil, "needs Chromium on the PATH: make test-page installs it"))
func aBrowserShowsTheTreesAndKeepsThePageFresh() async throws {
    let (harness, admin) = try await started { $0.memtableBytes = 64 << 10 }
    let tree = try await harness.connect().attach("orders <1>", writer: "worker 1")
    for batch in 0..<8 {
        try await tree.write(UInt64(batch + 1), (0..<500).map { .put(0, batch * 500 + $0, "some value \($0)") })
    }
    _ = try await tree.snapshot(3)
    let browser = try #require(chromium)
    let page: String = try await withCheckedThrowingContinuation { continuation in
        // A thread of its own: the browser waits for the server, whose tasks need the test's threads.
        Thread { continuation.resume(with: Result { try rendered(browser, admin) }) }.start()
    }
    #expect(page.contains("orders &lt;1&gt;"))
    #expect(page.contains("attached by <b>worker 1</b>"))
    #expect(page.contains("aria-label=\"levels of the tree\""))
    #expect(page.contains("aria-label=\"checkpoints over time\""))
    #expect(page.contains("data-refreshed=\""), "the script did not fetch the page's changing part")
    await harness.server.shutdown()
}
