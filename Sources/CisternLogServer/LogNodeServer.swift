// A log node as a daemon: what `cistern log-node run` starts, and tests in their process.
//
//   start     admin port ─► cookie (waits for metadata) ─► replay ─► listen ─► registered
//   drain     registered as read-only, GO_AWAY on every connection, what is in flight is answered
//   shutdown  drain if nobody did ─► journal synced and closed ─► lease given back ─► stop threads

internal import CisternChangelog
package import CisternDaemon
package import CisternFileSystem
internal import CisternLogNetwork
internal import CisternLogNode
internal import CisternLogProtocol
internal import CisternMetadata
internal import CisternMetadataEtcd
package import CisternPrimitives
package import CisternTransport
package import Logging
internal import NIOCore
internal import NIOPosix
internal import Synchronization

package final class LogNodeServer: Sendable {
    /// Between two attempts at metadata that gives no answer, and between two looks at what the registration must say.
    static let stepMilliseconds = 1_000
    /// Between two looks whether the node answers yet.
    static let startMilliseconds = 20

    package let configuration: LogNodeConfiguration
    package let boundEndpoints: [Endpoint]
    /// Where clients are told that the node is.
    package let advertised: String
    package var adminEndpoint: Endpoint? { frame.admin?.endpoint }

    private let frame: Frame
    private let node: LogNodeHost
    private let listener: LogNodeListener
    private let registrar: LogNodeRegistrar
    /// nil when this node takes no part in repair.
    private let peers: LogNodePeers?
    private let duties: Task<Void, Never>
    private let isDraining = Atomic(false)
    private let isStopped = Atomic(false)

    /// What is there before the node is, and after it.
    private struct Frame: Sendable {
        let pages: LogNodePages
        let admin: AdminServer?
        let security: ServerSecurity
        let store: EtcdMetadataStore
        let group: MultiThreadedEventLoopGroup
        let lane: BlockingLane
        let logger: Logger

        func stop() async {
            security.stop()
            await admin?.close()
            await lane.stop()
            store.close()
            do { try await group.shutdownGracefully() } catch {
                // Already stopped, which is what was asked for.
            }
        }
    }

    /// Serves and is registered when it returns; waits for metadata until the task is cancelled.
    package static func start(
        _ configuration: LogNodeConfiguration, fileSystem: any FileSystem = PosixFileSystem(),
        time: any TimeSource = SystemTime(), logger: Logger = Logger(label: "cistern.log-node")
    ) async throws(ServerStartError) -> LogNodeServer {
        if let problem = configuration.firstProblem() { throw ServerStartError(description: problem) }
        let security = try ServerSecurity(configuration, logger: logger)
        let etcd = try configuration.etcdOptions()
        let peers = configuration.repair ? try LogNodePeers.clientOptions(configuration) : nil
        let pages = LogNodePages(started: time)
        // First, so that whoever watches sees a node that starts, however long that takes.
        let admin: AdminServer? =
            if let address = ListenAddress(configuration.admin) {
                try await AdminServer.start(address, security, pages: pages)
            } else { nil }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.eventLoops)
        let frame = Frame(
            pages: pages, admin: admin, security: security, store: EtcdMetadataStore(options: etcd, group: group),
            group: group, lane: BlockingLane(),
            logger: logger)
        do throws(ServerStartError) {
            return try await LogNodeServer(configuration, frame, peers, fileSystem: fileSystem, time: time)
        } catch {
            await frame.stop()
            throw error
        }
    }

    private init(
        _ configuration: LogNodeConfiguration, _ frame: Frame, _ peerOptions: LedgerClientOptions?,
        fileSystem: any FileSystem, time: any TimeSource
    ) async throws(ServerStartError) {
        self.configuration = configuration
        self.frame = frame
        let logger = frame.logger
        let store = frame.store
        let keys = MetadataKeys(cluster: configuration.cluster)
        let cookie = try await LogNodeServer.claim(configuration, frame, fileSystem, store)
        let checks = LedgerChecks(store: store, keys: keys, cluster: cookie.cluster) { error in
            // Without an answer nothing is deleted, which can wait; an answer that cannot be believed is for people.
            logger.log(
                level: error.isUnavailable ? .debug : .warning, "metadata does not say which ledgers exist",
                metadata: ["error": "\(error)"])
        }
        let node = try await LogNodeServer.open(configuration, cookie, frame, fileSystem, checks)
        self.node = node
        do {
            listener = try await LogNodeServer.listen(configuration, node, frame)
        } catch {
            _ = await frame.lane.run { node.stop() }
            throw ServerStartError(description: "\(error)")
        }
        boundEndpoints = listener.boundEndpoints
        advertised = LogNodeServer.advertised(configuration, boundEndpoints)
        registrar = LogNodeRegistrar(
            store: store, keys: keys, cluster: cookie.cluster, node: cookie.node, cookie: cookie.stored,
            address: advertised, leaseMilliseconds: UInt64(configuration.leaseMilliseconds), time: time, logger: logger)
        frame.security.follow(on: frame.lane)
        let ledgers = LedgerStore(store, keys: keys) { error in
            logger.debug("metadata does not answer repair", metadata: ["error": "\(error)"])
        }
        peers = peerOptions.map { [node] in
            LogNodePeers(configuration, store: ledgers, options: $0, node: node, group: frame.group, logger: logger)
        }
        frame.pages.publish(
            node: node, registrar: registrar, listener: listener, security: frame.security, peers: peers)
        let (first, registered) = AsyncStream<Void>.makeStream()
        duties = Task { [node, registrar] in
            await LogNodeServer.keepRegistered(node, registrar, logger) {
                registered.yield()
                registered.finish()
            }
            registered.finish()
        }
        for await _ in first { break }
        if Task.isCancelled {
            // A task of its own: what waits within would not, in one that is cancelled.
            await Task { await self.shutdown() }.value
            throw ServerStartError(description: "the log node was stopped before it was registered")
        }
        peers?.start()
        logger.notice(
            "serving",
            metadata: [
                "node": "\(cookie.node)", "cluster": "\(configuration.cluster)", "advertised": "\(advertised)",
                "directory": "\(configuration.dataDirectory)",
            ])
    }

    /// Stops taking new work and waits until what was asked is answered, at most as long as the settings say. Idempotent.
    package func drain() async {
        guard !isDraining.exchange(true, ordering: .acquiringAndReleasing) else { return }
        frame.pages.drains()
        frame.logger.info("draining")
        duties.cancel()
        await duties.value
        await peers?.stop()
        // At the same time: clients that look for a node do not find this one, and metadata may be away.
        async let told = registrar.step(isReadOnly: true)
        node.releaseWaiters()
        await listener.drain(grace: .milliseconds(Int64(configuration.drainMilliseconds)))
        _ = await told
    }

    /// Closes everything in order; what was acknowledged is on disk when it returns. Idempotent.
    package func shutdown() async {
        guard !isStopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
        await drain()
        await listener.close()
        // Before the node, which the pages ask.
        await frame.admin?.close()
        frame.pages.withdraw()
        _ = await frame.lane.run { [node] in node.stop() }
        await registrar.withdraw()
        frame.logger.info("stopped")
        await frame.stop()
    }

    /// Why the journal takes nothing any more; nil while it does, and after `shutdown`.
    package func journalFailure() async -> String? {
        if isStopped.load(ordering: .acquiring) { return nil }
        return await node.status().failure?.description
    }

    package func registration() async -> LogNodeRegistrar.Status { await registrar.status }
}

