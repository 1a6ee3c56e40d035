// Whether a directory may be a node's: what its cookie says, beside what metadata says. A directory that is not the one the node
// had would call entries absent that were acknowledged.
//
//   begin     the directory is unused and metadata knows nothing of the node ─► cookie in the directory, then in metadata
//   finish    the directory has a cookie and metadata has none: a beginning that was cut short
//   go on     both have the same
//   refuse    anything else
//
// The directory's random number decides between two directories that are begun under one number at a time: metadata takes one.

package import CisternDaemon
package import CisternFileSystem
package import CisternLogNode
package import CisternLogProtocol
package import CisternMetadata
internal import CisternPrimitives

package struct LogNodeIdentity: Sendable {
    let node: LogNodeID
    let cluster: String
    let directory: String
    let fileSystem: any FileSystem
    let store: any MetadataStore
    /// For files.
    let lane: BlockingLane

    package init(
        node: LogNodeID, cluster: String, directory: String, fileSystem: any FileSystem, store: any MetadataStore,
        lane: BlockingLane
    ) {
        self.node = node
        self.cluster = cluster
        self.directory = directory
        self.fileSystem = fileSystem
        self.store = store
        self.lane = lane
    }
}

package struct LogNodeIdentityError: Error, Sendable, CustomStringConvertible {
    package let description: String
    /// Metadata gave no answer: the same later may work.
    package let mayPass: Bool
}

extension LogNodeIdentity {
    private var keys: MetadataKeys { MetadataKeys(cluster: cluster) }
    private var records: RecordStore { RecordStore(store) }

    /// The cookie with which the node may serve from its directory.
    package func claim() async throws(LogNodeIdentityError) -> LogNodeCookie {
        let found = try await inDirectory { (directory, files) throws(JournalError) in
            try LogNodeCookie.read(directory, fileSystem: files)
        }
        let isUnused = try await inDirectory { (directory, files) throws(JournalError) in
            try LogNodeCookie.isUnused(directory, fileSystem: files)
        }
        let known = try await asked { () async throws(MetadataError) in
            (
                number: try await records.get(ClusterRecord.self, keys.cluster)?.value.number,
                cookie: try await records.get(CookieRecord.self, keys.cookie(node))?.value.cookie
            )
        }
        if let refusal = refusal(found: found, isUnused: isUnused, number: known.number, cookie: known.cookie) {
            throw LogNodeIdentityError(description: refusal, mayPass: false)
        }
        if let found {
            if known.cookie == nil { try await register(found) }
            return found
        }
        let cookie = LogNodeCookie(newDirectoryOf: node, cluster: try await clusterNumber(known.number))
        try await inDirectory { (directory, files) throws(JournalError) in
            try cookie.begin(directory, fileSystem: files)
        }
        try await register(cookie)
        return cookie
    }

    /// Why the node may not serve from the directory, or nil. Pure.
    func refusal(found: LogNodeCookie?, isUnused: Bool, number: UInt64?, cookie: [UInt8]?) -> String? {
        guard let found else {
            if !isUnused {
                return
                    "\(directory) has files and no cookie of a log node: it is something else's, or its cookie was lost; give an "
                    + "empty directory, with a number that no node had"
            }
            guard cookie != nil else { return nil }
            return
                "log node \(node.rawValue) of cluster \(cluster) has a directory already, and \(directory) is empty: start it with "
                + "the directory it had; if that is lost, give this one a number that no node had (--node), and what the lost node "
                + "held is copied from its peers"
        }
        if found.node != node {
            return
                "\(directory) is the directory of log node \(found.node.rawValue), not of \(node.rawValue): give --node "
                + "\(found.node.rawValue), or the directory of node \(node.rawValue)"
        }
        guard let number else {
            return
                "etcd knows no cluster \(cluster), and \(directory) has been in use: it is another etcd, another name (--cluster), or "
                + "its data was lost; bring back etcd's data from a backup. Without it ledgers cannot be found"
        }
        if found.cluster != number {
            return
                "\(directory) belongs to cluster number \(found.cluster), and \(cluster) in etcd has number \(number): check --etcd "
                + "and --cluster"
        }
        if let cookie, cookie != found.stored {
            return
                "log node \(node.rawValue) of cluster \(cluster) has another directory than \(directory): two were begun with one "
                + "number, or this one is an old copy; start the node with the directory it had, or empty this one and give it a "
                + "number that no node had"
        }
        return nil
    }

    /// The first node of a cluster chooses its number.
    private func clusterNumber(_ known: UInt64?) async throws(LogNodeIdentityError) -> UInt64 {
        if let known { return known }
        return try await asked { () async throws(MetadataError) in
            var random = SystemRandomNumberGenerator()
            let number: UInt64 = random.next()
            do throws(MetadataError) {
                _ = try await records.create(keys.cluster, ClusterRecord(number: number))
                return number
            } catch {
                // Another node was faster, or this one was and did not hear of it.
                guard let found = try await records.get(ClusterRecord.self, keys.cluster) else { throw error }
                return found.value.number
            }
        }
    }

    private func register(_ cookie: LogNodeCookie) async throws(LogNodeIdentityError) {
        let stored = try await asked { () async throws(MetadataError) in
            do throws(MetadataError) {
                _ = try await records.create(
                    keys.cookie(node), CookieRecord(node: node, cookie: cookie.stored))
                return cookie.stored
            } catch {
                guard let found = try await records.get(CookieRecord.self, keys.cookie(node)) else { throw error }
                return found.value.cookie
            }
        }
        if let refusal = refusal(found: cookie, isUnused: false, number: cookie.cluster, cookie: stored) {
            throw LogNodeIdentityError(description: refusal, mayPass: false)
        }
    }

    private func inDirectory<Value: Sendable>(
        _ body: @escaping @Sendable (String, any FileSystem) throws(JournalError) -> Value
    ) async throws(LogNodeIdentityError) -> Value {
        let result = await lane.run { [directory, fileSystem] () -> Result<Value, JournalError> in
            do throws(JournalError) { return .success(try body(directory, fileSystem)) } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let value): return value
        case .failure(let error): throw LogNodeIdentityError(description: error.description, mayPass: false)
        case nil: throw LogNodeIdentityError(description: "the node's blocking thread was stopped", mayPass: false)
        }
    }

    private func asked<Value: Sendable>(
        _ body: () async throws(MetadataError) -> Value
    ) async throws(LogNodeIdentityError) -> Value {
        do throws(MetadataError) { return try await body() } catch {
            throw LogNodeIdentityError(description: error.description, mayPass: error.isUnavailable)
        }
    }
}
