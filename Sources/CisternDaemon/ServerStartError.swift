/// Why a daemon did not start: what was attempted, what was found, what to do.
package struct ServerStartError: Error, CustomStringConvertible, Sendable {
    package let description: String

    package init(description: String) { self.description = description }
}
