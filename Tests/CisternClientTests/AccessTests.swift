// What the client makes of certificates and tokens, against a real server on loopback.

import CisternClient
import CisternDaemon
import CisternPrimitives
import CisternServer
import CisternTestKit
import Foundation
import Logging
import Testing

private func served(
    _ change: (inout ServerConfiguration) -> Void,
    _ body: (ClientConfiguration) async throws -> Void
) async throws {
    var configuration = ServerConfiguration()
    configuration.dataDirectory = "/data"
    configuration.listen = ["127.0.0.1:0"]
    configuration.memtableBytes = 1 << 20
    configuration.blockCacheBytes = 4 << 20
    change(&configuration)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let server = try await StateServer.start(configuration, fileSystem: MemoryFileSystem(), logger: logger)
    var client = ClientConfiguration(endpoint: "\(server.boundEndpoints[0])")
    client.retryForMilliseconds = 2000
    do { try await body(client) } catch {
        await server.shutdown()
        throw error
    }
    await server.shutdown()
}

@Test func aWorkerKeepsStateOverTLSWithAToken() async throws {
    let made = try NewToken(name: "worker", scopes: "write:jobs.*")
    let tokens = NSTemporaryDirectory() + "cistern-tokens-\(UUID().uuidString)"
    try made.line.write(toFile: tokens, atomically: true, encoding: .utf8)
    defer { try? FileManager.default.removeItem(atPath: tokens) }
    try await served {
        $0.tlsCertificate = TestCertificates.certificate("server")
        $0.tlsKey = TestCertificates.key("server")
        $0.tokensFile = tokens
    } _: { plain in
        var configuration = plain
        configuration.tls = ClientConfiguration.TLS(
            trustedCertificatesFile: TestCertificates.certificate("authority"))
        configuration.token = made.token
        let client = try await StateClient.connect(configuration)
        let range = KeyGroupRange(first: 0, last: 7)
        let session = try await client.attach(
            store: "jobs.a", keyGroupCount: 8, keyGroups: range, epoch: 1, writer: "w", restoring: nil)
        let state = try await session.valueState("state", .int64)
        try session.setCurrentKey([1, 2, 3])
        try await state.update(7)
        try await session.flush()
        #expect(try await state.value() == 7)
        let denied = await #expect(throws: ClientError.self) {
            _ = try await client.attach(
                store: "other", keyGroupCount: 8, keyGroups: range, epoch: 1, writer: "w", restoring: nil)
        }
        #expect(denied?.code == .accessDenied)
        configuration.token = "cst_wrong"
        let wrong = configuration
        let refused = await #expect(throws: ClientError.self) { _ = try await StateClient.connect(wrong) }
        #expect(refused?.code == .accessDenied)
        configuration.tls = nil
        let plainly = configuration
        await #expect(throws: ClientError.self) { _ = try await StateClient.connect(plainly) }
        try await session.detach()
        await client.close()
    }
}

@Test func aTokenIsNotSentWhereOthersCanReadIt() async throws {
    // Refused before anything is connected: the address is one of documentation.
    var configuration = ClientConfiguration(endpoint: "192.0.2.1:7070")
    configuration.token = "cst_secret"
    let refused = configuration
    let error = await #expect(throws: ClientError.self) { _ = try await StateClient.connect(refused) }
    #expect(error?.code == .invalidArgument)
    #expect(error?.message.contains("allowsTokenWithoutTLS") == true)
    #expect(error?.message.contains("cst_secret") == false)
}

@Test func filesThatAreNoCertificatesAreSaidByName() async throws {
    var configuration = ClientConfiguration(endpoint: "127.0.0.1:1")
    configuration.tls = ClientConfiguration.TLS(trustedCertificatesFile: "/nowhere/authority.pem")
    let missing = configuration
    let error = await #expect(throws: ClientError.self) { _ = try await StateClient.connect(missing) }
    #expect(error?.message.contains("/nowhere/authority.pem") == true)
    configuration.tls = ClientConfiguration.TLS(certificateFile: "/c.pem")
    let half = configuration
    let other = await #expect(throws: ClientError.self) { _ = try await StateClient.connect(half) }
    #expect(other?.code == .invalidArgument)
}