// MARK: Pieces of starting

extension LogNodeServer {
    private static func claim(
        _ configuration: LogNodeConfiguration, _ frame: Frame, _ fileSystem: any FileSystem, _ store: EtcdMetadataStore
    ) async throws(ServerStartError) -> LogNodeCookie {
        let identity = LogNodeIdentity(
            node: LogNodeID(UInt64(configuration.node)), cluster: configuration.cluster,
            directory: configuration.dataDirectory, fileSystem: fileSystem, store: store, lane: frame.lane)
        var wasTold = false
        while true {
            do throws(LogNodeIdentityError) { return try await identity.claim() } catch {
                guard error.mayPass else { throw ServerStartError(description: error.description) }
                if !wasTold {
                    frame.logger.warning("waiting for metadata", metadata: ["error": "\(error)"])
                    wasTold = true
                }
            }
            do { try await Task.sleep(for: .milliseconds(stepMilliseconds)) } catch {
                throw ServerStartError(description: "the log node was stopped while it waited for metadata")
            }
        }
    }

    private static func open(
        _ configuration: LogNodeConfiguration, _ cookie: LogNodeCookie, _ frame: Frame, _ fileSystem: any FileSystem,
        _ checks: LedgerChecks
    ) async throws(ServerStartError) -> LogNodeHost {
        let metadata = LogNodeMetadata(
            highestLedger: { answer in Task { answer(await checks.highestLedger()) } },
            exists: { checks.exists($0, answer: $1) })
        let opened = await frame.lane.run { () -> Result<LogNodeHost, JournalError> in
            do throws(JournalError) {
                return .success(
                    try LogNodeHost(
                        options(configuration, cookie), fileSystem: fileSystem, lanes: .threads(),
                        lane: SerialThread(name: "log-node"), metadata: metadata))
            } catch {
                return .failure(error)
            }
        }
        switch opened {
        case .success(let node):
            for damage in node.damage {
                frame.logger.error(
                    "the journal is damaged; ledgers of before are unknown here until they are repaired from peers",
                    metadata: ["damage": "\(damage)"])
            }
            return node
        case .failure(let error):
            throw ServerStartError(
                description: "cannot open the directory \(configuration.dataDirectory): \(error)")
        case nil: throw ServerStartError(description: "the node's blocking thread was stopped")
        }
    }

