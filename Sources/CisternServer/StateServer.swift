// The front door: opens the data directory, listens, and stops without losing anything. Used by `cistern serve` and, in
// process, by tests.
//
//   start     admin port ─► lock and open the engine ─► catalog ─► registry (finish cut-short restores) ─► listen
//   drain     refuse attaches, GO_AWAY on every connection, wait for what is in flight
//   shutdown  drain if nobody did ─► close connections ─► close trees (flush) ─► close engine ─► stop threads

internal import CisternChangelog
package import CisternDaemon
package import CisternFileSystem
internal import CisternLSM
package import CisternMetadata
package import CisternPrimitives
package import CisternSnapshotStore
package import CisternTransport
package import Logging
internal import NIOCore
internal import NIOPosix
internal import Synchronization

package final class StateServer: Sendable {
    package let configuration: ServerConfiguration
    package let boundEndpoints: [Endpoint]
    /// Where health, metrics and the status page are, when that was asked for.
    package var adminEndpoint: Endpoint? { admin?.endpoint }

    private let core: ServerCore
    private let listener: Listener
    private let admin: AdminServer?
    private let pages: StatePages
    private let security: ServerSecurity
    private let group: MultiThreadedEventLoopGroup
    private let logger: Logger
    private let isStopped = Atomic(false)

    private init(
        configuration: ServerConfiguration, core: ServerCore, listener: Listener, admin: AdminServer?,
        pages: StatePages, security: ServerSecurity, group: MultiThreadedEventLoopGroup, logger: Logger
    ) {
        self.configuration = configuration
        self.core = core
        self.listener = listener
        self.admin = admin
        self.pages = pages
        self.security = security
        self.group = group
        self.logger = logger
        boundEndpoints = listener.boundEndpoints
    }

    /// Serves when it returns. Another file system and clock are for tests.
    /// - Parameter metadata: another metadata store than the etcd of the settings, where `durability` is `replicated`.
    package static func start(
        _ configuration: ServerConfiguration, metadata: (any MetadataStore)? = nil,
        fileSystem: any FileSystem = PosixFileSystem(), time: any TimeSource = SystemTime(),
        logger: Logger = Logger(label: "cistern")
    ) async throws(ServerStartError) -> StateServer {
        if let problem = configuration.firstProblem() { throw ServerStartError(description: problem) }
        if configuration.durability == .replicated && metadata == nil && configuration.etcd.isEmpty {
            throw ServerStartError(
                description:
                    "durability is replicated and no metadata is given: name the members of an etcd cluster with --etcd HOST:PORT"
            )
        }
        let security = try ServerSecurity(configuration, logger: logger)
        // First, so that whoever watches sees a server that starts, however long that takes.
        let pages = StatePages()
        let admin: AdminServer? =
            if let address = ListenAddress(configuration.admin) {
                try await AdminServer.start(address, security, pages: pages)
            } else { nil }
        do throws(ServerStartError) {
            return try await start(
                configuration, metadata, admin, pages, security, fileSystem: fileSystem, time: time, logger: logger)
        } catch {
            await admin?.close()
            throw error
        }
    }

    private static func start(
        _ configuration: ServerConfiguration, _ metadata: (any MetadataStore)?, _ admin: AdminServer?,
        _ pages: StatePages, _ security: ServerSecurity, fileSystem: any FileSystem, time: any TimeSource,
        logger: Logger
    ) async throws(ServerStartError) -> StateServer {
        let started = time.monotonicNanoseconds
        let lane = BlockingLane()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.eventLoops)
        let services = try ReplicationServices(configuration, metadata, group: group, logger: logger)
        let opened = await lane.run {
            openCore(configuration, services, fileSystem: fileSystem, time: time, logger: logger, lane: lane)
        }
        let core: ServerCore
        switch opened {
        case .success(let made): core = made
        case .failure(let error):
            await lane.stop()
            await services?.client.close()
            await stop(group)
            throw error
        case nil: throw ServerStartError(description: "the server's blocking thread did not start")
        }
        do {
            let listener = try await listen(configuration, security, core: core, group: group, logger: logger)
            security.follow(on: lane)
            pages.publish(phase: { core.isDraining ? .draining : .serving }) {
                var status = await core.status(startedNanoseconds: started)
                status.connections = listener.connectionCount
                status.securityReloadsFailed = security.reloadsFailed
                return status
            }
            return StateServer(
                configuration: configuration, core: core, listener: listener, admin: admin, pages: pages,
                security: security, group: group, logger: logger)
        } catch {
            _ = await lane.run {
                core.remote?.stop()
                core.engine.close()
            }
            await lane.stop()
            await services?.client.close()
            await stop(group)
            throw ServerStartError(description: "\(error)")
        }
    }

    /// Opens everything on disk. Blocks.
    private static func openCore(
        _ configuration: ServerConfiguration, _ services: ReplicationServices?, fileSystem: any FileSystem,
        time: any TimeSource, logger: Logger, lane: BlockingLane
    ) -> Result<ServerCore, ServerStartError> {
        let store: (any SnapshotStore)?
        do throws(SnapshotStoreError) {
            store = try SnapshotStoreAddress(configuration.snapshotStore)?.open(fileSystem, configuration.s3, time)
        } catch {
            return .failure(ServerStartError(description: "\(error)"))
        }
        let hydrating = store.map { store in
            HydratingFileSystem(
                fileSystem, store: store, directory: configuration.dataDirectory,
                lockPath: configuration.dataDirectory + "/" + DataDirectory.lockName,
                tables: DataDirectory.tables(configuration.dataDirectory))
        }
        let fileSystem: any FileSystem = hydrating ?? fileSystem
        do {
            // The engine takes the directory's lock, so it comes first.
            let engine = try Engine.open(engineOptions(configuration), fileSystem: fileSystem, time: time)
            do {
                try ReplicatedDirectory.check(
                    configuration.dataDirectory, isReplicated: services != nil,
                    isNew: engine.treeInfos().isEmpty && engine.snapshotHandles.isEmpty && engine.damagedParts.isEmpty,
                    fileSystem)
                let catalog = try Catalog(
                    directory: configuration.dataDirectory, fileSystem: fileSystem, newServerID: randomServerID())
                let remote = hydrating.map {
                    RemoteSnapshots(
                        $0, engine: engine, catalog: catalog,
                        hydrationBytesPerSecond: UInt64(configuration.hydrationBytesPerSecond), time: time)
                }
                var replication: Replication?
                if let services, let remote {
                    replication = Replication(
                        services, engine: engine, remote: remote, server: catalog.current.serverID, logger: logger)
                }
                let registry = TreeRegistry(
                    engine: engine, storesAtStart: Set(catalog.current.stores.map(\.name)),
                    idleTreeMilliseconds: configuration.idleTreeMilliseconds, time: time,
                    logger: logger, replication: replication)
                return .success(
                    ServerCore(
                        engine: engine, catalog: catalog, registry: registry, time: time, logger: logger,
                        lane: lane, requestCounters: (0..<configuration.eventLoops).map { _ in RequestCounters() },
                        remote: remote, replication: replication))
            } catch {
                engine.close()
                throw error
            }
        } catch {
            return .failure(
                ServerStartError(description: "cannot open the data directory \(configuration.dataDirectory): \(error)")
            )
        }
    }

    /// Stops taking new work and waits until what was asked is answered, at most as long as the settings say.
    package func drain() async {
        core.startDraining()
        logger.info("draining")
        await listener.drain(grace: .milliseconds(Int64(configuration.drainMilliseconds)))
    }

    /// Closes everything in order; what was acknowledged is on disk when it returns. Idempotent.
    package func shutdown() async {
        guard !isStopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
        core.startDraining()
        security.stop()
        await listener.close()
        await admin?.close()
        pages.withdraw()
        await core.registry.closeAll()
        // nil only when the lane was stopped, which happens below.
        _ = await core.lane.run { [core] in
            core.remote?.stop()
            core.engine.close()
        }
        await core.lane.stop()
        await core.disk.stop()
        await core.replication?.services.client.close()
        await stop(group)
        logger.info("stopped")
    }

    /// What all requests since the start came to.
    package var requests: RequestSums {
        var sums = RequestSums()
        for counters in core.requestCounters { counters.add(to: &sums) }
        return sums
    }

    /// Takes what the files of certificate and tokens say now, as it also does by itself from time to time. Blocks.
    package func reloadSecurity() { security.reload(certificate: true, tokens: true) }

    /// What went to the snapshot store; nil without one.
    package var uploads: UploadStatus? { core.remote?.uploads.status }

    /// What is still to come from the snapshot store; nil without one.
    package var hydration: HydrationStatus? { core.remote?.hydration.status }

    /// Returns when the snapshot can be had from the store; false when it was released first, or there is no store.
    package func uploaded(_ handle: String) async -> Bool {
        guard let remote = core.remote else { return false }
        return await withCheckedContinuation { continuation in
            remote.uploads.whenComplete(handle) { continuation.resume(returning: $0) }
        }
    }

    /// Trees that are open now.
    package var openTreeCount: Int { core.registry.openTreeCount }
}

