// Where a server listens and a client connects: `HOST:PORT`, `[IPV6]:PORT` or `unix:/path`.

package enum Endpoint: Hashable, Sendable, CustomStringConvertible {
    case tcp(host: String, port: Int)
    case unix(path: String)

    /// `sun_path` of Linux, with its final zero byte.
    private static let unixPathBytesMax = 107

    /// nil when the text is none of the three forms. Port 0 asks the system for a free one.
    package init?(_ text: String) {
        let unixPrefix = "unix:"
        if text.hasPrefix(unixPrefix) {
            let path = String(text.dropFirst(unixPrefix.count))
            guard !path.isEmpty, path.utf8.count <= Endpoint.unixPathBytesMax else { return nil }
            self = .unix(path: path)
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65_535).contains(port)
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("[") && host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty else { return nil }
        self = .tcp(host: host, port: port)
    }

    /// Only processes of this machine can connect to it.
    package var isLocal: Bool {
        switch self {
        case .unix: true
        case .tcp(let host, _): Endpoint.isLoopback(host)
        }
    }

    package static func isLoopback(_ host: String) -> Bool {
        host == "localhost" || host == "::1" || (octets(host) != nil && host.hasPrefix("127."))
    }

    /// True for an address, false for a name.
    static func isAddress(_ host: String) -> Bool { host.contains(":") || octets(host) != nil }

    private static func octets(_ host: String) -> [UInt8]? {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        let octets = parts.compactMap { $0 }
        return parts.count == 4 && octets.count == 4 ? octets : nil
    }

    package var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}
