import CisternDaemon
import CisternServer
import CisternSnapshotStoreS3
import Foundation
import Testing

private func load(
    flags: [(key: String, values: [String])] = [("data", ["/d"])], environment: [String: String] = [:],
    file: String? = nil
) throws(ConfigurationError) -> ServerConfiguration {
    try ConfigurationLoader.load(
        flags: flags, environment: environment, file: file.map { (name: "cistern.conf", text: $0) })
}

private func problem(
    flags: [(key: String, values: [String])] = [("data", ["/d"])], environment: [String: String] = [:],
    file: String? = nil
) -> String {
    do throws(ConfigurationError) {
        _ = try load(flags: flags, environment: environment, file: file)
        return ""
    } catch {
        return error.description
    }
}

@Test func flagsWinOverEnvironmentAndEnvironmentOverFile() throws {
    let file = "event_loops = 1\nmemtable_bytes = 1MiB # small\n\nlog = off\ndata = /file\n"
    let environment = ["CISTERN_EVENT_LOOPS": "3", "CISTERN_LOG": "buffered", "HOME": "/root"]
    let flags = [(key: "event_loops", values: ["4"])]
    let all = try load(flags: flags, environment: environment, file: file)
    #expect(all.eventLoops == 4)
    #expect(all.log == .buffered)
    #expect(all.memtableBytes == 1 << 20)
    #expect(all.dataDirectory == "/file")
    #expect(all.blockCacheBytes == ServerConfiguration().blockCacheBytes)
}

@Test func unknownNamesAreRefusedWithTheNearestKnownOne() {
    #expect(problem(file: "memtable_byte = 1MiB").contains("did you mean memtable_bytes?"))
    #expect(problem(file: "memtable_byte = 1MiB").contains("cistern.conf line 1"))
    #expect(problem(environment: ["CISTERN_LISTNE": "x"]).contains("did you mean CISTERN_LISTEN?"))
    #expect(problem(flags: [("evnt_loops", ["1"])]).contains("did you mean event_loops?"))
    #expect(problem(file: "event_loops").contains("is not \"key = value\""))
    #expect(problem(file: "log = off\nlog = synced").contains("already set by cistern.conf line 1"))
    #expect(problem(environment: ["CISTERN_SEED": "7", "CISTERN_CONFIG": "/x", "PATH": "/bin"]).isEmpty)
}

@Test func valuesThatDoNotFitAreRefusedWithWhatWould() {
    #expect(problem(file: "event_loops = 0").contains("1 to 64"))
    #expect(problem(file: "memtable_bytes = lots").contains("16MiB"))
    #expect(problem(file: "log = sometimes").contains("synced"))
    #expect(problem(file: "drain = 10").contains("10s"))
    #expect(problem(file: "allow_remote = yes").contains("true or false"))
    #expect(problem(file: "memtable_bytes = 99999999999999999999GiB").contains("memtable_bytes"))
}

@Test func settingsOfS3ThatCannotWorkAreRefused() throws {
    let keys = ["AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"]
    let store = "snapshot_store = s3://bucket/prefix\n"
    #expect(problem(file: store).contains("no region is given"))
    #expect(problem(environment: ["AWS_REGION": "eu-north-1"], file: store).contains("needs credentials"))
    #expect(problem(environment: keys, file: store + "s3_region = eu-north-1").isEmpty)
    #expect(problem(file: store + "s3_region = eu-north-1\ns3_credentials_file = /c").isEmpty)
    for (settings, part) in [
        ("s3_region = eu north", "s3_region"), ("s3_endpoint = minio:9000", "https://HOST"),
        ("s3_endpoint = http://minio:9000", "no encryption"),
        ("s3_endpoint = http://127.0.0.1:9000\ns3_authorities = /a.pem", "not https://"),
        ("s3_endpoint = https://10.0.0.1\ns3_addressing = host", "an address"),
    ] {
        #expect(problem(environment: keys, file: store + settings).contains(part), "\(settings)")
    }
    for settings in [
        "s3_endpoint = https://minio:9000\ns3_authorities = /a.pem", "s3_endpoint = http://localhost:9000",
        "s3_endpoint = http://minio:9000\nallow_remote = true", "s3_endpoint = https://minio\ns3_addressing = host",
    ] {
        #expect(problem(environment: keys, file: store + settings) == "", "\(settings)")
    }
    let dotted = "snapshot_store = s3://my.bucket\ns3_region = r\n"
    #expect(problem(environment: keys, file: dotted + "s3_addressing = host").contains("dot in its name"))
    #expect(problem(environment: keys, file: dotted).isEmpty)
    for given in [
        "s3_endpoint = https://x", "s3_region = r", "s3_addressing = path", "s3_credentials_file = /c",
        "s3_authorities = /a",
    ] {
        #expect(problem(file: given).contains("nothing would use it"), "\(given)")
    }
    #expect(problem(file: "s3_addressing = sideways").contains("host, path, or auto"))
    #expect(problem(file: "snapshot_store = s3://Bucket").contains("s3://BUCKET/PREFIX"))

    // The store's settings alone, for tools; what is a server's is not looked at.
    let tools = try ConfigurationLoader.loadStoreSettings(
        flags: [("s3_region", "flag"), ("s3_endpoint", nil)],
        environment: [
            "CISTERN_S3_REGION": "environment", "CISTERN_S3_ENDPOINT": "https://minio", "CISTERN_DATA": "/d",
            "AWS_DEFAULT_REGION": "other",
        ].merging(keys) { first, _ in first })
    #expect(tools.s3.region == "flag" && tools.s3.endpoint == "https://minio" && tools.s3.environmentRegion == "other")
    #expect(!"\(tools)".contains("\"secret"))
    #expect(throws: ConfigurationError.self) {
        try ConfigurationLoader.loadStoreSettings(flags: [], environment: ["CISTERN_S3_ADDRESSING": "x"])
    }
}

