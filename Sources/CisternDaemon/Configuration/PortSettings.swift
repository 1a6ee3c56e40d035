// What ports a daemon opens and how they are protected: the settings that all daemons have, and which combinations cannot work.

package protocol PortSettings: Sendable {
    /// `HOST:PORT` or `unix:/PATH`; port 0 takes a free one.
    var listen: [String] { get set }
    var allowRemote: Bool { get set }
    /// Empty: no admin port. Else as an address of `listen`.
    var admin: String { get set }
    /// PEM files; empty: nothing is encrypted.
    var tlsCertificate: String { get set }
    var tlsKey: String { get set }
    /// PEM file of who may sign certificates of clients; empty: clients need none.
    var tlsClientAuthorities: String { get set }
    /// Empty: everybody who can connect may do everything.
    var tokensFile: String { get set }
}

extension ConfigurationOption where Configuration: PortSettings {
    /// - Parameter adminHas: what the admin port is for.
    package static func ports(adminHas: String) -> [ConfigurationOption] {
        [
            .addresses(
                "listen", \.listen,
                "where to listen: HOST:PORT (port 0 = a free one) or unix:/PATH; may be given several times"),
            .path(
                "tls_certificate", \.tlsCertificate,
                "PEM file of the server's certificate and those between it and its authority; read again every minute"),
            .path(
                "tls_key", \.tlsKey,
                "PEM file of the certificate's private key, without a passphrase"),
            .path(
                "tls_client_authorities", \.tlsClientAuthorities,
                "PEM file of who may sign certificates of clients; when it is given, clients must have one"),
            .path(
                "tokens_file", \.tokensFile,
                "who may do what: a line a token, made with `cistern token`; read again every 10 s"),
            ConfigurationOption(
                key: "allow_remote", kind: .boolean,
                summary:
                    "listen on addresses that other machines reach without encryption, or without tokens and client certificates",
                text: { "\($0.allowRemote)" },
                apply: { configuration, text in
                    guard let value = Bool(text) else { return false }
                    configuration.allowRemote = value
                    return true
                }),
            .string(
                "admin", .address, \.admin,
                "where \(adminHas) are: HOST:PORT or unix:/PATH; empty for nowhere",
                isValid: { _ in true }),
        ]
    }
}

extension PortSettings {
    /// Why the ports cannot be opened like this, or nil.
    package func portsProblem() -> String? { securityProblem() ?? listenProblem() ?? adminProblem() }

    private func securityProblem() -> String? {
        if tlsCertificate.isEmpty != tlsKey.isEmpty {
            let (given, missing) = tlsKey.isEmpty ? ("tls_certificate", "tls_key") : ("tls_key", "tls_certificate")
            return "\(given) is given and \(missing) is not: a server needs both"
        }
        if !tlsClientAuthorities.isEmpty && tlsCertificate.isEmpty {
            return
                "tls_client_authorities is given without tls_certificate and tls_key: clients show certificates over TLS only"
        }
        return nil
    }

    /// Why an address that other machines reach is not protected, or nil. Encryption alone lets everybody in, and a token alone is
    /// read by everybody on the way.
    private func exposureProblem(_ setting: String, _ address: ListenAddress, _ text: String) -> String? {
        if address.isLocal || allowRemote { return nil }
        if tlsCertificate.isEmpty {
            return
                "\(setting) \"\(text)\" can be reached from other machines and there is no encryption: give tls_certificate and "
                + "tls_key, listen on 127.0.0.1, [::1] or a Unix socket, or set allow_remote = true if the network is trusted"
        }
        if tokensFile.isEmpty && tlsClientAuthorities.isEmpty {
            return
                "\(setting) \"\(text)\" can be reached from other machines and everybody there may do everything: give "
                + "tokens_file or tls_client_authorities, or set allow_remote = true if the network is trusted"
        }
        return nil
    }

    private func listenProblem() -> String? {
        if listen.isEmpty { return "listen is empty: give at least one HOST:PORT or unix:/PATH" }
        var seen: Set<String> = []
        for text in listen {
            guard let address = ListenAddress(text) else {
                return "listen \"\(text)\" is neither HOST:PORT nor unix:/PATH (a path of at most "
                    + "\(ListenAddress.unixPathBytesMax) bytes)"
            }
            if !address.takesFreePort && !seen.insert(text).inserted { return "listen names \"\(text)\" twice" }
            if let problem = exposureProblem("listen", address, text) { return problem }
        }
        return nil
    }

    private func adminProblem() -> String? {
        if admin.isEmpty { return nil }
        guard let address = ListenAddress(admin) else {
            return "admin \"\(admin)\" is neither HOST:PORT nor unix:/PATH (a path of at most "
                + "\(ListenAddress.unixPathBytesMax) bytes)"
        }
        if !address.takesFreePort && listen.contains(admin) {
            return "admin and listen both name \"\(admin)\": give the admin port an address of its own"
        }
        return exposureProblem("admin", address, admin)
    }
}
