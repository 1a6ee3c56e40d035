// The tokens of a server as its file lists them, a line each:
//
//    NAME  sha256:HEX  SCOPE[,SCOPE…]        # comment
//
//    SCOPE   admin  |  read:PATTERN  |  write:PATTERN     write includes read; a pattern is a store or its beginning and `*`
//
// Only hashes of tokens are kept, so the file tells nobody a token; tokens are random, which is why one round of SHA-256 is enough.

package struct TokenListError: Error, Equatable, Sendable, CustomStringConvertible {
    package let line: Int
    package let description: String

    init(_ line: Int, _ problem: String) {
        self.line = line
        description = "line \(line): \(problem)"
    }
}

package struct TokenList: Equatable, Sendable {
    package static let fileBytesMax = 1 << 20
    package static let tokensMax = 10_000
    package static let nameBytesMax = 128
    package static let hashBytes = 32
    static let hashPrefix = "sha256:"

    private let grants: [[UInt8]: AccessGrant]

    package var count: Int { grants.count }

    package init(parsing text: String) throws(TokenListError) {
        var grants: [[UInt8]: AccessGrant] = [:]
        var names: Set<String> = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.prefix { $0 != "#" }.split { $0 == " " || $0 == "\t" || $0 == "\r" }.map(String.init)
            if words.isEmpty { continue }
            let number = index + 1
            guard words.count == 3 else {
                throw TokenListError(
                    number, "\(words.count) words; a token has three: NAME sha256:HEX SCOPES (scopes without spaces)")
            }
            guard words[0].utf8.count <= TokenList.nameBytesMax else {
                throw TokenListError(
                    number, "a name of \(words[0].utf8.count) bytes; \(TokenList.nameBytesMax) are allowed")
            }
            guard names.insert(words[0]).inserted else {
                throw TokenListError(number, "the name \(words[0]) is there already; give each token one of its own")
            }
            guard let hash = TokenList.hash(words[1]) else {
                throw TokenListError(
                    number,
                    "\"\(words[1].prefix(80))\" is not \(TokenList.hashPrefix) and 64 hexadecimal digits; "
                        + "`cistern token` makes them")
            }
            guard grants[hash] == nil else { throw TokenListError(number, "the same token is there already") }
            grants[hash] = try TokenList.grant(words[0], words[2], number)
            guard grants.count <= TokenList.tokensMax else {
                throw TokenListError(number, "more than \(TokenList.tokensMax) tokens")
            }
        }
        self.grants = grants
    }

    private static func grant(_ name: String, _ scopes: String, _ line: Int) throws(TokenListError) -> AccessGrant {
        var found: [AccessGrant.Scope] = []
        var isAdmin = false
        for scope in scopes.split(separator: ",", omittingEmptySubsequences: false) {
            if scope == "admin" {
                isAdmin = true
                continue
            }
            guard let colon = scope.firstIndex(of: ":") else {
                throw TokenListError(line, "\"\(scope)\" is no scope; write admin, read:PATTERN or write:PATTERN")
            }
            let pattern = String(scope[scope.index(after: colon)...])
            let rights: AccessGrant.Rights
            switch scope[..<colon] {
            case "read": rights = .read
            case "write": rights = [.read, .write]
            default: throw TokenListError(line, "\"\(scope[..<colon])\" is no right; there are read, write and admin")
            }
            guard !pattern.isEmpty, !pattern.dropLast().contains("*") else {
                throw TokenListError(
                    line, "\"\(pattern)\" is no pattern; write a store's name, or the beginning of names and *")
            }
            found.append(AccessGrant.Scope(pattern: pattern, rights: rights))
        }
        return AccessGrant(name: name, scopes: found, isAdmin: isAdmin)
    }

    private static func hash(_ text: String) -> [UInt8]? {
        guard text.hasPrefix(hashPrefix) else { return nil }
        let digits = Array(text.utf8.dropFirst(hashPrefix.utf8.count))
        guard digits.count == hashBytes * 2 else { return nil }
        var bytes: [UInt8] = []
        for pair in stride(from: 0, to: digits.count, by: 2) {
            guard let high = digit(digits[pair]), let low = digit(digits[pair + 1]) else { return nil }
            bytes.append(high << 4 | low)
        }
        return bytes
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    /// The line of a token.
    package static func line(name: String, hash: [UInt8], scopes: String) -> String {
        let digits = Array("0123456789abcdef")
        let hex = hash.map { "\(digits[Int($0 >> 4)])\(digits[Int($0 & 15)])" }.joined()
        return "\(name) \(hashPrefix)\(hex) \(scopes)"
    }

    /// What the token with this hash may do; nil when there is none. A look-up by hash tells by its time nothing about tokens: who
    /// does not know one cannot choose its hash.
    package func grant(hash: [UInt8]) -> AccessGrant? { grants[hash] }
}