@Test func combinationsThatCannotWorkAreRefused() {
    #expect(problem(flags: []).contains("no data directory"))
    #expect(problem(file: "frame_bytes_max = 64MiB\nconnection_bytes_max = 32MiB").contains("could never be sent"))
    #expect(problem(file: "block_bytes = 64KiB\nblock_cache_bytes = 1MiB").contains("fewer than 64 blocks"))
    #expect(problem(file: "block_bytes = 64KiB\nmemtable_bytes = 64KiB").contains("16 blocks"))
    #expect(problem(file: "memory_bytes = 300MiB").contains("two memtable_bytes"))
    #expect(problem(file: "memory_bytes = 384MiB").isEmpty)
    #expect(problem(file: "listen = 0.0.0.0:7070").contains("allow_remote"))
    #expect(problem(file: "listen = 0.0.0.0:7070\nallow_remote = true").isEmpty)
    let tls = "tls_certificate = /c.pem\ntls_key = /k.pem"
    #expect(problem(file: "listen = 0.0.0.0:7070\n\(tls)").contains("tokens_file or tls_client_authorities"))
    #expect(problem(file: "listen = 0.0.0.0:7070\ntokens_file = /t").contains("no encryption"))
    #expect(problem(file: "listen = 0.0.0.0:7070\n\(tls)\ntokens_file = /t").isEmpty)
    #expect(problem(file: "listen = 0.0.0.0:7070\n\(tls)\ntls_client_authorities = /a.pem").isEmpty)
    #expect(problem(file: "admin = 10.0.0.1:7071\n\(tls)\ntokens_file = /t").isEmpty)
    #expect(problem(file: "tls_certificate = /c.pem").contains("needs both"))
    #expect(problem(file: "tls_key = /k.pem").contains("needs both"))
    #expect(problem(file: "tls_client_authorities = /a.pem").contains("over TLS only"))
    #expect(problem(file: "listen = 127.0.0.1:1, 127.0.0.1:1").contains("twice"))
    #expect(problem(file: "listen = 127.0.0.1:0, 127.0.0.1:0").isEmpty)
    #expect(problem(file: "listen = somewhere").contains("HOST:PORT"))
    #expect(problem(file: "admin = somewhere").contains("HOST:PORT"))
    #expect(problem(file: "admin = 10.0.0.1:7071").contains("allow_remote"))
    #expect(problem(file: "admin = 10.0.0.1:7071\nallow_remote = true").isEmpty)
    #expect(problem(file: "listen = 127.0.0.1:7\nadmin = 127.0.0.1:7").contains("of its own"))
}

@Test func listenMayBeRepeated() throws {
    let file = "listen = 127.0.0.1:7071\nlisten = unix:/run/a.sock, [::1]:9\ndata = /d"
    #expect(try load(flags: [], file: file).listen == ["127.0.0.1:7071", "unix:/run/a.sock", "[::1]:9"])
    let flags = [(key: "listen", values: ["127.0.0.1:1", "unix:/b"])]
    #expect(try load(flags: flags, file: file).listen == ["127.0.0.1:1", "unix:/b"])
}

@Test func listenAddressesAreUnderstood() {
    #expect(ListenAddress("127.0.0.1:80") == .tcp(host: "127.0.0.1", port: 80))
    #expect(ListenAddress("[::1]:80") == .tcp(host: "::1", port: 80))
    #expect(ListenAddress("unix:/a/b") == .unix(path: "/a/b"))
    for bad in ["", "80", "host", ":80", "host:99999", "::1:80", "unix:relative", "host:-1"] {
        #expect(ListenAddress(bad) == nil, "\(bad)")
    }
    #expect(ListenAddress("unix:/" + String(repeating: "a", count: 107)) == nil)
    for local in ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:/x"] {
        #expect(ListenAddress(local)!.isLocal, "\(local)")
    }
    for remote in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "example.org:1", "127.evil.org:1", "127.0.0.1.nip.io:1"] {
        #expect(!ListenAddress(remote)!.isLocal, "\(remote)")
    }
}

@Test func everyOptionReadsItsOwnDefault() {
    for option in ServerOption.all where option.key != "data" {
        var configuration = ServerConfiguration()
        #expect(option.apply(&configuration, option.text(configuration)), "\(option.key)")
        #expect(configuration == ServerConfiguration(), "\(option.key)")
    }
}

@Test func documentationHoldsTheTableOfOptions() throws {
    let path = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../docs/configuration.md")
    let text = try String(contentsOf: path.standardized, encoding: .utf8)
    #expect(
        text.contains(ServerOption.markdownTable),
        "put this table into docs/configuration.md:\n\(ServerOption.markdownTable)")
}