// MARK: Pieces of starting and stopping

private func engineOptions(_ configuration: ServerConfiguration) -> EngineOptions {
    var options = EngineOptions(directory: configuration.dataDirectory)
    options.memtableBytes = configuration.memtableBytes
    options.blockCacheBytes = configuration.blockCacheBytes
    if configuration.memoryBytes > 0 { options.memoryBytes = configuration.memoryBytes }
    options.log =
        switch configuration.log {
        case .synced: .synced
        case .buffered: .buffered
        case .off: .off
        }
    options.table.blockSizeBytes = configuration.blockBytes
    options.table.filterBitsPerKey = configuration.filterBitsPerKey
    options.compaction.threads = configuration.compactionThreads
    options.values.thresholdBytes = configuration.valueFileBytes
    options.backgroundBytesPerSecond = UInt64(configuration.compactionBytesPerSecond)
    return options
}

private func listen(
    _ configuration: ServerConfiguration, _ security: ServerSecurity, core: ServerCore,
    group: MultiThreadedEventLoopGroup, logger: Logger
) async throws -> Listener {
    var options = ServerTransportOptions()
    options.server = ServerVersion.name
    options.serverID = core.catalog.serverID
    options.time = core.time
    options.frameBytesMax = configuration.frameBytesMax
    options.requestsMax = configuration.connectionRequestsMax
    options.bytesMax = configuration.connectionBytesMax
    options.tls = security.tls
    options.access = security.tokens
    let endpoints = configuration.listen.compactMap { Endpoint($0) }
    let own = zip(group.makeIterator(), core.requestCounters).map { eventLoop, counters in
        (ObjectIdentifier(eventLoop), (scratch: LoopScratch(), counters: counters))
    }
    let ofLoop = Dictionary(uniqueKeysWithValues: own)
    return try await Listener.bind(endpoints, group: group, options: options, logger: logger) { eventLoop in
        guard let own = ofLoop[ObjectIdentifier(eventLoop)] else {
            preconditionFailure("a connection on an event loop that is not the server's")
        }
        return ServerSession(core: core, eventLoop: eventLoop, scratch: own.scratch, counters: own.counters)
    }
}

func randomServerID() -> [UInt8] {
    var random = SystemRandomNumberGenerator()
    return (0..<CatalogState.serverIDBytes).map { _ in UInt8.random(in: .min ... .max, using: &random) }
}

private func stop(_ group: MultiThreadedEventLoopGroup) async {
    do {
        try await group.shutdownGracefully()
    } catch {
        // Already stopped, which is what was asked for.
    }
}
