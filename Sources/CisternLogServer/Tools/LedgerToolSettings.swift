// Where an operator's command finds the metadata of the log nodes, and how it speaks to them.

internal import CisternDaemon
internal import CisternMetadata
internal import CisternMetadataEtcd
internal import NIOPosix

package struct LedgerToolSettings: MetadataSettings, LogClientSettings {
    package var etcd: [String] = []
    package var etcdAuthorities = ""
    package var etcdCertificate = ""
    package var etcdKey = ""
    package var cluster = MetadataKeys.clusterNameDefault
    package var logAuthorities = ""
    package var logCertificate = ""
    package var logKey = ""
    package var logTokenFile = ""

    package init() {}

    /// Metadata by these settings; asks nothing yet. Whoever takes it closes it.
    /// - Throws: when the settings cannot work.
    func openMetadata() throws(ServerStartError) -> EtcdMetadataStore {
        if etcd.isEmpty {
            throw ServerStartError(
                description:
                    "no metadata is given: name the members of the log nodes' etcd cluster with --etcd HOST:PORT")
        }
        if let problem = metadataProblem() ?? logClientProblem() { throw ServerStartError(description: problem) }
        guard MetadataKeys.isClusterName(cluster) else {
            throw ServerStartError(
                description: "cluster \"\(cluster)\" is no name of 1 to 64 letters, digits, -, _ and .")
        }
        return EtcdMetadataStore(options: try etcdOptions(), group: .singletonMultiThreadedEventLoopGroup)
    }
}
