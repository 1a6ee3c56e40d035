// The state server's pages of the admin port, which are there before the server is.
//
// Threading: any; behind a mutex.

package import CisternDaemon
internal import Synchronization

package final class StatePages: AdminPages {
    /// Says what the server is like.
    package typealias Source = @Sendable () async -> ServerStatus

    /// nil while the server starts.
    private let source = Mutex<(phase: @Sendable () -> ServerStatus.Phase, status: Source)?>(nil)
    private let history = StatusHistory()

    package init() {}

    /// The server is there: from now on answers are about it.
    package func publish(phase: @escaping @Sendable () -> ServerStatus.Phase, status: @escaping Source) {
        source.withLock { $0 = (phase, status) }
    }

    /// The server is gone.
    package func withdraw() { source.withLock { $0 = nil } }

    package func needsToken(_ path: String) -> Bool { AdminRoutes.needsToken(path) }

    package func respond(to path: String) async -> AdminResponse {
        let source = source.withLock { $0 }
        var status = ServerStatus()
        if let source, AdminRoutes.needsStatus(path) { status = await source.status() }
        return AdminRoutes.respond(
            path, phase: source?.phase() ?? .starting, status: status, history: history)
    }
}
