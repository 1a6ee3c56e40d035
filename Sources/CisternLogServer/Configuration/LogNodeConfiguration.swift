// What a log node can be told, and which combinations cannot work. The texts and names are in `LogNodeOption`.

internal import CisternDaemon
internal import CisternMetadata

package struct LogNodeConfiguration: PortSettings, MetadataSettings, LogClientSettings, Equatable, Sendable {
    package var dataDirectory = ""
    /// 0: not given.
    package var node = 0
    package var cluster = MetadataKeys.clusterNameDefault
    /// Members of the etcd cluster, `HOST:PORT`.
    package var etcd: [String] = []
    /// PEM files; empty: etcd is spoken to without TLS.
    package var etcdAuthorities = ""
    package var etcdCertificate = ""
    package var etcdKey = ""
    package var listen = ["127.0.0.1:7080"]
    /// Where clients reach the node; empty: where it listens.
    package var advertise = ""
    package var allowRemote = false
    package var admin = ""
    package var tlsCertificate = ""
    package var tlsKey = ""
    package var tlsClientAuthorities = ""
    package var tokensFile = ""
    package var eventLoops = 2
    package var segmentBytes = 64 << 20
    package var spareSegments = 2
    package var keptSegments = 16
    package var diskReserveBytes = 256 << 20
    package var connectionRequestsMax = 16_384
    package var connectionBytesMax = 64 << 20
    package var unansweredBytesMax = 256 << 20
    package var leaseMilliseconds = 10_000
    package var collectMilliseconds = 60_000
    package var scrubMilliseconds = 24 * 3_600_000
    package var scrubBytesPerSecond = 16 << 20
    package var repair = true
    package var repairGraceMilliseconds = 600_000
    package var repairBytesPerSecond = 16 << 20
    /// How this node connects to others, whose ports are protected like its own.
    package var logAuthorities = ""
    package var logCertificate = ""
    package var logKey = ""
    package var logTokenFile = ""
    package var drainMilliseconds = 10_000
    package var logLevel = "info"

    package init() {}

    /// Why the settings cannot work together, or nil.
    package func firstProblem() -> String? {
        if dataDirectory.isEmpty {
            return
                "no data directory is given: set it with --data DIR, CISTERN_LOG_NODE_DATA or \"data = DIR\" in the file"
        }
        if node == 0 {
            return
                "the node has no number: give it one of its own in the cluster, from 1, with --node N; it keeps it for ever"
        }
        if etcd.isEmpty { return "no metadata is given: name the members of an etcd cluster with --etcd HOST:PORT" }
        return portsProblem() ?? metadataProblem() ?? peerProblem() ?? advertiseProblem() ?? sizesProblem()
    }

    private func peerProblem() -> String? {
        if let problem = logClientProblem() { return problem }
        if repair && !tlsCertificate.isEmpty && logAuthorities.isEmpty {
            return
                "the node has tls_certificate and does not know who signs those of its peers, from which it repairs: give "
                + "log_authorities, or repair = false"
        }
        return nil
    }

    /// Clients on other machines connect to what is advertised, so it must mean the same there.
    private func advertiseProblem() -> String? {
        if advertise.isEmpty {
            guard case .tcp(let host, _)? = advertised else {
                return
                    "clients find the node by HOST:PORT and it listens on Unix sockets only: give advertise or listen on HOST:PORT"
            }
            if ["0.0.0.0", "::"].contains(host) {
                return
                    "listen \"\(listen[0])\" takes connections to every address of this machine: give the one that clients use "
                    + "with advertise"
            }
            return nil
        }
        guard case .tcp(let host, _)? = ListenAddress(advertise), MetadataLimits.isKey(advertise),
            advertise.utf8.count <= LogNodeRegistration.addressBytesMax
        else { return "advertise \"\(advertise)\" is not HOST:PORT, of visible ASCII characters" }
        if ["0.0.0.0", "::"].contains(host) {
            return "advertise \"\(advertise)\" is no address that can be connected to"
        }
        return nil
    }

    /// Port 0 stands for the one that the system gives.
    var advertised: ListenAddress? {
        if !advertise.isEmpty { return ListenAddress(advertise) }
        return listen.lazy.compactMap { ListenAddress($0) }.first { if case .tcp = $0 { true } else { false } }
    }

    /// Relations between sizes that would otherwise show as a hang or an error at the first large request.
    private func sizesProblem() -> String? {
        if segmentBytes % 4096 != 0 { return "segment_bytes (\(segmentBytes)) is not a multiple of 4096" }
        if keptSegments < spareSegments {
            return
                "kept_segments (\(keptSegments)) is less than spare_segments (\(spareSegments)): segments would be removed and "
                + "written anew"
        }
        if unansweredBytesMax < connectionBytesMax {
            return
                "unanswered_bytes_max (\(unansweredBytesMax)) is less than connection_bytes_max (\(connectionBytesMax)): one "
                + "connection would stop all others; raise the first or lower the second"
        }
        return nil
    }
}
