// Flags of trees that outlive their server's disk.

internal import ArgumentParser

struct ReplicationFlags: ParsableArguments {
    @Option(help: "Where what was acknowledged is: local or replicated.") var durability: String?
    @Option(help: "Members of the etcd cluster with the log nodes' metadata: HOST:PORT, several separated by commas.")
    var etcd: String?
    @Option(help: "PEM file of who may sign etcd's certificates.") var etcdAuthorities: String?
    @Option(help: "PEM file of the certificate that is shown to etcd.") var etcdCertificate: String?
    @Option(help: "PEM file of its private key.") var etcdKey: String?
    @Option(help: "Which cluster of log nodes in etcd.") var cluster: String?
    @Option(help: "COPIES/ACKNOWLEDGED: to how many log nodes a write goes, and how many must have it.")
    var logQuorum: String?

    var settings: [(String, String?)] {
        [
            ("durability", durability), ("etcd", etcd), ("etcd_authorities", etcdAuthorities),
            ("etcd_certificate", etcdCertificate), ("etcd_key", etcdKey), ("cluster", cluster),
            ("log_quorum", logQuorum),
        ]
    }
}
