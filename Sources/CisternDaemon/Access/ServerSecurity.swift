// The server's certificate and tokens, and the task that follows their files.

internal import CisternFileSystem
package import CisternTransport
internal import Crypto
internal import FoundationEssentials
package import Logging
internal import Synchronization

/// Who may come in, by a file that may change. Any thread.
package final class TokenFile: AccessControl {
    let path: String
    private let list: Mutex<TokenList>

    init(path: String) throws(ServerStartError) {
        self.path = path
        list = Mutex(try TokenFile.read(path))
    }

    package func grant(token: String) -> AccessGrant? {
        if token.isEmpty { return nil }
        let hash = TokenFile.hash(token)
        return list.withLock { $0 }.grant(hash: hash)
    }

    /// Reads the file again. Blocks. After an error the tokens stay as they were.
    /// - Returns: true when something was new.
    func reload() throws(ServerStartError) -> Bool {
        let found = try TokenFile.read(path)
        return list.withLock { list in
            if list == found { return false }
            list = found
            return true
        }
    }

    var count: Int { list.withLock { $0.count } }

    static func hash(_ token: String) -> [UInt8] { Array(SHA256.hash(data: Array(token.utf8))) }

    private static func read(_ path: String) throws(ServerStartError) -> TokenList {
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try PosixFileSystem().readAll(path, limit: TokenList.fileBytesMax)
        } catch {
            throw ServerStartError(description: "the tokens file: \(error); check that it is there and readable")
        }
        do throws(TokenListError) {
            return try TokenList(parsing: String(decoding: bytes, as: UTF8.self))
        } catch {
            throw ServerStartError(description: "the tokens file \(path), \(error)")
        }
    }
}

/// A new token: 32 random bytes as text, and its line in a tokens file.
package struct NewToken {
    package let token: String
    package let line: String

    package static let randomBytes = 32

    /// - Parameter scopes: as in the file.
    /// - Throws: `TokenListError` when name or scopes are not as the file takes them.
    package init(name: String, scopes: String) throws(TokenListError) {
        var random = SystemRandomNumberGenerator()
        let bytes = (0..<NewToken.randomBytes).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        token =
            "cst_"
            + Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_")
            .replacing("=", with: "")
        line = TokenList.line(name: name, hash: TokenFile.hash(token), scopes: scopes)
        _ = try TokenList(parsing: line)
    }
}

/// What protects a server's ports.
package final class ServerSecurity: Sendable {
    static let certificateCheckMilliseconds = 60_000
    static let tokensCheckMilliseconds = 10_000

    package let tls: ServerTLS?
    package let tokens: TokenFile?
    private let logger: Logger
    /// Reloads that failed, since the start.
    private let failed = Atomic<UInt64>(0)
    private let task = Mutex<Task<Void, Never>?>(nil)

    package var reloadsFailed: UInt64 { failed.load(ordering: .relaxed) }

    /// Reads the files. Blocks.
    package init(_ configuration: some PortSettings, logger: Logger) throws(ServerStartError) {
        self.logger = logger
        if configuration.tlsCertificate.isEmpty {
            tls = nil
        } else {
            let authorities = configuration.tlsClientAuthorities
            do throws(TLSError) {
                tls = try ServerTLS(
                    ServerTLS.Files(
                        certificate: configuration.tlsCertificate, key: configuration.tlsKey,
                        clientAuthorities: authorities.isEmpty ? nil : authorities))
            } catch {
                throw ServerStartError(description: error.description)
            }
        }
        tokens = configuration.tokensFile.isEmpty ? nil : try TokenFile(path: configuration.tokensFile)
    }

    /// Follows the files until `stop`.
    package func follow(on lane: BlockingLane) {
        guard tls != nil || tokens != nil else { return }
        let started = Task { [weak self] in
            var elapsed = 0
            while !Task.isCancelled {
                do {
                    try await Task.sleep(for: .milliseconds(ServerSecurity.tokensCheckMilliseconds))
                } catch {
                    return  // Cancelled.
                }
                elapsed += ServerSecurity.tokensCheckMilliseconds
                guard let self else { return }
                let checksCertificate = elapsed >= ServerSecurity.certificateCheckMilliseconds
                if checksCertificate { elapsed = 0 }
                _ = await lane.run { self.reload(certificate: checksCertificate, tokens: true) }
            }
        }
        task.withLock { $0 = started }
    }

    package func stop() { task.withLock { $0 }?.cancel() }

    /// Takes what the files say now. What cannot be read is logged and counted, and what was known stays. Blocks.
    package func reload(certificate: Bool, tokens checksTokens: Bool) {
        if certificate, let tls {
            do throws(TLSError) {
                if try tls.reload() {
                    logger.info("the certificate was read again", metadata: ["path": "\(tls.files.certificate)"])
                }
            } catch {
                failed.add(1, ordering: .relaxed)
                logger.error("the certificate stays as it was", metadata: ["error": "\(error)"])
            }
        }
        if checksTokens, let tokens {
            do throws(ServerStartError) {
                if try tokens.reload() {
                    logger.info(
                        "tokens were read again", metadata: ["path": "\(tokens.path)", "tokens": "\(tokens.count)"])
                }
            } catch {
                failed.add(1, ordering: .relaxed)
                logger.error("tokens stay as they were", metadata: ["error": "\(error)"])
            }
        }
    }
}
