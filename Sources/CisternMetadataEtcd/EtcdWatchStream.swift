// One watch: a connection of its own, opened again at another member where the last one left off.

internal import CisternLogProtocol
internal import CisternMetadata
internal import NIOCore
internal import Synchronization

final class EtcdWatchStream: Sendable {
    private static let pauseMillisecondsMin = 50
    private static let pauseMillisecondsMax = 1_000

    private struct State {
        var connection: EtcdConnection?
        /// Of one message, not given out yet, oldest first.
        var ready: [MetadataChangeSet] = []
        /// The first version that was not given out or is in `ready`.
        var next: MetadataVersion
    }

    private let client: EtcdClient
    private let prefix: String
    /// One consumer at a time, so that nothing changes between two looks at it.
    private let state: Mutex<State>

    init(client: EtcdClient, prefix: String, from first: MetadataVersion) {
        self.client = client
        self.prefix = prefix
        // To etcd, 0 means "from now on".
        state = Mutex(State(next: max(first, 1)))
    }

    deinit { state.withLock { $0.connection }?.close() }

    func next() async throws(MetadataError) -> MetadataChangeSet? {
        // Begun again, from the first version that was not seen, for as long as a call may take.
        var failures = 0
        var end: NIODeadline?
        while true {
            if let ready = state.withLock({ $0.ready.isEmpty ? nil : $0.ready.removeFirst() }) {
                return ready
            }
            if Task.isCancelled { return nil }
            do throws(EtcdFailure) {
                let connection = try await connection()
                guard let line = try await connection.nextLine(timeout: nil) else {
                    throw EtcdFailure.noAnswer("the watch has ended")
                }
                try await take(try client.decode(EtcdStreamed<EtcdWatchReply>.self, line))
                failures = 0
                end = nil
            } catch {
                if Task.isCancelled { return nil }
                if let oldest = compacted(error) {
                    throw MetadataError(.watch, prefix, .compacted(oldest: oldest))
                }
                drop()
                let deadline = end ?? .now() + client.options.callTimeout
                end = deadline
                guard deadline > .now() else {
                    throw MetadataError(.watch, prefix, .unavailable("etcd: \(error.detail)"))
                }
                await pause(failures)
                failures += 1
            }
        }
    }

    private func pause(_ failures: Int) async {
        do {
            let pause = EtcdWatchStream.pauseMillisecondsMin << min(failures, 16)
            try await Task.sleep(for: .milliseconds(min(pause, EtcdWatchStream.pauseMillisecondsMax)))
        } catch {
            // The watching task is cancelled, which is looked at before the next step.
        }
    }

    private func connection() async throws(EtcdFailure) -> EtcdConnection {
        let (open, next) = state.withLock { ($0.connection, $0.next) }
        if let open { return open }
        // One version early: etcd 3.4 takes a watch from the very version that it was compacted at, of which it has dropped the
        // deletes. So that one is refused, and what comes too early is left out by `take`.
        let create = EtcdWatchRequest.Create(
            key: EtcdBytes(prefix.isEmpty ? [0] : Array(prefix.utf8)),
            rangeEnd: EtcdMetadataStore.end(ofPrefix: prefix), startRevision: EtcdNumber(max(next - 1, 1)))
        let connection = try await client.open("/v3/watch", EtcdWatchRequest(create: create))
        state.withLock { $0.connection = connection }
        return connection
    }

    private func drop() {
        guard let connection = state.withLock({ $0.connection }) else { return }
        state.withLock { $0.connection = nil }
        connection.close()
        client.leave(connection)
    }

    private func compacted(_ failure: EtcdFailure) -> MetadataVersion? {
        if case .compacted(let oldest) = failure { oldest } else { nil }
    }

    private func take(_ reply: EtcdStreamed<EtcdWatchReply>) async throws(EtcdFailure) {
        if let error = reply.error {
            throw .refused(code: error.code ?? 0, message: error.message ?? "no message")
        }
        guard let result = reply.result else { throw .noAnswer("a message of the watch has no result") }
        if let revision = result.compactRevision?.value, revision > 0 {
            throw .compacted(oldest: revision + 1)
        }
        if result.canceled == true {
            throw .noAnswer(result.cancelReason ?? "etcd has ended the watch")
        }
        var sets: [MetadataChangeSet] = []
        for event in result.events ?? [] {
            guard let kv = event.kv, let key = kv.key?.text else {
                throw .noAnswer("an event has no key")
            }
            let change = MetadataChange(
                key: key, value: event.type == "DELETE" ? nil : kv.value?.bytes ?? [])
            if let last = sets.last, last.version == kv.version {
                sets[sets.count - 1] = MetadataChangeSet(
                    version: last.version, changes: last.changes + [change])
            } else {
                sets.append(MetadataChangeSet(version: kv.version, changes: [change]))
            }
        }
        let received = sets
        state.withLock { state in
            // The version before the first one comes too.
            state.ready += received.filter { $0.version >= state.next }
            if let last = received.last { state.next = max(state.next, last.version + 1) }
        }
    }
}
