// What an operator says about S3, as texts, and whether it can work. The bucket is in the store's address.

package import CisternFileSystem
package import CisternPrimitives

package struct S3Settings: Equatable, Sendable {
    /// Empty: AWS in the region.
    package var endpoint = ""
    /// Empty: what the environment says; with an endpoint `regionOfOthers`.
    package var region = ""
    package var addressing = S3Addressing.auto
    /// Empty: the environment has the credentials.
    package var credentialsFile = ""
    package var authorities = ""
    package var environmentRegion = ""
    package var environmentCredentials: S3Credentials?

    /// What servers take that have no regions.
    package static let regionOfOthers = "us-east-1"

    package init() {}

    /// Takes what AWS tools take: credentials, `AWS_REGION`, `AWS_DEFAULT_REGION`.
    package mutating func take(environment: [String: String]) {
        environmentCredentials = S3Credentials(environment: environment)
        environmentRegion =
            [environment["AWS_REGION"], environment["AWS_DEFAULT_REGION"]].lazy
            .compactMap(\.self).first { !$0.isEmpty } ?? ""
    }

    /// The first setting that was given, the environment's apart.
    package var firstGiven: String? {
        if !endpoint.isEmpty { return "s3_endpoint" }
        if !region.isEmpty { return "s3_region" }
        if addressing != .auto { return "s3_addressing" }
        if !credentialsFile.isEmpty { return "s3_credentials_file" }
        return authorities.isEmpty ? nil : "s3_authorities"
    }

    /// Why a store there cannot work, or nil.
    /// - Parameter mayBePlain: requests may go to other machines without encryption.
    package func problem(_ location: S3Location, mayBePlain: Bool) -> String? {
        guard endpoint.isEmpty || S3Endpoint(endpoint) != nil else {
            return "s3_endpoint \"\(endpoint)\" is neither https://HOST[:PORT] nor http://HOST[:PORT]"
        }
        if let problem = endpointProblem(mayBePlain: mayBePlain) { return problem }
        guard let options = options(location) else {
            return
                "\(location) is in AWS and no region is given: set s3_region or AWS_REGION, or s3_endpoint for another server"
        }
        if !S3Settings.isRegion(options.region) {
            return "s3_region \"\(options.region)\" is not a name such as eu-central-1: 1 to 64 bytes of a-z A-Z 0-9 -"
        }
        if options.isHostStyle, options.endpoint.isAddress {
            return
                "s3_addressing is host and s3_endpoint \"\(endpoint)\" is an address, which has no names in front: set it to path"
        }
        if options.isHostStyle, options.endpoint.isEncrypted, location.bucket.contains(".") {
            return
                "the bucket \(location.bucket) has a dot in its name, so no certificate is for its host: set s3_addressing to path"
        }
        if credentialsFile.isEmpty, environmentCredentials == nil {
            return
                "\(location) needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or s3_credentials_file"
        }
        return nil
    }

    private func endpointProblem(mayBePlain: Bool) -> String? {
        guard let given = S3Endpoint(endpoint) else { return nil }
        if !given.isEncrypted, !given.isLocal, !mayBePlain {
            return
                "s3_endpoint \"\(endpoint)\" is another machine and there is no encryption: give https://, or set "
                + "allow_remote = true if the network is trusted"
        }
        if !given.isEncrypted, !authorities.isEmpty {
            return
                "s3_authorities is given and s3_endpoint \"\(endpoint)\" is not https://: there are no certificates to check"
        }
        return nil
    }

    /// nil when something is missing, as `problem` says.
    package func options(_ location: S3Location) -> S3Options? {
        let known = region.isEmpty ? environmentRegion : region
        let place: (endpoint: S3Endpoint, region: String)
        if endpoint.isEmpty {
            guard !known.isEmpty else { return nil }
            place = (S3Endpoint(region: known), known)
        } else {
            guard let given = S3Endpoint(endpoint) else { return nil }
            place = (given, known.isEmpty ? S3Settings.regionOfOthers : known)
        }
        var options = S3Options(
            location: location, endpoint: place.endpoint, region: place.region,
            isHostStyle: addressing == .host
                || addressing == .auto && endpoint.isEmpty && !location.bucket.contains("."))
        options.authorities = authorities
        return options
    }

    /// nil without credentials.
    package func credentials(_ fileSystem: any FileSystem, _ time: any TimeSource) -> S3CredentialSource? {
        if !credentialsFile.isEmpty {
            return S3CredentialSource(file: credentialsFile, fileSystem: fileSystem, time: time)
        }
        return environmentCredentials.map { S3CredentialSource($0) }
    }

    private static func isRegion(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }
}
