import CisternTransport
import Testing

@Suite struct EndpointTests {
    @Test func theThreeFormsAreRead() {
        #expect(Endpoint("127.0.0.1:7070") == .tcp(host: "127.0.0.1", port: 7070))
        #expect(Endpoint("localhost:0") == .tcp(host: "localhost", port: 0))
        #expect(Endpoint("[::1]:7070") == .tcp(host: "::1", port: 7070))
        #expect(Endpoint("unix:/run/cistern.sock") == .unix(path: "/run/cistern.sock"))
    }

    @Test func otherTextsAreRefused() {
        for text in ["", "7070", ":7070", "host", "host:", "host:70000", "host:-1", "::1:7070", "unix:", "host:x"] {
            #expect(Endpoint(text) == nil, "\(text)")
        }
        #expect(Endpoint("unix:/" + String(repeating: "a", count: 107)) == nil)
    }

    @Test func descriptionsAreReadBack() {
        for endpoint: Endpoint in [.tcp(host: "h", port: 1), .tcp(host: "::1", port: 2), .unix(path: "/a b")] {
            #expect(Endpoint("\(endpoint)") == endpoint)
        }
    }
}
