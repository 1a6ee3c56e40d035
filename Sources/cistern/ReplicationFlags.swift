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
    @Option(help: "PEM file of who may sign log nodes' certificates; then they are spoken to over TLS.")
    var logAuthorities: String?
    @Option(help: "PEM file of the certificate that is shown to log nodes.") var logCertificate: String?
    @Option(help: "PEM file of its private key.") var logKey: String?
    @Option(help: "File with the token that is shown to log nodes.") var logTokenFile: String?

    var settings: [(String, String?)] {
        [
            ("durability", durability), ("etcd", etcd), ("etcd_authorities", etcdAuthorities),
            ("etcd_certificate", etcdCertificate), ("etcd_key", etcdKey), ("cluster", cluster),
            ("log_quorum", logQuorum), ("log_authorities", logAuthorities), ("log_certificate", logCertificate),
            ("log_key", logKey), ("log_token_file", logTokenFile),
        ]
    }
}
