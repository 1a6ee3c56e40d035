// What a client may do, as its token says. Decided once a connection, in HELLO; looked at when a store is named, not for each
// read and write.

package struct AccessGrant: Hashable, Sendable {
    package struct Rights: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// Look at stores and their snapshots.
        package static let read = Rights(rawValue: 1)
        /// Attach, write, take and release snapshots.
        package static let write = Rights(rawValue: 2)
    }

    /// Stores and what may be done with them.
    package struct Scope: Hashable, Sendable {
        /// A store's name, or the beginning of names with `*` behind it.
        package let pattern: String
        package let rights: Rights

        package init(pattern: String, rights: Rights) {
            self.pattern = pattern
            self.rights = rights
        }

        func covers(_ store: String) -> Bool {
            pattern.hasSuffix("*") ? store.hasPrefix(pattern.dropLast()) : store == pattern
        }
    }

    /// Of the token, for logs and refusals.
    package let name: String
    package let scopes: [Scope]
    /// The admin port: metrics and the status page.
    package let isAdmin: Bool

    package init(name: String, scopes: [Scope], isAdmin: Bool = false) {
        self.name = name
        self.scopes = scopes
        self.isAdmin = isAdmin
    }

    /// Where no tokens are asked for.
    package static let everything = AccessGrant(
        name: "", scopes: [Scope(pattern: "*", rights: [.read, .write])], isAdmin: true)

    package func allows(_ rights: Rights, store: String) -> Bool {
        scopes.contains { $0.rights.isSuperset(of: rights) && $0.covers(store) }
    }
}

/// Who may come in. Any thread.
package protocol AccessControl: Sendable {
    /// nil: the token is not known. An empty token is none.
    func grant(token: String) -> AccessGrant?
}
