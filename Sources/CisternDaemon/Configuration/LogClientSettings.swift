// How a daemon connects to log nodes whose ports are protected: the settings of state servers and of log nodes, which copy from each
// other.

internal import CisternFileSystem
package import CisternTransport

package protocol LogClientSettings: Sendable {
    /// PEM file of who may sign the log nodes' certificates; empty: nothing is encrypted.
    var logAuthorities: String { get set }
    /// PEM files of the certificate that is shown to them; empty: none.
    var logCertificate: String { get set }
    var logKey: String { get set }
    /// Empty: no token.
    var logTokenFile: String { get set }
}

/// A token is not longer.
private let tokenBytesMax = 4096

extension ConfigurationOption where Configuration: LogClientSettings {
    package static var logClient: [ConfigurationOption] {
        [
            .path(
                "log_authorities", \.logAuthorities,
                "PEM file of who may sign the certificates of log nodes; when it is given, they are spoken to over TLS"),
            .path("log_certificate", \.logCertificate, "PEM file of the certificate that is shown to log nodes"),
            .path("log_key", \.logKey, "PEM file of its private key"),
            .path(
                "log_token_file", \.logTokenFile,
                "file with the token that is shown to log nodes; it needs write:changelog; read at the start"),
        ]
    }
}

extension LogClientSettings {
    /// Why log nodes cannot be connected to like this, or nil.
    package func logClientProblem() -> String? {
        if logCertificate.isEmpty != logKey.isEmpty {
            let (given, missing) = logKey.isEmpty ? ("log_certificate", "log_key") : ("log_key", "log_certificate")
            return "\(given) is given and \(missing) is not: log nodes ask for both"
        }
        if logAuthorities.isEmpty && !(logCertificate.isEmpty && logTokenFile.isEmpty) {
            return
                "log_certificate or log_token_file is given without log_authorities: what they say is told over TLS only"
        }
        return nil
    }

    /// Puts the settings into the options of connections. Reads files: blocks.
    /// - Precondition: `logClientProblem()` is nil.
    package func protect(_ transport: inout ClientTransportOptions) throws(ServerStartError) {
        if !logAuthorities.isEmpty {
            do throws(TLSError) {
                transport.tls = try ClientTLS(
                    trustedCertificates: logAuthorities, certificate: logCertificate.isEmpty ? nil : logCertificate,
                    key: logKey.isEmpty ? nil : logKey, serverName: nil)
            } catch {
                throw ServerStartError(description: "TLS to log nodes: \(error)")
            }
        }
        if !logTokenFile.isEmpty {
            do throws(FileError) {
                let bytes = try PosixFileSystem().readAll(logTokenFile, limit: tokenBytesMax)
                transport.token = trimmed(String(decoding: bytes, as: UTF8.self))
            } catch {
                throw ServerStartError(description: "log_token_file: \(error); check that it is there and readable")
            }
        }
    }
}
