// PEM files and what is made of them: the context of a server, that follows its files, and the context of a client.

package import NIOSSL
internal import Synchronization

/// Why TLS cannot be set up: which file, what is wrong, what to do.
package struct TLSError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    init(_ description: String) { self.description = description }
}

package enum PEMFiles {
    static func certificates(_ path: String, _ what: String) throws(TLSError) -> [NIOSSLCertificate] {
        let certificates: [NIOSSLCertificate]
        do { certificates = try NIOSSLCertificate.fromPEMFile(path) } catch {
            throw TLSError("cannot read \(what) from \(path): \(error); give a PEM file with certificates")
        }
        if certificates.isEmpty { throw TLSError("\(what) \(path) has no certificate in it; give a PEM file with one") }
        return certificates
    }

    static func privateKey(_ path: String) throws(TLSError) -> NIOSSLPrivateKey {
        do { return try NIOSSLPrivateKey(file: path, format: .pem) } catch {
            throw TLSError(
                "cannot read the private key from \(path): \(error); give a PEM file with a key that has no passphrase")
        }
    }
}

/// A server's certificate, made anew when its files change. Any thread.
package final class ServerTLS: Sendable {
    package struct Files: Equatable, Sendable {
        package var certificate: String
        package var key: String
        /// Who may sign certificates of clients; nil: clients need none.
        package var clientAuthorities: String?

        package init(certificate: String, key: String, clientAuthorities: String? = nil) {
            self.certificate = certificate
            self.key = key
            self.clientAuthorities = clientAuthorities
        }
    }

    private struct State {
        var context: NIOSSLContext
        /// Of the files, to see changes.
        var configuration: TLSConfiguration
    }

    package let files: Files
    private let state: Mutex<State>

    package init(_ files: Files) throws(TLSError) {
        self.files = files
        let configuration = try ServerTLS.configuration(files)
        state = Mutex(State(context: try ServerTLS.context(configuration, files), configuration: configuration))
    }

    /// Reads the files again. Blocks. New connections get what they say; after an error, what they said before.
    /// - Returns: true when something was new.
    package func reload() throws(TLSError) -> Bool {
        let configuration = try ServerTLS.configuration(files)
        if state.withLock({ $0.configuration.bestEffortEquals(configuration) }) { return false }
        let context = try ServerTLS.context(configuration, files)
        state.withLock { $0 = State(context: context, configuration: configuration) }
        return true
    }

    /// For one connection, in front of everything else.
    package func makeHandler() -> NIOSSLServerHandler {
        NIOSSLServerHandler(context: state.withLock { $0.context })
    }

    private static func configuration(_ files: Files) throws(TLSError) -> TLSConfiguration {
        let chain = try PEMFiles.certificates(files.certificate, "the server's certificate")
        let key = try PEMFiles.privateKey(files.key)
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        if let path = files.clientAuthorities {
            configuration.trustRoots = .certificates(try PEMFiles.certificates(path, "the clients' authorities"))
            // A client has no name that could be checked.
            configuration.certificateVerification = .noHostnameVerification
        }
        return configuration
    }

    private static func context(_ configuration: TLSConfiguration, _ files: Files) throws(TLSError) -> NIOSSLContext {
        do { return try NIOSSLContext(configuration: configuration) } catch {
            throw TLSError(
                "the certificate \(files.certificate) and the key \(files.key) cannot be used together: \(error)")
        }
    }
}

/// What a client checks and shows. Any thread.
package final class ClientTLS: Sendable {
    private let context: NIOSSLContext
    private let serverName: String?

    /// - Parameters:
    ///   - trustedCertificates: PEM file of who may sign the server's certificate; nil: the system's authorities.
    ///   - certificate, key: PEM files of the client's own certificate, both or none.
    ///   - serverName: the name that the server's certificate must have; nil: the host that is connected to.
    package init(
        trustedCertificates: String?, certificate: String?, key: String?, serverName: String?
    ) throws(TLSError) {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        if let path = trustedCertificates {
            configuration.trustRoots = .certificates(try PEMFiles.certificates(path, "the trusted certificates"))
        }
        if let certificate, let key {
            let chain = try PEMFiles.certificates(certificate, "the client's certificate")
            configuration.certificateChain = chain.map { .certificate($0) }
            configuration.privateKey = .privateKey(try PEMFiles.privateKey(key))
        }
        do { context = try NIOSSLContext(configuration: configuration) } catch {
            throw TLSError("the client's certificate and key cannot be used together: \(error)")
        }
        self.serverName = serverName
    }

    /// For one connection, in front of everything else.
    package func makeHandler(for endpoint: Endpoint) throws -> NIOSSLClientHandler {
        var name = serverName
        // An address is no name; the certificate must then have the address that is connected to.
        if name == nil, case .tcp(let host, _) = endpoint, !Endpoint.isAddress(host) { name = host }
        return try NIOSSLClientHandler(context: context, serverHostname: name)
    }
}
