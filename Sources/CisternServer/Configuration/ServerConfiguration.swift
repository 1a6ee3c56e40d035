// What a state server can be told, and which combinations cannot work. The texts and names are in `ServerOption`.

internal import CisternDaemon
package import CisternLogProtocol
internal import CisternMetadata
package import CisternSnapshotStoreS3

/// When a write is acknowledged, and what a crash may lose.
package enum LogRule: String, Sendable, CaseIterable {
    /// After the log is synced: a crash of the machine loses nothing acknowledged.
    case synced
    /// After the log is written: a crash of the process loses nothing acknowledged, a crash of the machine may.
    case buffered
    /// At once: after a crash, restore from a checkpoint.
    case off
}

/// Where what was acknowledged is.
package enum Durability: String, Sendable, CaseIterable {
    /// On this server's disk.
    case local
    /// On log nodes and in the snapshot store: another server can go on when this one is gone with its disk.
    case replicated
}

package struct ServerConfiguration: PortSettings, MetadataSettings, LogClientSettings, Equatable, Sendable {
    package var dataDirectory = ""
    /// `HOST:PORT` or `unix:/PATH`; port 0 takes a free one.
    package var listen = ["127.0.0.1:7070"]
    package var allowRemote = false
    /// Empty: no admin port. Else as an address of `listen`.
    package var admin = ""
    /// PEM files; empty: nothing is encrypted.
    package var tlsCertificate = ""
    package var tlsKey = ""
    /// PEM file of who may sign certificates of clients; empty: clients need none.
    package var tlsClientAuthorities = ""
    /// Empty: everybody who can connect may do everything.
    package var tokensFile = ""
    package var eventLoops = 2
    package var log = LogRule.synced
    package var memtableBytes = 64 << 20
    package var blockCacheBytes = 256 << 20
    /// 0: the block cache and 1 GiB.
    package var memoryBytes = 0
    package var blockBytes = 4096
    package var filterBitsPerKey = 10
    package var compactionThreads = 2
    package var compactionBytesPerSecond = 0
    package var valueFileBytes = 0
    package var frameBytesMax = (16 << 20) + (64 << 10)
    package var connectionRequestsMax = 1024
    package var connectionBytesMax = 64 << 20
    package var drainMilliseconds = 10_000
    package var idleTreeMilliseconds = 60_000
    package var logLevel = "info"
    /// Empty: snapshots stay in the data directory.
    package var snapshotStore = ""
    package var hydrationBytesPerSecond = 64 << 20
    package var s3 = S3Settings()
    package var durability = Durability.local
    /// Members of the etcd cluster with the log nodes' metadata, `HOST:PORT`.
    package var etcd: [String] = []
    /// PEM files; empty: etcd is spoken to without TLS.
    package var etcdAuthorities = ""
    package var etcdCertificate = ""
    package var etcdKey = ""
    package var cluster = MetadataKeys.clusterNameDefault
    /// Log nodes of a log: those that an entry goes to, and those that must have it.
    package var logQuorum = "3/2"
    package var logAuthorities = ""
    package var logCertificate = ""
    package var logKey = ""
    package var logTokenFile = ""

    package init() {}

    /// Why the settings cannot work together, or nil.
    package func firstProblem() -> String? {
        if dataDirectory.isEmpty {
            return "no data directory is given: set it with --data DIR, CISTERN_DATA or \"data = DIR\" in the file"
        }
        return portsProblem() ?? storeProblem() ?? durabilityProblem() ?? sizesProblem()
    }

    private func storeProblem() -> String? {
        let address = SnapshotStoreAddress(snapshotStore)
        if !snapshotStore.isEmpty, address == nil {
            return "snapshot_store \"\(snapshotStore)\" is not \(SnapshotStoreAddress.forms)"
        }
        if case .s3(let location) = address {
            return s3.problem(location, mayBePlain: allowRemote).map { "snapshot_store: \($0)" }
        }
        if let given = s3.firstGiven {
            return "\(given) is given and snapshot_store is not s3://BUCKET/PREFIX: nothing would use it"
        }
        if case .directory(let path) = address, path == dataDirectory || path.hasPrefix(dataDirectory + "/") {
            return
                "snapshot_store \"\(snapshotStore)\" is in the data directory: what destroys the one would destroy the other"
        }
        return nil
    }

    private func durabilityProblem() -> String? {
        if logQuorumSizes == nil {
            return
                "log_quorum \"\(logQuorum)\" is not COPIES/ACKNOWLEDGED such as 3/2: both count from 1, the second is at most the "
                + "first, and \(QuorumSizes.ensembleMax) is the most"
        }
        if let problem = metadataProblem() ?? logClientProblem() { return problem }
        guard durability == .replicated else { return nil }
        if snapshotStore.isEmpty {
            return
                "durability is replicated and snapshot_store is empty: what is older than the log is taken from there"
        }
        if log == .off { return "durability is replicated and log is off: give log = buffered or synced" }
        return nil
    }

    /// nil when the text is none.
    package var logQuorumSizes: QuorumSizes? {
        let parts = logQuorum.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 2, let copies = parts[0], let acknowledged = parts[1], acknowledged >= 1,
            acknowledged <= copies, copies <= QuorumSizes.ensembleMax
        else { return nil }
        return QuorumSizes(ensemble: copies, write: copies, ack: acknowledged)
    }

    /// Relations between sizes that would otherwise show as a hang or an error at the first large request.
    private func sizesProblem() -> String? {
        if connectionBytesMax < frameBytesMax {
            return "connection_bytes_max (\(connectionBytesMax)) is less than frame_bytes_max (\(frameBytesMax)): a "
                + "largest frame could never be sent; raise the first or lower the second"
        }
        if blockCacheBytes < 64 * blockBytes {
            return "block_cache_bytes (\(blockCacheBytes)) holds fewer than 64 blocks of block_bytes (\(blockBytes)): "
                + "raise it to \(64 * blockBytes) or more"
        }
        if memoryBytes > 0 && memoryBytes < blockCacheBytes + 2 * memtableBytes {
            return "memory_bytes (\(memoryBytes)) is less than block_cache_bytes and two memtable_bytes "
                + "(\(blockCacheBytes + 2 * memtableBytes)): no memtable would ever be filled; raise it, or give 0 for the "
                + "cache and 1 GiB"
        }
        if compactionBytesPerSecond > 0 && compactionBytesPerSecond < 1 << 20 {
            return "compaction_bytes_per_second (\(compactionBytesPerSecond)) is below 1 MiB: a single memtable would "
                + "be merged for minutes; raise it, or give 0 for no limit"
        }
        if hydrationBytesPerSecond > 0 && hydrationBytesPerSecond < 1 << 20 {
            return
                "hydration_bytes_per_second (\(hydrationBytesPerSecond)) is below 1 MiB: a tree of 10 GB would need the snapshot "
                + "store for hours; raise it, or give 0 for no limit"
        }
        if (1..<32).contains(valueFileBytes) {
            return
                "value_file_bytes (\(valueFileBytes)) is below 32: what points to a value would take as much as the value"
        }
        if memtableBytes < 16 * blockBytes {
            return "memtable_bytes (\(memtableBytes)) is less than 16 blocks of block_bytes (\(blockBytes)): files "
                + "would be too small; raise it to \(16 * blockBytes) or more"
        }
        return nil
    }
}
