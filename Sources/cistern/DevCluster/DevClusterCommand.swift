// `cistern dev-cluster up|down|status`.

internal import ArgumentParser
internal import Foundation

struct DevClusterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev-cluster",
        abstract: "A whole cluster on this machine, in one directory: etcd, three log nodes, two state servers.",
        discussion: """
            The state servers keep their trees on the log nodes and in a snapshot store (durability = replicated), so that each goes \
            on with the other's when that is gone.
            """,
        subcommands: [DevClusterUpCommand.self, DevClusterDownCommand.self, DevClusterStatusCommand.self])
}

struct DevClusterPlace: ParsableArguments {
    @Option(name: .shortAndLong, help: "Directory of the cluster.") var directory = "cistern-dev"

    var cluster: DevCluster { DevCluster(directory: directory) }
}

struct DevClusterUpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up",
        abstract: "Start what does not run; all of it serves when this returns.",
        discussion: """
            Needs etcd in PATH (apt install etcd-server). Everything listens on free ports of 127.0.0.1, without encryption or \
            tokens, and keeps its port from one start to the next while it is free. DIR/logs has what the processes say.
            """)

    @OptionGroup var place: DevClusterPlace

    func run() async throws {
        let cluster = place.cluster
        try await cluster.up()
        printMembers(of: cluster)
        print("")
        if let server = cluster.states[0].addresses.first { print("try   cistern example flights --server \(server)") }
        print("end   cistern dev-cluster down --directory \(cluster.directory)")
    }
}

struct DevClusterDownCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down",
        abstract: "End all of it; its data stays.",
        discussion: "Asks with SIGTERM, and kills what has not ended \(DevCluster.stopTime) later.")

    @OptionGroup var place: DevClusterPlace

    func run() async throws {
        let cluster = place.cluster
        for member in try await cluster.down() {
            print("\(member.name) did not end within \(DevCluster.stopTime) and was killed")
        }
        print("nothing runs in \(cluster.directory)")
    }
}

struct DevClusterStatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Tell what runs, and where.",
        discussion: "Exit status 0: all of it runs. 1: something does not.")

    @OptionGroup var place: DevClusterPlace

    func run() throws {
        let cluster = place.cluster
        guard cluster.exists else {
            throw DevClusterError("there is no cluster in \(cluster.directory): cistern dev-cluster up makes one")
        }
        printMembers(of: cluster)
        guard cluster.members.allSatisfy({ if case .running = $0.state { true } else { false } }) else {
            throw ExitCode(1)
        }
    }
}

private func printMembers(of cluster: DevCluster) {
    for member in cluster.members {
        let state =
            switch member.state {
            case .running(let process): "runs, process \(process.id)"
            case .dead: "has died, see \(member.log)"
            case .stopped: "is stopped"
            }
        // etcd's second address is for its peers.
        let (address, admin) = (member.addresses.first ?? "", member.addresses.dropFirst().first)
        let more = member.name == "etcd" ? nil : admin.map { "   admin \($0)" }
        print(
            member.name.padding(toLength: 9, withPad: " ", startingAt: 0)
                + address.padding(toLength: 17, withPad: " ", startingAt: 0) + state + (more ?? ""))
    }
}