    private static func options(_ configuration: LogNodeConfiguration, _ cookie: LogNodeCookie) -> LogNodeOptions {
        var journal = JournalOptions(
            directory: configuration.dataDirectory, node: cookie.node, cluster: cookie.cluster)
        journal.segmentBytes = configuration.segmentBytes
        journal.spareSegments = configuration.spareSegments
        journal.keptSegments = configuration.keptSegments
        journal.reserveBytes = UInt64(configuration.diskReserveBytes)
        var options = LogNodeOptions(journal: journal, isNew: false)
        options.collectMilliseconds = UInt64(configuration.collectMilliseconds)
        return options
    }

    private static func listen(
        _ configuration: LogNodeConfiguration, _ node: LogNodeHost, _ frame: Frame
    ) async throws(TransportError) -> LogNodeListener {
        var options = LogNodeListenerOptions()
        options.transport.server = ServerVersion.name
        options.transport.requestsMax = configuration.connectionRequestsMax
        options.transport.bytesMax = configuration.connectionBytesMax
        options.transport.tls = frame.security.tls
        options.transport.access = frame.security.tokens
        options.nodeUnansweredBytesMax = configuration.unansweredBytesMax
        return try await LogNodeListener.bind(
            configuration.listen.compactMap { Endpoint($0) }, node: node, group: frame.group, options: options,
            logger: frame.logger)
    }

    private static func advertised(_ configuration: LogNodeConfiguration, _ bound: [Endpoint]) -> String {
        let first = bound.first { if case .tcp = $0 { true } else { false } }
        guard case .tcp(let host, let port)? = configuration.advertised else {
            preconditionFailure("a node without an address was not refused")
        }
        guard port == 0, case .tcp(_, let boundPort)? = first else { return "\(Endpoint.tcp(host: host, port: port))" }
        return "\(Endpoint.tcp(host: host, port: boundPort))"
    }

    /// Until it is cancelled. Also says what changed of the node.
    private static func keepRegistered(
        _ node: LogNodeHost, _ registrar: LogNodeRegistrar, _ logger: Logger, whenRegistered: () -> Void
    ) async {
        var last = LogNodeStatus()
        while !Task.isCancelled {
            let status = await node.status()
            guard status.isServing else {
                do { try await Task.sleep(for: .milliseconds(startMilliseconds)) } catch { return }
                continue
            }
            if status.failure != nil, last.failure == nil, let failure = status.failure {
                logger.critical("the journal failed; reads go on, restart the node", metadata: ["error": "\(failure)"])
            }
            if status.isReadOnly != last.isReadOnly {
                logger.warning(status.isReadOnly ? "the disk has no room: adds are refused" : "adds are taken again")
            }
            last = status
            if await registrar.step(isReadOnly: !status.takesAdds) { whenRegistered() }
            do { try await Task.sleep(for: .milliseconds(stepMilliseconds)) } catch {
                return  // Cancelled.
            }
        }
    }
}
