// Batches on their way: numbered, sent in order, kept until acknowledged, sent again after a refusal or a lost connection.
// A batch is applied once however often it is sent, because the tree acknowledges a sequence it has without applying it.
// Owned by the session's task; acknowledgements arrive through the mailbox.
//
//   unsent ──send──► sent ──ack──► acked ──(all before it acked)──► retired
//      ▲               │
//      └──refused, lost┘   resent in order once nothing is outstanding

internal import CisternPrimitives

final class BatchSender {
    struct InFlight {
        enum State { case unsent, sent, acked }
        let sequence: UInt64
        let table: WriteTable
        let batch: SealedBatch
        let watermark: UInt64
        var state: State
    }

    /// Why batches must be sent again.
    enum Trouble: Equatable {
        case disconnected(String)
        case refused(milliseconds: UInt64, reason: String)
    }

    private struct Completion: Sendable {
        let generation: Int
        let sequence: UInt64
        let error: RemoteError?
    }

    private let remote: any RemoteTree
    private let mailbox = Mailbox<Completion>()
    /// Oldest first; at most `ClientConfiguration.batchesInFlight`.
    private(set) var inFlight: [InFlight] = []
    private(set) var lastSequence: UInt64 = 0
    private(set) var ackedSequence: UInt64 = 0
    private(set) var trouble: Trouble?
    private(set) var failure: ClientError?
    /// Sent and not completed. Batches are sent again only when this is 0, so that two copies never race.
    private(set) var outstanding = 0
    /// Counts connections: completions of an earlier one say nothing any more.
    private var generation = 0
    private(set) var batchesSent = 0
    private(set) var batchesResent = 0

    init(remote: any RemoteTree) { self.remote = remote }

    var isIdle: Bool { inFlight.isEmpty }
    var canSend: Bool { trouble == nil && failure == nil }

    /// Numbers the batch and sends it unless earlier ones have to be sent again first.
    func submit(_ batch: SealedBatch, from table: WriteTable, watermark: UInt64) {
        lastSequence += 1
        inFlight.append(
            InFlight(sequence: lastSequence, table: table, batch: batch, watermark: watermark, state: .unsent))
        if canSend { send(at: inFlight.count - 1) }
    }

    /// Takes in completions; returns the tables whose batches are acknowledged, in order.
    func poll() -> [WriteTable] {
        if mailbox.isEmpty { return [] }
        for completion in mailbox.drain() where completion.generation == generation { take(completion) }
        return retire()
    }

    /// Returns when a completion has arrived.
    /// - Precondition: something is outstanding.
    func waitForCompletion() async {
        precondition(outstanding > 0, "nothing is outstanding, so nothing would end the wait")
        await mailbox.wait()
    }

    /// Continues on a new connection: sends every batch again that was not acknowledged. Also those the tree has: it may
    /// have applied them without their being in the synced log yet, and acknowledges them, unapplied, when they are.
    /// - Throws: when the tree lacks what it acknowledged before.
    func resume(lastSequenceOfTree: UInt64) throws(ClientError) {
        generation += 1
        outstanding = 0
        guard lastSequenceOfTree >= ackedSequence else {
            let error = ClientError(
                .acknowledgedWritesLost, .restoreFromCheckpoint,
                "after reconnecting, the tree holds batches up to \(lastSequenceOfTree), but \(ackedSequence) was "
                    + "acknowledged: the server lost data (log off, or another disk); restore from the last checkpoint")
            failure = error
            throw error
        }
        guard lastSequenceOfTree <= lastSequence else {
            let error = ClientError(
                .fenced, .stop,
                "after reconnecting, the tree holds batch \(lastSequenceOfTree), but this session sent only "
                    + "\(lastSequence): two writers use one epoch and name")
            failure = error
            throw error
        }
        for index in inFlight.indices where inFlight[index].state == .sent { inFlight[index].state = .unsent }
        trouble = nil
        sendAgain()
    }

    /// Sends everything that is not acknowledged, after a pause a refusal asked for.
    func resendAfterRefusal() {
        trouble = nil
        sendAgain()
    }

    private func sendAgain() {
        precondition(outstanding == 0, "batches are sent again only when none is outstanding")
        for index in inFlight.indices where inFlight[index].state == .unsent {
            batchesResent += 1
            send(at: index)
        }
    }

    private func send(at index: Int) {
        inFlight[index].state = .sent
        outstanding += 1
        batchesSent += 1
        let item = inFlight[index]
        let sequence = item.sequence
        let generation = self.generation
        remote.write(item.batch, sequence: sequence, watermark: item.watermark) { [mailbox] error in
            mailbox.deposit(Completion(generation: generation, sequence: sequence, error: error))
        }
    }

    private func take(_ completion: Completion) {
        outstanding -= 1
        guard let index = inFlight.firstIndex(where: { $0.sequence == completion.sequence }) else { return }
        guard let error = completion.error else {
            inFlight[index].state = .acked
            return
        }
        inFlight[index].state = .unsent
        switch error {
        case .disconnected(let reason): trouble = .disconnected(reason)
        case .retryLater(let milliseconds, let reason):
            if trouble == nil { trouble = .refused(milliseconds: milliseconds, reason: reason) }
        case .sequenceGap(let expected):
            // An earlier batch was refused, and this one followed it: both go again. A tree that waits for a batch which
            // it acknowledged has lost it.
            if expected <= ackedSequence {
                failure = ClientError(
                    .acknowledgedWritesLost, .restoreFromCheckpoint,
                    "the tree waits for batch \(expected), but \(ackedSequence) was acknowledged: the server lost data; "
                        + "restore from the last checkpoint")
            } else if trouble == nil {
                trouble = .refused(milliseconds: 1, reason: "the tree waits for batch \(expected)")
            }
        case .fatal(let fatal): failure = fatal
        }
    }

    private func retire() -> [WriteTable] {
        var retired: [WriteTable] = []
        while let first = inFlight.first, first.state == .acked {
            ackedSequence = first.sequence
            retired.append(first.table)
            inFlight.removeFirst()
        }
        return retired
    }
}
