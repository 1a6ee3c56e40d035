import CisternDaemon
import CisternLogServer
import Foundation
import Testing

@Suite struct LogNodeConfigurationTests {
    private func load(
        _ flags: [String: String], environment: [String: String] = [:], file: String? = nil
    ) throws -> LogNodeConfiguration {
        try LogNodeConfigurationLoader.load(
            flags: flags.map { (key: $0.key, values: [$0.value]) }, environment: environment,
            file: file.map { (name: "node.conf", text: $0) })
    }

    private static let enough = ["data": "/d", "node": "3", "etcd": "127.0.0.1:2379"]

    @Test func flagsWinOverTheEnvironmentAndThatOverTheFile() throws {
        let found = try load(
            ["node": "3", "lease": "5s"],
            environment: [
                "CISTERN_LOG_NODE_NODE": "4", "CISTERN_LOG_NODE_CLUSTER": "eu", "CISTERN_LOG_NODE_CONFIG": "x",
                // Of a state server on the same machine.
                "CISTERN_MEMTABLE_BYTES": "1MiB",
            ],
            file: "data = /d\ncluster = us\netcd = 10.0.0.1:2379, 10.0.0.2:2379\nlease = 30s\n")
        #expect(found.node == 3)
        #expect(found.leaseMilliseconds == 5_000)
        #expect(found.cluster == "eu")
        #expect(found.etcd == ["10.0.0.1:2379", "10.0.0.2:2379"])
        #expect(found.dataDirectory == "/d")
    }

    @Test func aNameThatIsUnknownIsRefusedWithTheNearestOne() {
        #expect(
            throws: ConfigurationError(
                description: "environment CISTERN_LOG_NODE_NODES is not a setting; did you mean CISTERN_LOG_NODE_NODE?")
        ) {
            try load([:], environment: ["CISTERN_LOG_NODE_NODES": "4"])
        }
    }

    @Test(arguments: [
        (["data": ""], "not a valid data"),
        (["node": "0"], "not a valid node"),
        (["cluster": "a/b"], "not a valid cluster"),
        (["segment_bytes": "1MiB", "spare_segments": "1"], "not a valid spare_segments"),
        (["etcd": "unix:/run/etcd"], "is not HOST:PORT"),
        (["etcd": "127.0.0.1:0"], "is not HOST:PORT"),
        (["etcd_certificate": "c.pem"], "etcd_key is not"),
        (["etcd_certificate": "c.pem", "etcd_key": "k.pem"], "without etcd_authorities"),
        (["listen": "unix:/run/log.sock"], "Unix sockets only"),
        (["listen": "0.0.0.0:7080", "allow_remote": "true"], "give the one that clients use with advertise"),
        (["listen": "0.0.0.0:7080"], "there is no encryption"),
        (["advertise": "0.0.0.0:7080"], "is no address that can be connected to"),
        (["advertise": "node-1"], "is not HOST:PORT"),
        (["admin": "127.0.0.1:7080"], "both name"),
        (["segment_bytes": "1048577"], "multiple of 4096"),
        (["kept_segments": "2", "spare_segments": "4"], "kept_segments (2) is less"),
        (["unanswered_bytes_max": "32MiB"], "unanswered_bytes_max"),
        (["log_key": "k.pem"], "log_certificate is not"),
        (["log_token_file": "t"], "without log_authorities"),
        (["tls_certificate": "c.pem", "tls_key": "k.pem"], "does not know who signs those of its peers"),
    ])
    func settingsThatCannotWorkAreRefusedWithTheRule(changed: [String: String], message: String) throws {
        let settings = Self.enough.merging(changed) { $1 }
        let error = #expect(throws: ConfigurationError.self) { try load(settings) }
        #expect(try #require(error).description.contains(message), "\(error?.description ?? "")")
    }

    @Test(arguments: [("data", "no data directory"), ("node", "the node has no number"), ("etcd", "no metadata")])
    func whatMustBeGivenIsAskedFor(key: String, message: String) throws {
        let error = #expect(throws: ConfigurationError.self) { try load(Self.enough.filter { $0.key != key }) }
        #expect(try #require(error).description.contains(message), "\(error?.description ?? "")")
    }

    @Test func theDocumentationHasTheTableOfOptions() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/configuration.md")
        let text = try String(contentsOf: file, encoding: .utf8)
        #expect(
            text.contains(LogNodeOption.markdownTable),
            "put this table into docs/configuration.md:\n\(LogNodeOption.markdownTable)")
    }
}
