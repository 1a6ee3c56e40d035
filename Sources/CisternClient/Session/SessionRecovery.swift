// What a session does when the other side is slow, full or gone: try again until a deadline, attach again, send again what
// was not acknowledged. The worker sees a slow call, or one typed error.

internal import CisternPrimitives

extension KeyedStateSession {
    func retryDeadline() -> UInt64 {
        environment.time.monotonicNanoseconds + UInt64(configuration.retryForMilliseconds) * 1_000_000
    }

    /// Runs a remote call that may be repeated, through lost connections and refusals.
    /// - Parameter what: for the error; made when there is one.
    func call<Answer: Sendable>(
        _ what: @autoclosure () -> String, _ body: (any RemoteTree) async throws(RemoteError) -> Answer
    ) async throws(ClientError) -> Answer {
        let deadline = retryDeadline()
        var attempt = 0
        while true {
            try ensureOpen()
            do throws(RemoteError) {
                return try await body(remote)
            } catch {
                try await recover(from: error, what(), attempt: attempt, deadline: deadline)
            }
            attempt += 1
        }
    }

    private func recover(
        from error: RemoteError, _ what: String, attempt: Int, deadline: UInt64
    ) async throws(ClientError) {
        switch error {
        case .disconnected(let reason):
            try await reconnect(until: deadline, after: attempt, what, reason)
        case .retryLater(let milliseconds, let reason):
            try checkDeadline(deadline, what, reason)
            try await pause(atLeast: milliseconds, attempt: attempt)
        case .sequenceGap(let expected):
            try checkDeadline(deadline, what, "the tree waits for batch \(expected)")
            try await settle(what) { $0.isIdle }
            try await pause(atLeast: 0, attempt: attempt)
        case .fatal(let fatal): throw remember(fatal)
        }
    }

    /// Waits until `isDone`, repeating batches as needed. Each acknowledged batch starts the deadline anew.
    func settle(_ what: String, until isDone: (BatchSender) -> Bool) async throws(ClientError) {
        var deadline = retryDeadline()
        var acked = sender.ackedSequence
        var attempt = 0
        while true {
            takeArrivals()
            if let failure = sender.failure { throw remember(failure) }
            if isDone(sender) { return }
            if sender.ackedSequence != acked {
                acked = sender.ackedSequence
                deadline = retryDeadline()
                attempt = 0
            }
            if sender.outstanding > 0 {
                await sender.waitForCompletion()
                continue
            }
            switch sender.trouble {
            case .disconnected(let reason):
                try await reconnect(until: deadline, after: attempt, what, reason)
            case .refused(let milliseconds, let reason):
                try checkDeadline(deadline, what, reason)
                try await pause(atLeast: milliseconds, attempt: attempt)
                sender.resendAfterRefusal()
            case nil: invariantFailed("batches wait and nobody sends them", file: #fileID, line: #line)
            }
            attempt += 1
        }
    }

    /// Reconnects at once after the first loss, behind pauses after further ones: a server that takes every connection and
    /// loses each again must not keep the worker busy for ever.
    func reconnect(
        until deadline: UInt64, after attempt: Int, _ what: String, _ reason: String
    ) async throws(ClientError) {
        if attempt > 0 {
            try checkDeadline(deadline, what, reason)
            try await pause(atLeast: 0, attempt: attempt - 1)
        }
        try await reconnect(until: deadline)
    }

    /// Attaches again as the same writer with the same epoch, and sends again what was not acknowledged.
    func reconnect(until deadline: UInt64) async throws(ClientError) {
        try ensureOpen()
        counters.reconnects += 1
        var again = request
        again.restoring = nil
        var attempt = 0
        while true {
            let answer: AttachAnswer
            do throws(RemoteError) {
                answer = try await remote.attach(again)
            } catch {
                try await pauseBeforeAttaching(after: error, attempt: attempt, deadline: deadline)
                attempt += 1
                continue
            }
            return try continueAttached(answer)
        }
    }

    func pauseBeforeAttaching(
        after error: RemoteError, attempt: Int, deadline: UInt64
    ) async throws(ClientError) {
        switch error {
        case .disconnected(let reason):
            if environment.time.monotonicNanoseconds >= deadline {
                throw ClientError(
                    .unreachable, .retry,
                    "no server answered at \(configuration.endpoint) for \(configuration.retryForMilliseconds) ms, last "
                        + "reason: \(reason); is it running?")
            }
            try await pause(atLeast: 0, attempt: attempt)
        case .retryLater(let milliseconds, let reason):
            try checkDeadline(deadline, "attach to \(request.store)", reason)
            try await pause(atLeast: milliseconds, attempt: attempt)
        case .sequenceGap(let expected):
            throw ClientError(.refused, .retry, "an attach was answered with a sequence gap at \(expected)")
        case .fatal(let fatal): throw remember(fatal)
        }
    }

    private func continueAttached(_ answer: AttachAnswer) throws(ClientError) {
        guard answer.resumed else {
            throw remember(
                ClientError(
                    .acknowledgedWritesLost, .restoreFromCheckpoint,
                    "after reconnecting, the server has no tree of \(request.store) with epoch \(request.epoch) for "
                        + "\(request.keyGroups): it lost its data; restore from the last checkpoint"))
        }
        take(answer)
        do throws(ClientError) {
            try sender.resume(lastSequenceOfTree: answer.lastSequence)
        } catch {
            throw remember(error)
        }
        if loader.phase == .interrupted { loader.begin(remote, watermark: watermark, connection: connections) }
    }

    /// What every attach brings: clock, watermark, catalog.
    func take(_ answer: AttachAnswer) {
        connections += 1
        serverClock = ServerClock(
            wallMilliseconds: answer.wallMilliseconds, atNanoseconds: environment.time.monotonicNanoseconds)
        watermark = max(watermark, answer.watermark)
        remoteStates = answer.states
        remoteDictionaries = answer.dictionaries
        for state in answer.states where state.kind == .timers { timerStateIDs.insert(state.id) }
    }

    private func remember(_ error: ClientError) -> ClientError {
        if error.isFinal, failure == nil {
            failure = error
            remote.close()
        }
        return error
    }

    func checkDeadline(_ deadline: UInt64, _ what: String, _ reason: String) throws(ClientError) {
        guard environment.time.monotonicNanoseconds >= deadline else { return }
        throw ClientError(
            .unavailable, .retry,
            "could not \(what) in \(request.store) for \(configuration.retryForMilliseconds) ms: \(reason)")
    }

    func pauseMilliseconds(attempt: Int) -> UInt64 {
        let longest = UInt64(configuration.reconnectPauseMaxMilliseconds)
        let step = min(longest, UInt64(configuration.reconnectPauseMilliseconds) << UInt64(min(attempt, 16)))
        return step / 2 + UInt64.random(in: 0...max(1, step / 2), using: &random)
    }

    /// Doubling pauses with jitter, so that many workers do not come back in step.
    func pause(atLeast milliseconds: UInt64, attempt: Int) async throws(ClientError) {
        do {
            try await environment.sleep(max(milliseconds, pauseMilliseconds(attempt: attempt)))
        } catch {
            throw ClientError(.cancelled, .retry, "the task was cancelled while it waited for \(request.store)")
        }
    }
}
