// What an S3 store is made with, and its limits.

package struct S3Options: Sendable {
    package var location: S3Location
    package var endpoint: S3Endpoint
    package var region: String
    /// The bucket is a part of the host's name, not of the path.
    package var isHostStyle: Bool
    /// PEM file of who may sign the endpoint's certificate; empty: the system's authorities.
    package var authorities = ""
    package var limits = S3Limits()

    package init(location: S3Location, endpoint: S3Endpoint, region: String, isHostStyle: Bool) {
        self.location = location
        self.endpoint = endpoint
        self.region = region
        self.isHostStyle = isHostStyle
    }

    /// What a request is sent to: the `host` header, and the path as it is sent and signed.
    /// - Parameter key: of an object; nil: the bucket itself.
    package func target(_ key: String?) -> (authority: String, path: String) {
        let encoded = key.map { S3Encoding.percent($0, keepingSlashes: true) }
        if isHostStyle { return (endpoint.authority("\(location.bucket).\(endpoint.host)"), "/" + (encoded ?? "")) }
        return (endpoint.authority(endpoint.host), "/\(location.bucket)" + (encoded.map { "/" + $0 } ?? ""))
    }
}

package struct S3Limits: Sendable {
    /// Objects up to this go up in one request, larger ones in parts of it; nothing is read in larger pieces. S3 wants parts of 5 MiB
    /// or more, 10,000 at most.
    package var partBytes = 16 << 20
    /// An object's.
    package static let partsMax = 10_000
    package var attemptsMax = 6
    package var connectMilliseconds: Int64 = 5_000
    /// Without a byte that moves.
    package var idleMilliseconds: Int64 = 20_000
    /// Of one attempt, whole.
    package var attemptMilliseconds: Int64 = 180_000
    package var backoffFirstMilliseconds: UInt64 = 100
    package var backoffLastMilliseconds: UInt64 = 5_000
    /// Requests of one call under way at once.
    package static let requestsMax = 8
    /// Of an XML answer: a page of 1,000 of the longest names takes half of it.
    package static let answerBytesMax = 4 << 20
    /// Of a listing: 100 million objects.
    package static let pagesMax = 100_000

    package init() {}

    /// How long to wait before an attempt, counted from 1 for the first one that is a repetition: twice as long each time, and a random
    /// half of it off, so that many who failed together do not come back together.
    /// - Parameter asked: by the server; taken up to the longest wait.
    package func backoffMilliseconds(
        before attempt: Int, asked: UInt64, using random: inout some RandomNumberGenerator
    ) -> UInt64 {
        let doubled = backoffFirstMilliseconds << UInt64(min(max(attempt, 1) - 1, 20))
        let whole = min(max(doubled, asked), backoffLastMilliseconds)
        return whole - UInt64.random(in: 0...(whole / 2), using: &random)
    }
}
