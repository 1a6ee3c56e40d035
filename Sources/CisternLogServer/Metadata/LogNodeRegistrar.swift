// Keeps a node registered: a key with a lease, which says where the node is and whether it takes adds. The owner calls `step` from time to
// time; nothing here waits by itself.
//
//   no lease ─ step ─► acquire, create the key ─► registered ─ step ─► keep alive, tell what changed
//      ▲                                              │
//      └────────────── the lease has ended ◄──────────┘   (etcd was away: the node serves on, and comes back here)

package import CisternLogProtocol
package import CisternMetadata
package import CisternPrimitives
package import Logging

package actor LogNodeRegistrar {
    package struct Status: Sendable, Equatable {
        package var isRegistered = false
        /// Leases that ended while the node was there.
        package var leasesLost: UInt64 = 0
        /// Steps that metadata did not answer, or refused.
        package var failures: UInt64 = 0
        /// Of the last step; nil when it went well.
        package var problem: String?

        package init() {}
    }

    private let records: RecordStore
    private let keys: MetadataKeys
    private let cluster: UInt64
    private let node: LogNodeID
    private let cookie: [UInt8]
    private let address: String
    private let leaseMilliseconds: UInt64
    private let time: any TimeSource
    private let logger: Logger

    private var lease: MetadataLease?
    private var keptNanoseconds: UInt64 = 0
    private var written: (registration: LogNodeRegistration, version: MetadataVersion)?
    private var isReadOnly = false
    private var isWithdrawn = false
    package private(set) var status = Status()

    /// - Parameters:
    ///   - cluster: the number that metadata must have: without it, it is not the metadata of this node.
    ///   - cookie: as metadata has it.
    package init(
        store: any MetadataStore, keys: MetadataKeys, cluster: UInt64, node: LogNodeID, cookie: [UInt8],
        address: String,
        leaseMilliseconds: UInt64, time: any TimeSource, logger: Logger
    ) {
        records = RecordStore(store)
        self.keys = keys
        self.cluster = cluster
        self.node = node
        self.cookie = cookie
        self.address = address
        self.leaseMilliseconds = leaseMilliseconds
        self.time = time
        self.logger = logger
    }

    /// Does what is due.
    /// - Parameter isReadOnly: the node takes no adds.
    /// - Returns: true when the node is registered as it is.
    @discardableResult
    package func step(isReadOnly: Bool) async -> Bool {
        self.isReadOnly = isReadOnly
        do throws(MetadataError) {
            try await keepLease()
            if lease == nil { try await register() } else { try await update() }
            if status.problem != nil { logger.notice("registered again", metadata: ["node": "\(node)"]) }
            status.problem = nil
        } catch {
            status.failures += 1
            // Said once until it is over.
            if status.problem == nil {
                logger.warning(
                    "metadata does not keep this node registered; it serves on and tries again",
                    metadata: ["node": "\(node)", "error": "\(error)"])
            }
            status.problem = error.description
        }
        return status.isRegistered && status.problem == nil
    }

    /// The node goes: clients look for others at once.
    package func withdraw() async {
        isWithdrawn = true
        await release()
    }

    private func release() async {
        status.isRegistered = false
        written = nil
        guard let lease else { return }
        self.lease = nil
        do throws(MetadataError) { try await records.store.release(lease.id) } catch {
            // It ends by itself.
            logger.info("the lease was not given back", metadata: ["error": "\(error)"])
        }
    }

    private func keepLease() async throws(MetadataError) {
        guard let lease else { return }
        let now = time.monotonicNanoseconds
        // A third: two may be lost.
        guard now - keptNanoseconds >= lease.milliseconds * 1_000_000 / 3 else { return }
        do throws(MetadataError) {
            try await records.store.keepAlive(lease.id)
            keptNanoseconds = now
        } catch {
            guard case .leaseEnded = error.reason else { throw error }
            lost()
        }
    }

    private func lost() {
        logger.warning("the lease has ended; the node registers again", metadata: ["node": "\(node)"])
        lease = nil
        written = nil
        status.isRegistered = false
        status.leasesLost += 1
    }

    private func register() async throws(MetadataError) {
        guard !isWithdrawn else { return }
        guard try await records.get(ClusterRecord.self, keys.cluster)?.value.number == cluster else {
            throw MetadataError(
                .get, keys.cluster, .damaged("it is not cluster number \(cluster), to which this node belongs"))
        }
        try await removeOld()
        let granted = try await records.store.acquireLease(milliseconds: leaseMilliseconds)
        let registration = registration
        do throws(MetadataError) {
            let version = try await records.create(keys.node(node), registration, lease: granted.id)
            lease = granted
            keptNanoseconds = time.monotonicNanoseconds
            written = (registration, version)
            status.isRegistered = true
        } catch {
            lease = granted
            await release()
            throw error
        }
        if isWithdrawn { await release() }
    }

    /// What an earlier process of this node left, whose lease lasts on.
    private func removeOld() async throws(MetadataError) {
        let key = keys.node(node)
        guard let old = try await records.get(LogNodeRegistration.self, key) else { return }
        guard old.value.cookie == cookie else {
            throw MetadataError(
                .create, key,
                .damaged("the node is registered from another directory, at \(old.value.address): end that one"))
        }
        do throws(MetadataError) { try await records.store.delete(key, expected: old.version) } catch {
            if error.reason != .missing { throw error }
        }
    }

    private var registration: LogNodeRegistration {
        LogNodeRegistration(node: node, cookie: cookie, address: address, isReadOnly: isReadOnly)
    }

    private func update() async throws(MetadataError) {
        let wanted = registration
        guard let written, written.registration != wanted else { return }
        do throws(MetadataError) {
            let version = try await records.compareAndSwap(keys.node(node), expected: written.version, new: wanted)
            self.written = (wanted, version)
            logger.notice(wanted.isReadOnly ? "registered as read-only" : "registered as writable")
        } catch {
            // A key that is gone or another one's: begin anew, with a lease of its own.
            switch error.reason {
            case .missing, .conflict:
                lost()
                try await register()
            default:
                throw error
            }
        }
    }
}
