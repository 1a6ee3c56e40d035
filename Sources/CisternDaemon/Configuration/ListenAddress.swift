// An address that a daemon listens on.

internal import CisternTransport

package enum ListenAddress: Equatable, Sendable {
    case tcp(host: String, port: Int)
    case unix(path: String)

    /// `sun_path` has 108 bytes with its terminator.
    package static let unixPathBytesMax = 107

    package init?(_ text: String) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            guard path.hasPrefix("/"), path.utf8.count <= ListenAddress.unixPathBytesMax else { return nil }
            self = .unix(path: path)
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65_535).contains(port)
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty else { return nil }
        self = .tcp(host: host, port: port)
    }

    package var takesFreePort: Bool {
        if case .tcp(_, 0) = self { return true }
        return false
    }

    /// Only processes of this machine can connect.
    package var isLocal: Bool {
        switch self {
        case .unix: true
        case .tcp(let host, _): Endpoint.isLoopback(host)
        }
    }
}
