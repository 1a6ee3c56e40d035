// Who may come in: certificates, tokens, and what a token allows. Servers listen on loopback.

import CisternDaemon
import CisternServer
import CisternTestKit
import CisternTransport
import CisternWire
import CisternWireMessages
import Foundation
import NIOCore
import NIOPosix
import Testing

/// A tokens file of a test.
final class TokensOnDisk {
    let path = NSTemporaryDirectory() + "cistern-tokens-\(UUID().uuidString)"
    private var lines: [String] = []

    init() throws { try save() }

    func remove() { try? FileManager.default.removeItem(atPath: path) }

    /// Returns the token.
    func add(_ name: String, _ scopes: String) throws -> String {
        let made = try NewToken(name: name, scopes: scopes)
        lines.append(made.line)
        try save()
        return made.token
    }

    func drop(_ name: String) throws {
        lines.removeAll { $0.hasPrefix(name + " ") }
        try save()
    }

    func overwrite(_ text: String) throws { try text.write(toFile: path, atomically: true, encoding: .utf8) }

    private func save() throws { try overwrite("# tokens\n" + lines.joined(separator: "\n") + "\n") }
}

private func serving(_ certificate: String, clients: Bool = false) async throws -> ServerHarness {
    try await ServerHarness.start {
        $0.tlsCertificate = TestCertificates.certificate(certificate)
        $0.tlsKey = TestCertificates.key(certificate)
        if clients { $0.tlsClientAuthorities = TestCertificates.certificate("authority") }
    }
}

private func trusting(
    _ authority: String = "authority", as client: String? = nil, serverName: String? = nil
) throws -> ClientTLS {
    try ClientTLS(
        trustedCertificates: TestCertificates.certificate(authority),
        certificate: client.map { TestCertificates.certificate($0) }, key: client.map { TestCertificates.key($0) },
        serverName: serverName)
}

private func refusal(_ work: () async throws -> Void) async -> ErrorCode? {
    do {
        try await work()
        return nil
    } catch TransportError.remote(let body) {
        return body.errorCode
    } catch {
        Issue.record("\(error) is no refusal of the server")
        return nil
    }
}

// MARK: TLS

@Test func stateIsServedOverTLS() async throws {
    let harness = try await serving("server")
    let tree = try await harness.connect(try trusting()).attach()
    let large = String(repeating: "x", count: 300_000)
    try await tree.write(1, (0..<20).map { TestEntry.put(1, $0, large) })
    #expect(try await tree.get([testKey(1, 0), testKey(1, 19), testKey(1, 20)]) == [large, large, nil])
    #expect(try await tree.keyIndex().keys.count == 20)
    #expect(try await harness.connect(try trusting(serverName: "localhost")).attach("other").handle > 0)
    await harness.server.shutdown()
}

@Test(arguments: ["impostor", "expired", "elsewhere"])
func aCertificateThatProvesNothingIsRefusedByTheClient(certificate: String) async throws {
    let harness = try await serving(certificate)
    let tls = try trusting()
    await #expect(throws: TransportError.self) { _ = try await harness.connect(tls) }
    await harness.server.shutdown()
}

@Test func theServersNameIsTheOneThatTheClientAsksFor() async throws {
    let harness = try await serving("elsewhere")
    _ = try await harness.connect(try trusting(serverName: "elsewhere.example"))
    let wrong = try trusting(serverName: "localhost")
    await #expect(throws: TransportError.self) { _ = try await harness.connect(wrong) }
    await harness.server.shutdown()
}

@Test func clientsNeedACertificateOfTheAuthorityWhenTheServerAsksForOne() async throws {
    let harness = try await serving("server", clients: true)
    #expect(try await harness.connect(try trusting(as: "client")).attach().handle > 0)
    let without = try trusting()
    await #expect(throws: TransportError.self) { _ = try await harness.connect(without) }
    let stranger = try trusting(as: "impostor")
    await #expect(throws: TransportError.self) { _ = try await harness.connect(stranger) }
    await harness.server.shutdown()
}

