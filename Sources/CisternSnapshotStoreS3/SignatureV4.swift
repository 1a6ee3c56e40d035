// AWS Signature Version 4 in the Authorization header: what proves to an S3 server who asks. Pure: values in, headers out.
//
//   canonical request = METHOD \n path \n query \n headers \n names of headers \n hash of the payload
//   string to sign    = AWS4-HMAC-SHA256 \n time \n date/region/s3/aws4_request \n hash of the canonical request
//   key               = HMAC(HMAC(HMAC(HMAC("AWS4" + secret, date), region), "s3"), "aws4_request")
//
// Payloads are always hashed, over TLS as well: the server compares the hash with what it has received, so what it keeps is what was sent.

internal import Crypto

package struct SignatureV4: Sendable {
    package let credentials: S3Credentials
    package let region: String

    private static let algorithm = "AWS4-HMAC-SHA256"
    private static let terminator = "aws4_request"
    private static let service = "s3"

    package init(credentials: S3Credentials, region: String) {
        self.credentials = credentials
        self.region = region
    }

    /// What is signed of a request.
    package struct Message: Sendable {
        package var method: String
        /// As it is sent: percent-encoded, from `/` on.
        package var path: String
        /// As it is sent and in the order of `S3Encoding.query`.
        package var query: String
        /// `host` among them; names in lower case.
        package var headers: [(name: String, value: String)]
        /// `payloadHash` of the body.
        package var payloadHash: String

        package init(
            method: String, path: String, query: String, headers: [(name: String, value: String)], payloadHash: String
        ) {
            self.method = method
            self.path = path
            self.query = query
            self.headers = headers
            self.payloadHash = payloadHash
        }
    }

    /// All headers of the request: those of the message, and the ones that prove it.
    package func sign(_ message: Message, at time: S3Time) -> [(name: String, value: String)] {
        var headers = message.headers
        headers.append(("x-amz-content-sha256", message.payloadHash))
        headers.append(("x-amz-date", time.basic))
        if !credentials.sessionToken.isEmpty { headers.append(("x-amz-security-token", credentials.sessionToken)) }
        headers.sort { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        let names = headers.map(\.name).joined(separator: ";")
        let canonical =
            "\(message.method)\n\(message.path)\n\(message.query)\n"
            + headers.map { "\($0.name):\(SignatureV4.collapsed($0.value))\n" }.joined()
            + "\n\(names)\n\(message.payloadHash)"
        let scope = "\(time.date)/\(region)/\(SignatureV4.service)/\(SignatureV4.terminator)"
        let toSign = "\(SignatureV4.algorithm)\n\(time.basic)\n\(scope)\n" + S3Encoding.hash(Array(canonical.utf8))
        let signature = S3Encoding.hexadecimal(SignatureV4.code(toSign, key: signingKey(time.date)))
        headers.append(
            (
                "authorization",
                "\(SignatureV4.algorithm) Credential=\(credentials.accessKeyID)/\(scope),"
                    + "SignedHeaders=\(names),Signature=\(signature)"
            ))
        return headers
    }

    private func signingKey(_ date: String) -> SymmetricKey {
        var key = SymmetricKey(data: Array("AWS4\(credentials.secretAccessKey)".utf8))
        for part in [date, region, SignatureV4.service, SignatureV4.terminator] {
            key = SymmetricKey(data: SignatureV4.code(part, key: key))
        }
        return key
    }

    private static func code(_ text: String, key: SymmetricKey) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: key))
    }

    /// Without spaces at the ends, and one where there were several.
    private static func collapsed(_ value: String) -> String {
        value.split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
    }
}

/// A moment as signatures have it: UTC, to the second.
package struct S3Time: Equatable, Sendable {
    /// `20261127T093000Z`
    package let basic: String
    /// `20261127`
    package var date: String { String(basic.prefix(8)) }

    package init(wallMilliseconds: UInt64) {
        let seconds = wallMilliseconds / 1000
        let (year, month, day) = S3Time.civil(days: seconds / 86_400)
        let rest = seconds % 86_400
        basic =
            S3Time.padded(year, 4) + S3Time.padded(month, 2) + S3Time.padded(day, 2) + "T"
            + S3Time.padded(rest / 3600, 2) + S3Time.padded(rest / 60 % 60, 2) + S3Time.padded(rest % 60, 2) + "Z"
    }

    /// The Gregorian date of a day counted from 1970-01-01, by eras of 400 years that begin in March.
    private static func civil(days: UInt64) -> (year: UInt64, month: UInt64, day: UInt64) {
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * monthFromMarch + 2) / 5 + 1)
    }

    private static func padded(_ number: UInt64, _ digits: Int) -> String {
        let text = String(number)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}

package enum S3Encoding {
    /// Bytes of a path or query: `A–Z a–z 0–9 - _ . ~` stand for themselves, `/` in paths, others are `%XX`.
    package static func percent(_ text: String, keepingSlashes: Bool) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
                UInt8(ascii: "~"):
                bytes.append(byte)
            case UInt8(ascii: "/") where keepingSlashes: bytes.append(byte)
            default: bytes += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Encoded and in the order that signatures need.
    package static func query(_ parameters: [(name: String, value: String)]) -> String {
        parameters.map { (percent($0.name, keepingSlashes: false), percent($0.value, keepingSlashes: false)) }
            .sorted { left, right in
                left.0 == right.0
                    ? left.1.utf8.lexicographicallyPrecedes(right.1.utf8)
                    : left.0.utf8.lexicographicallyPrecedes(right.0.utf8)
            }
            .map { "\($0.0)=\($0.1)" }.joined(separator: "&")
    }

    /// SHA-256 in hexadecimal, as `x-amz-content-sha256` has it.
    package static func hash(_ bytes: [UInt8]) -> String { hexadecimal(SHA256.hash(data: bytes)) }

    package static let hashOfNothing = hash([])

    static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
