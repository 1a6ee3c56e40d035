// A metadata store in a directory of this process: one file, every change synced before it is answered. For a single state
// server with its log node inside, and for tests.
//
//     call ─► lane (one thread: leases that are over, then the call) ─► append, sync ─► tree ─► answer, watches
//
// Threading: any thread calls; all state is the lane's.

package import CisternFileSystem
package import CisternLogProtocol
package import CisternPrimitives
internal import Synchronization

package struct EmbeddedMetadataOptions: Sendable {
    /// A larger file is refused unread, and changes that would make one are refused.
    package static let fileBytesMax = 256 << 20

    /// The file is rewritten when its changes are more than this and more than twice its snapshot.
    package var changeBytesMin = 1 << 20
    /// What watches can go back.
    package var historyChangesMax = 65_536
    package var historyBytesMax = 16 << 20
    /// How often leases are looked at beside calls. nil: only with calls and `expireLeases`, for tests with a clock of their own.
    package var leaseCheckMilliseconds: UInt64? = 250

    package init() {}
}

package final class EmbeddedMetadataStore: MetadataStore {
    private let lane: any BackgroundLane
    private let core: EmbeddedMetadataCore
    private let nextWaiter = Atomic<UInt64>(0)

    /// Opens or makes the store in `directory`. Blocks for the file: not on an event loop.
    package init(
        directory: String, fileSystem: any FileSystem, time: any TimeSource = SystemTime(),
        options: EmbeddedMetadataOptions = EmbeddedMetadataOptions()
    ) throws(MetadataOpenError) {
        core = EmbeddedMetadataCore(
            file: try MetadataFile(directory: directory, fileSystem: fileSystem, options: options), time: time,
            options: options)
        lane = SerialThread(name: "metadata")
        if let interval = options.leaseCheckMilliseconds { scheduleLeaseCheck(core, lane, every: interval) }
    }

    deinit {
        // Nothing runs on the lane but what was asked; whoever asked holds the store.
        lane.stop()
    }

    /// What was behind the last whole change when the file was opened, and was cut: a change that was never answered.
    package var tornBytes: Int { core.tornBytes }

    /// Seals the file and gives the directory free. Idempotent. Calls after it end with `unavailable`.
    package func close() async {
        await onLane { core in core.close() }
    }

    /// Ends the leases that are over by the clock.
    package func expireLeases() async {
        await onLane { core in core.expireLeases() }
    }

    package func create(
        _ key: String, _ value: [UInt8], lease: MetadataLeaseID?
    ) async throws(MetadataError) -> MetadataVersion {
        try MetadataError.check(.create, key: key, value: value)
        return try await call(.create, key) { core throws(MetadataError) in try core.create(key, value, lease: lease) }
    }

    package func get(_ key: String) async throws(MetadataError) -> MetadataEntry? {
        try MetadataError.check(.get, key: key)
        return try await call(.get, key) { core throws(MetadataError) in core.get(key) }
    }

    package func compareAndSwap(
        _ key: String, expected: MetadataVersion, new value: [UInt8]
    ) async throws(MetadataError) -> MetadataVersion {
        try MetadataError.check(.compareAndSwap, key: key, value: value)
        return try await call(.compareAndSwap, key) { core throws(MetadataError) in
            try core.compareAndSwap(key, expected: expected, new: value)
        }
    }

    package func delete(_ key: String, expected: MetadataVersion) async throws(MetadataError) {
        try MetadataError.check(.delete, key: key)
        try await call(.delete, key) { core throws(MetadataError) in try core.delete(key, expected: expected) }
    }

    package func list(prefix: String, after: String?, limit: Int) async throws(MetadataError) -> MetadataPage {
        try MetadataError.check(.list, prefix: prefix)
        try MetadataError.check(limit: limit, prefix: prefix)
        return try await call(.list, prefix) { core throws(MetadataError) in
            core.list(prefix: prefix, after: after, limit: limit)
        }
    }

    package func acquireLease(milliseconds: UInt64) async throws(MetadataError) -> MetadataLease {
        try MetadataError.check(leaseMilliseconds: milliseconds)
        return try await call(.acquireLease, "") { core throws(MetadataError) in
            try core.acquireLease(milliseconds: milliseconds)
        }
    }

    package func keepAlive(_ lease: MetadataLeaseID) async throws(MetadataError) {
        try await call(.keepAlive, "") { core throws(MetadataError) in try core.keepAlive(lease) }
    }

    package func release(_ lease: MetadataLeaseID) async throws(MetadataError) {
        try await call(.release, "") { core throws(MetadataError) in try core.release(lease) }
    }

    package func watch(prefix: String, from first: MetadataVersion) -> MetadataWatch {
        let position = Atomic64(first)
        return MetadataWatch { [self] () async throws(MetadataError) in
            try MetadataError.check(.watch, prefix: prefix)
            let change = try await nextChange(prefix: prefix, from: position.value)
            if let change { position.value = change.version + 1 }
            return change
        }
    }

    private func nextChange(
        prefix: String, from first: MetadataVersion
    ) async throws(MetadataError) -> MetadataChangeSet? {
        let id = nextWaiter.add(1, ordering: .relaxed).newValue
        let answer: MetadataHistory.Answer = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                lane.submit { [core] in
                    core.watch(id, prefix: prefix, from: first) { continuation.resume(returning: $0) }
                }
                // After the submission, so that it is after the waiter on the lane.
                if Task.isCancelled { lane.submit { [core] in core.cancelWatch(id) } }
            }
        } onCancel: {
            lane.submit { [core] in core.cancelWatch(id) }
        }
        return try answer.get()
    }

    // MARK: The lane

    private func call<Value: Sendable>(
        _ operation: MetadataError.Operation, _ key: String,
        _ body: @escaping @Sendable (EmbeddedMetadataCore) throws(MetadataError) -> Value
    ) async throws(MetadataError) -> Value {
        let result: Result<Value, MetadataError> = await onLane { core in
            do throws(MetadataError) {
                try core.begin(operation, key)
                return .success(try body(core))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func onLane<Value: Sendable>(
        _ body: @escaping @Sendable (EmbeddedMetadataCore) -> Value
    ) async -> Value {
        await withCheckedContinuation { continuation in
            lane.submit { [core] in
                continuation.resume(returning: body(core))
                core.finish()
            }
        }
    }
}

/// A number that one watch moves on.
private final class Atomic64: Sendable {
    private let stored: Atomic<UInt64>

    init(_ value: UInt64) { stored = Atomic(value) }

    // Relaxed: one consumer at a time, and what orders its calls orders this too.
    var value: UInt64 {
        get { stored.load(ordering: .relaxed) }
        set { stored.store(newValue, ordering: .relaxed) }
    }
}

private func scheduleLeaseCheck(_ core: EmbeddedMetadataCore, _ lane: any BackgroundLane, every interval: UInt64) {
    lane.submit(afterMilliseconds: interval) { [weak core, weak lane] in
        guard let core, let lane, !core.isClosed else { return }
        core.expireLeases()
        core.finish()
        scheduleLeaseCheck(core, lane, every: interval)
    }
}
