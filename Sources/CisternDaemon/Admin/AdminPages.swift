// What an admin port answers. Each daemon has pages of its own behind those that all have.
//
//   /healthz       200 as soon as the process listens, whatever it is doing: for liveness
//   /readyz        200 while requests are served, 503 otherwise: for routing
//   /version       the version, as text

package struct AdminResponse: Equatable, Sendable {
    package var code: Int
    package var contentType: String
    package var body: String
    /// What a browser may load for it.
    package var securityPolicy: String

    package static let text = "text/plain; charset=utf-8"
    package static let nothingElse = "default-src 'none'; frame-ancestors 'none'"

    package init(
        code: Int, contentType: String = AdminResponse.text, body: String,
        securityPolicy: String = AdminResponse.nothingElse
    ) {
        self.code = code
        self.contentType = contentType
        self.body = body
        self.securityPolicy = securityPolicy
    }
}

/// Asked from any thread, several requests at once.
package protocol AdminPages: Sendable {
    /// False for what watches a daemon without knowing it.
    func needsToken(_ path: String) -> Bool
    func respond(to path: String) async -> AdminResponse
}

package enum HealthPages {
    package static let paths = ["/healthz", "/readyz", "/version"]

    /// nil when the path is none of them.
    /// - Parameter phase: of the daemon, in a word.
    package static func respond(_ path: String, isReady: Bool, phase: String) -> AdminResponse? {
        switch path {
        case "/healthz": AdminResponse(code: 200, body: "ok\n")
        case "/readyz": AdminResponse(code: isReady ? 200 : 503, body: phase + "\n")
        case "/version": AdminResponse(code: 200, body: ServerVersion.name + "\n")
        default: nil
        }
    }

    package static func nothing(at path: String, paths: [String]) -> AdminResponse {
        AdminResponse(code: 404, body: "there is nothing at \(path); try \(paths.joined(separator: ", "))\n")
    }
}
