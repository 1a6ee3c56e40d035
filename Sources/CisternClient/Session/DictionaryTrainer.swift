// From live values to a dictionary in use, without the worker waiting: values are copied while batches are made, training
// runs on a background thread, the upload on a background task, and the session picks the result up with a later batch.
//
//   collecting ──full──► working (train, upload) ──► ready ──picked up──► (trainer gone)
//                            │ nothing in common: given up     │ connection lost: upload tried again

internal import CisternCompression
internal import NIOPosix

/// Owned by the session's task; the background task only gets Sendable values and answers through the mailbox.
final class DictionaryTrainer {
    private enum Phase { case collecting, working, done }

    enum Result: Sendable {
        case ready(CompressionDictionary)
        /// The samples have nothing in common, or the server refuses dictionaries.
        case givenUp
        case uploadFailed(dictionary: [UInt8])
    }

    private let stateID: UInt16
    private let dictionaryBytes: Int
    private var samples: SampleCollector
    private var phase = Phase.collecting
    private let mailbox = Mailbox<Result>()
    private var task: Task<Void, Never>?

    init(stateID: UInt16, dictionaryBytes: Int) {
        self.stateID = stateID
        self.dictionaryBytes = dictionaryBytes
        samples = SampleCollector(dictionaryBytes: dictionaryBytes)
    }

    deinit { task?.cancel() }

    func offer(_ value: UnsafeRawBufferPointer) {
        if phase == .collecting { unsafe samples.offer(value) }
    }

    /// Starts what can be started; returns the dictionary once it is ready to use.
    func advance(_ remote: any RemoteTree) -> CompressionDictionary? {
        if phase == .collecting, samples.isFull {
            start(remote)
            return nil
        }
        for result in mailbox.drain() {
            switch result {
            case .ready(let dictionary):
                phase = .done
                return dictionary
            case .givenUp: phase = .done
            case .uploadFailed(let dictionary): upload(dictionary, remote)
            }
        }
        return nil
    }

    /// Waits for what is under way.
    func finish() async { await task?.value }

    private func start(_ remote: any RemoteTree) {
        phase = .working
        let samples = self.samples
        self.samples = SampleCollector(dictionaryBytes: 0)
        let capacity = dictionaryBytes
        let state = stateID
        let mailbox = self.mailbox
        task = Task { await trainAndUpload(samples, capacity: capacity, state: state, to: remote, answer: mailbox) }
    }

    private func upload(_ bytes: [UInt8], _ remote: any RemoteTree) {
        let state = stateID
        let mailbox = self.mailbox
        task = Task { mailbox.deposit(await CisternClient.upload(bytes, state: state, to: remote)) }
    }
}

@concurrent
private func trainAndUpload(
    _ samples: SampleCollector, capacity: Int, state: UInt16, to remote: any RemoteTree,
    answer: Mailbox<DictionaryTrainer.Result>
) async {
    // The pool's threads are there for work that would hold up the cooperative pool; training takes up to 0.2 s.
    let trained = try? await NIOThreadPool.singleton.runIfActive {
        DictionaryTraining.train(samples, capacity: capacity)
    }
    guard let bytes = trained ?? nil else { return answer.deposit(.givenUp) }
    answer.deposit(await upload(bytes, state: state, to: remote))
}

@concurrent
private func upload(_ bytes: [UInt8], state: UInt16, to remote: any RemoteTree) async -> DictionaryTrainer.Result {
    do throws(RemoteError) {
        let id = try await remote.putDictionary(state: state, bytes: bytes)
        return .ready(CompressionDictionary(id: id, bytes: bytes))
    } catch {
        switch error {
        case .fatal: return .givenUp
        case .disconnected, .retryLater, .sequenceGap: return .uploadFailed(dictionary: bytes)
        }
    }
}