@Test func whatIsNoTLSIsCutOffAndTheServerGoesOn() async throws {
    let harness = try await serving("server")
    // A client that speaks plainly, and bytes that are nothing.
    await #expect(throws: TransportError.self) { _ = try await harness.connect() }
    guard case .tcp(let host, let port) = harness.endpoint else { return }
    for bytes in [
        [UInt8](repeating: 0x16, count: 2_000), [0x16, 3, 1, 0xFF, 0xFF], Array("GET / HTTP/1.1\r\n\r\n".utf8),
    ] {
        let channel = try await ClientBootstrap(group: clientGroup).connect(host: host, port: port).get()
        try? await channel.writeAndFlush(ByteBuffer(bytes: bytes))
        try? await channel.close(mode: .output)
        try? await channel.closeFuture.get()
    }
    #expect(try await harness.connect(try trusting()).attach().handle > 0)
    await harness.server.shutdown()
}

@Test func aCertificateThatChangesIsUsedForNewConnections() async throws {
    let directory = NSTemporaryDirectory() + "cistern-tls-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    func install(_ name: String) throws {
        for (from, to) in [(TestCertificates.certificate(name), "/c.pem"), (TestCertificates.key(name), "/k.pem")] {
            try Data(contentsOf: URL(filePath: from)).write(to: URL(filePath: directory + to))
        }
    }
    try install("server")
    let harness = try await ServerHarness.start {
        $0.tlsCertificate = directory + "/c.pem"
        $0.tlsKey = directory + "/k.pem"
    }
    let tree = try await harness.connect(try trusting()).attach()
    try install("impostor")
    harness.server.reloadSecurity()
    let (before, after) = (try trusting(), try trusting("stranger"))
    await #expect(throws: TransportError.self) { _ = try await harness.connect(before) }
    _ = try await harness.connect(after)
    // What is open stays.
    try await tree.write(1, [.put(1, 1, "a")])
    // Nonsense changes nothing.
    try Data("no certificate".utf8).write(to: URL(filePath: directory + "/c.pem"))
    harness.server.reloadSecurity()
    _ = try await harness.connect(after)
    await harness.server.shutdown()
}

@Test func filesThatAreNoCertificatesAreAnErrorAtTheStart() async throws {
    let tokens = try TokensOnDisk()
    defer { tokens.remove() }
    let pairs = [
        ("/nowhere.pem", TestCertificates.key("server")), (tokens.path, TestCertificates.key("server")),
        (TestCertificates.certificate("server"), tokens.path),
        (TestCertificates.certificate("server"), TestCertificates.key("client")),
    ]
    for (certificate, key) in pairs {
        await #expect(throws: ServerStartError.self) {
            _ = try await ServerHarness.start {
                $0.tlsCertificate = certificate
                $0.tlsKey = key
            }
        }
    }
    try tokens.overwrite("worker sha256:12 write:*")
    await #expect(throws: ServerStartError.self) {
        _ = try await ServerHarness.start { $0.tokensFile = tokens.path }
    }
}

// MARK: Tokens

@Test func onlyTokensOfTheFileComeInAndEachMayWhatItsLineSays() async throws {
    let tokens = try TokensOnDisk()
    defer { tokens.remove() }
    let writer = try tokens.add("flights", "write:flights.*,read:shared")
    let reader = try tokens.add("reader", "read:flights.*")
    let harness = try await ServerHarness.start { $0.tokensFile = tokens.path }

    #expect(await refusal { _ = try await harness.connect() } == .unauthenticated)
    #expect(await refusal { _ = try await harness.connect(nil, token: writer + "x") } == .unauthenticated)

    let client = try await harness.connect(nil, token: writer)
    let tree = try await client.attach("flights.counts")
    try await tree.write(1, [.put(1, 1, "one")])
    let snapshot = try await tree.snapshot(1)
    for store in ["flights", "flight.counts", "shared", "other"] {
        #expect(await refusal { _ = try await client.attach(store) } == .permissionDenied, "\(store)")
    }
    #expect(await refusal { _ = try await client.snapshots(store: "other") } == .permissionDenied)

    let looker = try await harness.connect(nil, token: reader)
    #expect(try await looker.snapshots(store: "flights.counts").map(\.handle) == [snapshot.handle])
    #expect(await refusal { _ = try await looker.attach("flights.counts", epoch: 2) } == .permissionDenied)
    #expect(
        await refusal { _ = try await looker.release([snapshot.handle], store: "flights.counts") } == .permissionDenied)
    // The refused attach took nothing from the writer.
    try await tree.write(2, [.put(1, 2, "two")])
    #expect(try await client.release([snapshot.handle], store: "flights.counts") == 1)
    await harness.server.shutdown()
}

