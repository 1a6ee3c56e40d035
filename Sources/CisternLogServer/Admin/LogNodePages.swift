// A log node's pages of the admin port: health, and `/metrics`.
//
// Threading: any; behind a mutex.

internal import CisternDaemon
internal import CisternLogNetwork
internal import CisternLogNode
internal import CisternPrimitives
internal import Synchronization

final class LogNodePages: AdminPages {
    private struct Subject {
        let node: LogNodeHost
        let registrar: LogNodeRegistrar
        let listener: LogNodeListener
        let security: ServerSecurity
        let peers: LogNodePeers?
    }

    /// nil while the node starts.
    private let subject = Mutex<Subject?>(nil)
    private let isDraining = Atomic(false)
    private let time: any TimeSource
    private let startedNanoseconds: UInt64

    static let paths = HealthPages.paths + ["/metrics"]

    init(started time: any TimeSource) {
        self.time = time
        startedNanoseconds = time.monotonicNanoseconds
    }

    /// The node is there: from now on answers are about it.
    func publish(
        node: LogNodeHost, registrar: LogNodeRegistrar, listener: LogNodeListener, security: ServerSecurity,
        peers: LogNodePeers?
    ) {
        subject.withLock {
            $0 = Subject(
                node: node, registrar: registrar, listener: listener, security: security, peers: peers)
        }
    }

    func drains() { isDraining.store(true, ordering: .releasing) }

    /// The node is gone: it answers nothing any more.
    func withdraw() { subject.withLock { $0 = nil } }

    func needsToken(_ path: String) -> Bool { !HealthPages.paths.contains(path) }

    func respond(to path: String) async -> AdminResponse {
        guard LogNodePages.paths.contains(path) else { return HealthPages.nothing(at: path, paths: LogNodePages.paths) }
        let picture = await picture()
        if let health = HealthPages.respond(
            path, isReady: picture.phase == .serving, phase: picture.phase.rawValue)
        {
            return health
        }
        return AdminResponse(code: 200, contentType: MetricPage.contentType, body: picture.metrics)
    }

    private func picture() async -> LogNodePicture {
        var picture = LogNodePicture()
        picture.uptimeMilliseconds = (time.monotonicNanoseconds - startedNanoseconds) / 1_000_000
        guard let subject = subject.withLock({ $0 }) else { return picture }
        picture.node = await subject.node.status()
        picture.registration = await subject.registrar.status
        picture.connections = subject.listener.connectionCount
        picture.unansweredBytes = subject.listener.unansweredBytes
        picture.securityReloadsFailed = subject.security.reloadsFailed
        picture.repair = subject.peers?.figures
        picture.isDraining = isDraining.load(ordering: .acquiring)
        return picture
    }
}
