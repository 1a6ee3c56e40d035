// Where the metadata of log nodes is: the settings of every daemon that asks it, and which combinations cannot work.

internal import CisternMetadata
package import CisternMetadataEtcd
internal import CisternTransport

package protocol MetadataSettings: Sendable {
    /// Members of the etcd cluster, `HOST:PORT`.
    var etcd: [String] { get set }
    /// PEM files; empty: etcd is spoken to without TLS.
    var etcdAuthorities: String { get set }
    var etcdCertificate: String { get set }
    var etcdKey: String { get set }
    /// Which cluster in it.
    var cluster: String { get set }
}

extension ConfigurationOption where Configuration: MetadataSettings {
    /// - Parameters:
    ///   - mustBeGiven: the daemon does nothing without metadata.
    ///   - summary: of the members.
    package static func metadata(mustBeGiven: Bool, _ summary: String) -> [ConfigurationOption] {
        [
            ConfigurationOption(
                key: "etcd", kind: .addresses, summary: summary,
                text: { $0.etcd.joined(separator: ", ") },
                apply: { configuration, text in
                    configuration.etcd = commaSeparated(text)
                    return !mustBeGiven || !configuration.etcd.isEmpty
                }),
            .path(
                "etcd_authorities", \.etcdAuthorities,
                "PEM file of who may sign etcd's certificates; when it is given, etcd is spoken to over TLS"),
            .path("etcd_certificate", \.etcdCertificate, "PEM file of the certificate that is shown to etcd"),
            .path("etcd_key", \.etcdKey, "PEM file of its private key"),
            .string(
                "cluster", .text, \.cluster,
                "which cluster of log nodes in etcd: 1 to 64 letters, digits, -, _ and .; keys begin with cistern/ and this",
                isValid: { MetadataKeys.isClusterName($0) }),
        ]
    }
}

extension MetadataSettings {
    /// Why etcd cannot be asked like this, or nil.
    package func metadataProblem() -> String? {
        for text in etcd {
            guard case .tcp(_, let port)? = ListenAddress(text), port > 0 else {
                return "etcd \"\(text)\" is not HOST:PORT"
            }
        }
        if etcdCertificate.isEmpty != etcdKey.isEmpty {
            let (given, missing) =
                etcdKey.isEmpty ? ("etcd_certificate", "etcd_key") : ("etcd_key", "etcd_certificate")
            return "\(given) is given and \(missing) is not: etcd asks for both"
        }
        if !etcdCertificate.isEmpty && etcdAuthorities.isEmpty {
            return "etcd_certificate is given without etcd_authorities: certificates are shown over TLS only"
        }
        return nil
    }

    /// How etcd is asked. Reads files: blocks.
    /// - Precondition: at least one member, and `metadataProblem()` is nil.
    package func etcdOptions() throws(ServerStartError) -> EtcdOptions {
        var options = EtcdOptions(endpoints: etcd.compactMap { Endpoint($0) })
        if etcdAuthorities.isEmpty { return options }
        do throws(TLSError) {
            options.tls = try ClientTLS(
                trustedCertificates: etcdAuthorities, certificate: etcdCertificate.isEmpty ? nil : etcdCertificate,
                key: etcdKey.isEmpty ? nil : etcdKey, serverName: nil)
            return options
        } catch {
            throw ServerStartError(description: "TLS to etcd: \(error)")
        }
    }
}
