// Whose name requests are signed in, and where that comes from: the environment, or a file that is read again so that keys can change
// without a restart. Nothing here prints a secret.

package import CisternFileSystem
package import CisternPrimitives
internal import Synchronization

package struct S3Credentials: Equatable, Sendable, CustomStringConvertible, CustomReflectable {
    package let accessKeyID: String
    package let secretAccessKey: String
    /// Empty: these are not temporary.
    package let sessionToken: String

    package init(accessKeyID: String, secretAccessKey: String, sessionToken: String = "") {
        self.accessKeyID = accessKeyID
        self.secretAccessKey = secretAccessKey
        self.sessionToken = sessionToken
    }

    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; nil when one of the first two is missing or empty.
    package init?(environment: [String: String]) {
        guard let id = environment["AWS_ACCESS_KEY_ID"], let secret = environment["AWS_SECRET_ACCESS_KEY"],
            !id.isEmpty, !secret.isEmpty
        else { return nil }
        self.init(accessKeyID: id, secretAccessKey: secret, sessionToken: environment["AWS_SESSION_TOKEN"] ?? "")
    }

    package var description: String { "credentials of access key \(accessKeyID)" }
    package var customMirror: Mirror { Mirror(self, children: ["accessKeyID": accessKeyID]) }
}

/// The file that AWS tools use: `[PROFILE]` lines and `key = value` lines; `#` and `;` start a line that says nothing.
package enum S3CredentialsFile {
    package static let bytesMax = 1 << 20
    package static let profile = "default"

    /// Those of `[default]`, or of the lines before any `[…]`. Takes any bytes.
    package static func parse(_ bytes: [UInt8]) -> S3Credentials? {
        guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
        var found: [String: String] = [:]
        var isMine = true
        for line in text.split(whereSeparator: { $0 == "\n" || $0 == "\r\n" }) {
            let words = trimmed(line)
            if words.isEmpty || words.hasPrefix("#") || words.hasPrefix(";") { continue }
            if words.hasPrefix("["), words.hasSuffix("]") {
                isMine = trimmed(words.dropFirst().dropLast()) == profile
                continue
            }
            guard isMine, let equals = words.firstIndex(of: "=") else { continue }
            found[trimmed(words[..<equals]).uppercased()] = String(trimmed(words[words.index(after: equals)...]))
        }
        return S3Credentials(environment: found)
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return text
    }
}

/// The credentials to sign with now. Any thread.
package final class S3CredentialSource: Sendable {
    /// How old what was read may be.
    package static let fileAgeSecondsMax: UInt64 = 10

    private struct State {
        var credentials: S3Credentials
        var readNanoseconds: UInt64
    }

    private let file: (path: String, fileSystem: any FileSystem, time: any TimeSource)?
    /// What was read last. Several may read at once; the last one stays.
    private let state: Mutex<State?>

    package init(_ fixed: S3Credentials) {
        file = nil
        state = Mutex(State(credentials: fixed, readNanoseconds: 0))
    }

    /// - Parameter path: a file as `S3CredentialsFile` has it.
    package init(file path: String, fileSystem: any FileSystem, time: any TimeSource) {
        file = (path, fileSystem, time)
        state = Mutex(nil)
    }

    var mayChange: Bool { file != nil }

    /// Blocks when there is a file that was not read for a while. A file that cannot be read any more leaves what it said.
    /// - Parameter isRefused: a server has refused what this gave out.
    /// - Throws: when there have never been any.
    package func current(isRefused: Bool = false) throws(S3CredentialsError) -> S3Credentials {
        let known = state.withLock { $0 }
        guard let file else {
            guard let known else { preconditionFailure("fixed credentials are gone") }
            return known.credentials
        }
        let now = file.time.monotonicNanoseconds
        if let known, !isRefused,
            now - min(now, known.readNanoseconds) < S3CredentialSource.fileAgeSecondsMax * 1_000_000_000
        {
            return known.credentials
        }
        do throws(S3CredentialsError) {
            let credentials = try S3CredentialSource.read(file.path, file.fileSystem)
            state.withLock { $0 = State(credentials: credentials, readNanoseconds: now) }
            return credentials
        } catch {
            guard let known else { throw error }
            return known.credentials
        }
    }

    private static func read(_ path: String, _ fileSystem: any FileSystem) throws(S3CredentialsError) -> S3Credentials {
        let bytes: [UInt8]
        do throws(FileError) { bytes = try fileSystem.readAll(path, limit: S3CredentialsFile.bytesMax) } catch {
            throw S3CredentialsError(description: "the credentials cannot be read: \(error)")
        }
        guard let credentials = S3CredentialsFile.parse(bytes) else {
            throw S3CredentialsError(
                description: "\(path) has no aws_access_key_id and aws_secret_access_key in [default]; write them there"
            )
        }
        return credentials
    }
}

package struct S3CredentialsError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String
}
