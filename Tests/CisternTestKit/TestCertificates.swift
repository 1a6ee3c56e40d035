// The files of Tests/Certificates.

/// What `Tests/Certificates/make.sh` made: `authority` signed `server`, `expired`, `elsewhere` (for another name) and `client`;
/// `stranger` signed `impostor`.
package enum TestCertificates {
    package static func certificate(_ name: String) -> String { directory + "/\(name).pem" }
    package static func key(_ name: String) -> String { directory + "/\(name)-key.pem" }

    private static let directory: String = {
        let file = #filePath
        let tests = file.split(separator: "/").dropLast(2).joined(separator: "/")
        return "/\(tests)/Certificates"
    }()
}
