// What the admin port answers: a pure function from a path and a status to a response.
//
//   /healthz       200 as soon as the process listens, whatever it is doing: for liveness
//   /readyz        200 while requests are served, 503 while starting or draining: for routing
//   /version       the version, as text
//   /metrics       Prometheus' text format
//   /status.json   everything, for tools
//   /              the status page; /fragment is the part of it that changes

package struct AdminResponse: Equatable, Sendable {
    package var code: Int
    package var contentType = AdminResponse.text
    package var body: String

    static let text = "text/plain; charset=utf-8"
}

enum AdminRoutes {
    static let paths = ["/", "/healthz", "/readyz", "/version", "/metrics", "/status.json", "/fragment"]

    /// False for what watches a server without knowing it.
    static func needsToken(_ path: String) -> Bool { !["/healthz", "/readyz", "/version"].contains(path) }

    /// True when the answer needs a look at the engine.
    static func needsStatus(_ path: String) -> Bool { ["/", "/metrics", "/status.json", "/fragment"].contains(path) }

    static func respond(
        _ path: String, phase: ServerStatus.Phase, status: ServerStatus, history: StatusHistory
    ) -> AdminResponse {
        switch path {
        case "/healthz": return AdminResponse(code: 200, body: "ok\n")
        case "/readyz": return AdminResponse(code: phase == .serving ? 200 : 503, body: phase.rawValue + "\n")
        case "/version": return AdminResponse(code: 200, body: ServerVersion.name + "\n")
        case "/metrics":
            return AdminResponse(
                code: 200, contentType: PrometheusText.contentType, body: PrometheusText.render(status))
        case "/status.json":
            return AdminResponse(code: 200, contentType: StatusJSON.contentType, body: StatusJSON.render(status))
        case "/", "/fragment":
            let samples = history.add(StatusSample(status))
            let body =
                path == "/" ? StatusPage.render(status, samples) : StatusPage.body(status, samples)
            return AdminResponse(code: 200, contentType: StatusPage.contentType, body: body)
        default:
            return AdminResponse(
                code: 404, body: "there is nothing at \(path); try \(paths.joined(separator: ", "))\n")
        }
    }
}
