// Which bucket, where in it, at which server, and how requests name the bucket.

internal import CisternSnapshotStore

/// `s3://BUCKET` or `s3://BUCKET/PREFIX`.
package struct S3Location: Equatable, Sendable, CustomStringConvertible {
    package let bucket: String
    /// What names of objects begin with, without `/` at its end; empty: nothing.
    package let prefix: String

    /// Keys have 1024 bytes at most.
    package static let prefixBytesMax = 1023 - StoreName.bytesMax
    package static let scheme = "s3://"

    /// nil when it is none.
    package init?(_ text: String) {
        guard text.hasPrefix(S3Location.scheme) else { return nil }
        let rest = text.dropFirst(S3Location.scheme.count)
        let slash = rest.firstIndex(of: "/")
        bucket = String(rest[..<(slash ?? rest.endIndex)])
        prefix = slash.map { String(rest[rest.index(after: $0)...]) } ?? ""
        guard S3Location.isBucket(bucket), slash == nil || StoreName.isValid(prefix),
            prefix.utf8.count <= S3Location.prefixBytesMax
        else { return nil }
    }

    package var description: String { S3Location.scheme + bucket + (prefix.isEmpty ? "" : "/" + prefix) }

    func key(_ name: String) -> String { prefix.isEmpty ? name : "\(prefix)/\(name)" }

    /// The object's name of a key; nil for a key that is not below the prefix.
    func name(ofKey key: String) -> String? {
        if prefix.isEmpty { return key }
        return key.hasPrefix(prefix + "/") ? String(key.dropFirst(prefix.count + 1)) : nil
    }

    private static func isBucket(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        func isEnd(_ byte: UInt8?) -> Bool { byte.map { isLetterOrDigit($0) } == true }
        return (3...63).contains(bytes.count) && isEnd(bytes.first) && isEnd(bytes.last) && !text.contains("..")
            && bytes.allSatisfy { isLetterOrDigit($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") }
    }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
}

/// `https://HOST[:PORT]` or `http://HOST[:PORT]`.
package struct S3Endpoint: Equatable, Sendable, CustomStringConvertible {
    package let isEncrypted: Bool
    /// A name, an IPv4 address or an IPv6 address in brackets.
    package let host: String
    /// nil: the scheme's.
    package let port: Int?

    /// nil when it is none.
    package init?(_ text: String) {
        if text.hasPrefix("https://") {
            isEncrypted = true
        } else if text.hasPrefix("http://") {
            isEncrypted = false
        } else {
            return nil
        }
        var rest = text.dropFirst(isEncrypted ? 8 : 7)
        if rest.hasSuffix("/") { rest.removeLast() }
        var digits: Substring?
        if let colon = rest.lastIndex(of: ":"), !rest.hasSuffix("]") {
            digits = rest[rest.index(after: colon)...]
            rest = rest[..<colon]
        }
        let number = digits.flatMap { Int($0) }
        guard digits == nil || number.map({ (1...65_535).contains($0) }) == true, S3Endpoint.isHost(rest) else {
            return nil
        }
        host = String(rest)
        // The standard port is not in the `host` header, and so not in signatures.
        port = number == (isEncrypted ? 443 : 80) ? nil : number
    }

    /// AWS in a region.
    package init(region: String) {
        isEncrypted = true
        host = "s3.\(region).amazonaws.com" + (region.hasPrefix("cn-") ? ".cn" : "")
        port = nil
    }

    package var description: String { "\(isEncrypted ? "https" : "http")://\(authority(host))" }

    /// As in the `host` header.
    func authority(_ host: String) -> String { port.map { "\(host):\($0)" } ?? host }

    /// Only this machine is asked.
    package var isLocal: Bool { host == "localhost" || host == "[::1]" || isAddress && host.hasPrefix("127.") }

    /// An address, which no bucket's name can stand in front of.
    package var isAddress: Bool { host.hasPrefix("[") || host.allSatisfy { $0.isNumber || $0 == "." } }

    private static func isHost(_ text: Substring) -> Bool {
        if text.hasPrefix("["), text.hasSuffix("]") {
            return text.utf8.count > 4
                && text.dropFirst().dropLast().allSatisfy { $0.isHexDigit || $0 == ":" || $0 == "." }
        }
        return (1...253).contains(text.utf8.count) && !text.hasPrefix(".")
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }
}

/// Where the bucket's name stands in a request.
package enum S3Addressing: String, Equatable, Sendable, CaseIterable {
    /// In the path with an endpoint that was given, in the host with AWS.
    case auto
    case path
    case host
}
