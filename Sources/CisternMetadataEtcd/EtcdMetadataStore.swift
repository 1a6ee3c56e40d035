// The metadata store of a cluster: etcd 3.4 or later, by its HTTP/JSON gateway. A version is etcd's revision.
//
// A change is one transaction: compare, then write. It goes to one member; when its answer does not come it is not sent again, because
// it may have been done, and the caller is told so. Reads, and what may be done twice, are tried at the other members.

package import CisternLogProtocol
package import CisternMetadata
package import NIOCore

package final class EtcdMetadataStore: MetadataStore {
    /// gRPC's codes, of which the gateway's answers have the number.
    private static let notFound = 5
    private static let resourceExhausted = 8

    let client: EtcdClient

    package init(options: EtcdOptions, group: any EventLoopGroup) {
        client = EtcdClient(options: options, group: group)
    }

    /// Closes the connections that are kept, before their event loops end. Idempotent.
    package func close() { client.close() }

    // MARK: Keys

    package func create(
        _ key: String, _ value: [UInt8], lease: MetadataLeaseID?
    ) async throws(MetadataError) -> MetadataVersion {
        try MetadataError.check(.create, key: key, value: value)
        let put = EtcdPut(
            key: EtcdBytes(key.utf8), value: EtcdBytes(value), lease: lease.map(EtcdNumber.init))
        let reply = try await transaction(
            .create, key, if: .isMissing(key), then: EtcdOperation(requestPut: put), lease: lease)
        guard reply.succeeded == true else {
            throw MetadataError(.create, key, .exists(version: reply.found ?? 0))
        }
        return try version(.create, key, reply.header)
    }

    package func get(_ key: String) async throws(MetadataError) -> MetadataEntry? {
        try MetadataError.check(.get, key: key)
        return try await range(.get, key, EtcdRange(key: EtcdBytes(key.utf8))).kvs?.first?.entry
    }

    package func compareAndSwap(
        _ key: String, expected: MetadataVersion, new value: [UInt8]
    ) async throws(MetadataError) -> MetadataVersion {
        try MetadataError.check(.compareAndSwap, key: key, value: value)
        let put = EtcdPut(key: EtcdBytes(key.utf8), value: EtcdBytes(value), ignoreLease: true)
        let reply = try await swap(
            .compareAndSwap, key, expected: expected, EtcdOperation(requestPut: put))
        return try version(.compareAndSwap, key, reply.header)
    }

    package func delete(_ key: String, expected: MetadataVersion) async throws(MetadataError) {
        try MetadataError.check(.delete, key: key)
        let delete = EtcdOperation(requestDeleteRange: EtcdKeyOnly(key: EtcdBytes(key.utf8)))
        _ = try await swap(.delete, key, expected: expected, delete)
    }

    /// etcd bounds a page by its number of entries only: one that is too large is asked for again, shorter.
    package func list(prefix: String, after: String?, limit: Int) async throws(MetadataError)
        -> MetadataPage
    {
        try MetadataError.check(.list, prefix: prefix)
        try MetadataError.check(limit: limit, prefix: prefix)
        var start = Array(prefix.utf8)
        if let after, after >= prefix { start = Array(after.utf8) + [0] }
        var count = min(limit, MetadataLimits.pageEntriesMax)
        while true {
            let request = EtcdRange(
                key: EtcdBytes(start.isEmpty ? [0] : start),
                rangeEnd: EtcdMetadataStore.end(ofPrefix: prefix),
                limit: count)
            do throws(EtcdFailure) {
                let reply = try await client.call(
                    "/v3/kv/range", request, isRepeatable: true, as: EtcdRangeReply.self)
                let entries = reply.kvs?.map(\.entry) ?? []
                return MetadataPage(
                    entries: entries, next: reply.more == true ? entries.last?.key : nil,
                    version: reply.header?.revision?.value ?? 0)
            } catch {
                guard EtcdMetadataStore.isTooLarge(error), count > 1 else {
                    throw unavailable(.list, prefix, error)
                }
                count /= 4
                if count == 0 { count = 1 }
            }
        }
    }

    /// Where keys that begin with `prefix` end; the zero byte says "at the last key".
    static func end(ofPrefix prefix: String) -> EtcdBytes {
        var bytes = Array(prefix.utf8)
        guard let last = bytes.last else { return EtcdBytes([0]) }
        // Keys are ASCII, so the last byte can always be counted up.
        bytes[bytes.count - 1] = last + 1
        return EtcdBytes(bytes)
    }

    private static func isTooLarge(_ failure: EtcdFailure) -> Bool {
        switch failure {
        case .tooLarge: true
        case .refused(let code, _): code == resourceExhausted
        case .notSent, .noAnswer, .compacted: false
        }
    }

    // MARK: Leases

    /// etcd's leases last whole seconds, and at least as long as it says.
    package func acquireLease(milliseconds: UInt64) async throws(MetadataError) -> MetadataLease {
        try MetadataError.check(leaseMilliseconds: milliseconds)
        let request = EtcdLeaseRequest(seconds: EtcdNumber((milliseconds + 999) / 1_000))
        do throws(EtcdFailure) {
            // Granted twice, one of them ends by itself.
            let reply = try await client.call(
                "/v3/lease/grant", request, isRepeatable: true, as: EtcdLeaseReply.self)
            guard let id = reply.id?.value, let seconds = reply.seconds?.value, reply.error == nil else {
                throw EtcdFailure.noAnswer("the answer has no lease: \(reply.error ?? "no reason given")")
            }
            return MetadataLease(
                id: MetadataLeaseID(Int64(truncatingIfNeeded: id)),
                milliseconds: seconds.multipliedReportingOverflow(by: 1_000).partialValue)
        } catch {
            throw unavailable(.acquireLease, "", error)
        }
    }

    package func keepAlive(_ lease: MetadataLeaseID) async throws(MetadataError) {
        let seconds: UInt64
        do throws(EtcdFailure) {
            let reply = try await client.call(
                "/v3/lease/keepalive", EtcdLeaseRequest(id: EtcdNumber(lease)), isRepeatable: true,
                as: EtcdStreamed<EtcdLeaseReply>.self)
            if let error = reply.error {
                throw EtcdFailure.refused(code: error.code ?? 0, message: error.message ?? "no message")
            }
            seconds = reply.result?.seconds?.value ?? 0
        } catch {
            if case .refused(EtcdMetadataStore.notFound, _) = error {
                throw MetadataError(.keepAlive, "", .leaseEnded(lease))
            }
            throw unavailable(.keepAlive, "", error)
        }
        guard seconds > 0 else { throw MetadataError(.keepAlive, "", .leaseEnded(lease)) }
    }

    package func release(_ lease: MetadataLeaseID) async throws(MetadataError) {
        do throws(EtcdFailure) {
            _ = try await client.call(
                "/v3/lease/revoke", EtcdLeaseRequest(id: EtcdNumber(lease)), isRepeatable: true,
                as: EtcdNothing.self)
        } catch {
            if case .refused(EtcdMetadataStore.notFound, _) = error { return }
            throw unavailable(.release, "", error)
        }
    }

    // MARK: Watches

    package func watch(prefix: String, from first: MetadataVersion) -> MetadataWatch {
        let stream = EtcdWatchStream(client: client, prefix: prefix, from: first)
        return MetadataWatch { () async throws(MetadataError) in
            try MetadataError.check(.watch, prefix: prefix)
            return try await stream.next()
        }
    }

    /// Drops all history at or before `version`, for those who do not leave that to etcd.
    package func compact(through version: MetadataVersion) async throws(MetadataError) {
        do throws(EtcdFailure) {
            _ = try await client.call(
                "/v3/kv/compaction", EtcdCompaction(revision: EtcdNumber(version)), isRepeatable: false,
                as: EtcdNothing.self)
        } catch {
            throw unavailable(.watch, "", error)
        }
    }

    // MARK: Parts

    private func swap(
        _ operation: MetadataError.Operation, _ key: String, expected: MetadataVersion,
        _ change: EtcdOperation
    ) async throws(MetadataError) -> EtcdTransactionReply {
        // To etcd a key that is not there has version 0, which is no version that anybody has read.
        guard expected > 0 else {
            guard let found = try await get(key) else { throw MetadataError(operation, key, .missing) }
            throw MetadataError(operation, key, .conflict(expected: expected, found: found.version))
        }
        let reply = try await transaction(operation, key, if: .version(expected, of: key), then: change)
        if reply.succeeded == true { return reply }
        guard let found = reply.found else { throw MetadataError(operation, key, .missing) }
        throw MetadataError(operation, key, .conflict(expected: expected, found: found))
    }

    private func transaction(
        _ operation: MetadataError.Operation, _ key: String, if compare: EtcdCompare,
        then change: EtcdOperation,
        lease: MetadataLeaseID? = nil
    ) async throws(MetadataError) -> EtcdTransactionReply {
        let read = EtcdOperation(requestRange: EtcdRange(key: EtcdBytes(key.utf8), keysOnly: true))
        let request = EtcdTransaction(compare: [compare], success: [change], failure: [read])
        do throws(EtcdFailure) {
            return try await client.call("/v3/kv/txn", request, isRepeatable: false)
        } catch {
            if let lease, case .refused(EtcdMetadataStore.notFound, _) = error {
                throw MetadataError(operation, key, .leaseEnded(lease))
            }
            throw unavailable(operation, key, error)
        }
    }

    private func range(
        _ operation: MetadataError.Operation, _ key: String, _ request: EtcdRange
    ) async throws(MetadataError) -> EtcdRangeReply {
        do throws(EtcdFailure) {
            return try await client.call("/v3/kv/range", request, isRepeatable: true)
        } catch {
            throw unavailable(operation, key, error)
        }
    }

    private func version(
        _ operation: MetadataError.Operation, _ key: String, _ header: EtcdHeader?
    ) throws(MetadataError) -> MetadataVersion {
        guard let revision = header?.revision?.value, revision > 0 else {
            throw MetadataError(operation, key, .unavailable("etcd's answer has no revision"))
        }
        return revision
    }

    private func unavailable(
        _ operation: MetadataError.Operation, _ key: String, _ failure: EtcdFailure
    ) -> MetadataError { MetadataError(operation, key, .unavailable("etcd: \(failure.detail)")) }
}

extension EtcdNumber {
    init(_ lease: MetadataLeaseID) { self.init(UInt64(bitPattern: lease.rawValue)) }
}
