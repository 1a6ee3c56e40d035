// What the admin port answers: a pure function from a path and a status to a response.
//
//   /healthz, /readyz, /version   as of every daemon: `HealthPages`
//   /metrics       Prometheus' text format
//   /status.json   everything, for tools
//   /              the status page; /fragment is the part of it that changes

internal import CisternDaemon

enum AdminRoutes {
    static let paths = ["/"] + HealthPages.paths + ["/metrics", "/status.json", "/fragment"]

    /// False for what watches a server without knowing it.
    static func needsToken(_ path: String) -> Bool { !HealthPages.paths.contains(path) }

    /// True when the answer needs a look at the engine.
    static func needsStatus(_ path: String) -> Bool { ["/", "/metrics", "/status.json", "/fragment"].contains(path) }

    static func respond(
        _ path: String, phase: ServerStatus.Phase, status: ServerStatus, history: StatusHistory
    ) -> AdminResponse {
        if let health = HealthPages.respond(path, isReady: phase == .serving, phase: phase.rawValue) { return health }
        switch path {
        case "/metrics":
            return AdminResponse(
                code: 200, contentType: MetricPage.contentType, body: PrometheusText.render(status))
        case "/status.json":
            return AdminResponse(code: 200, contentType: StatusJSON.contentType, body: StatusJSON.render(status))
        case "/", "/fragment":
            let samples = history.add(StatusSample(status))
            let body =
                path == "/" ? StatusPage.render(status, samples) : StatusPage.body(status, samples)
            return AdminResponse(
                code: 200, contentType: StatusPage.contentType, body: body, securityPolicy: StatusPage.securityPolicy)
        default: return HealthPages.nothing(at: path, paths: paths)
        }
    }
}