@Test func tokensThatChangeHoldForNewConnectionsAndABrokenFileChangesNothing() async throws {
    let tokens = try TokensOnDisk()
    defer { tokens.remove() }
    let old = try tokens.add("old", "write:*")
    let harness = try await ServerHarness.start { $0.tokensFile = tokens.path }
    let open = try await harness.connect(nil, token: old).attach()
    let new = try tokens.add("new", "write:*")
    try tokens.drop("old")
    harness.server.reloadSecurity()
    _ = try await harness.connect(nil, token: new)
    #expect(await refusal { _ = try await harness.connect(nil, token: old) } == .unauthenticated)
    try await open.write(1, [.put(1, 1, "still here")])
    try tokens.overwrite("new write:*")
    harness.server.reloadSecurity()
    _ = try await harness.connect(nil, token: new)
    tokens.remove()
    harness.server.reloadSecurity()
    _ = try await harness.connect(nil, token: new)
    await harness.server.shutdown()
}

@Test func linesOfATokensFileAreCheckedAndSaidByNumber() throws {
    let hash = "sha256:" + String(repeating: "0a", count: 32)
    let good = try TokenList(parsing: "# all\n\n a \(hash) admin,read:x*,write:y # comment\r\n")
    let grant = try #require(good.grant(hash: [UInt8](repeating: 10, count: 32)))
    #expect(grant.isAdmin && grant.name == "a")
    #expect(grant.allows(.read, store: "x1") && !grant.allows(.write, store: "x1"))
    #expect(grant.allows([.read, .write], store: "y") && !grant.allows(.read, store: "yy"))
    #expect(good.grant(hash: [UInt8](repeating: 11, count: 32)) == nil)
    let bad = [
        "a": "three", "a \(hash)": "three", "a b c d": "three", "a md5:00 admin": "sha256",
        "a sha256:0 admin": "sha256",
        "a sha256:\(String(repeating: "0g", count: 32)) admin": "sha256", "a \(hash) all": "no scope",
        "a \(hash) own:x": "no right", "a \(hash) read:": "no pattern", "a \(hash) read:*x": "no pattern",
        "a \(hash) admin,": "no scope", "a \(hash) admin\nb \(hash) admin": "line 2",
        "a \(hash) admin\na sha256:\(String(repeating: "0", count: 64)) admin": "line 2",
        String(repeating: "n", count: 200) + " \(hash) admin": "bytes",
    ]
    for (text, expected) in bad {
        let error = #expect(throws: TokenListError.self) { _ = try TokenList(parsing: text) }
        #expect(error?.description.contains(expected) == true, "\(text): \(error?.description ?? "")")
    }
}

@Test func theAdminClientShowsATokenOverTLS() async throws {
    let tokens = try TokensOnDisk()
    defer { tokens.remove() }
    let admin = try tokens.add("operator", "admin")
    let harness = try await ServerHarness.start {
        $0.admin = "127.0.0.1:0"
        $0.tokensFile = tokens.path
        $0.tlsCertificate = TestCertificates.certificate("server")
        $0.tlsKey = TestCertificates.key("server")
    }
    let address = "\(try #require(harness.server.adminEndpoint))"
    let (tls, stranger) = (try trusting(), try trusting("stranger"))
    #expect(try await AdminClient.get("/metrics", from: address, tls: tls, token: admin).contains("cistern_ready 1"))
    await #expect { _ = try await AdminClient.get("/metrics", from: address, tls: tls) } throws: {
        "\($0)".contains("401")
    }
    await #expect(throws: AdminClientError.self) { try await AdminClient.get("/metrics", from: address, token: admin) }
    await #expect(throws: AdminClientError.self) {
        try await AdminClient.get("/metrics", from: address, tls: stranger, token: admin)
    }
    // Refused before anything is connected: the address is one of documentation.
    await #expect { _ = try await AdminClient.get("/metrics", from: "192.0.2.1:1", token: admin) } throws: {
        "\($0)".contains("could read the token")
    }
    await harness.server.shutdown()
}
