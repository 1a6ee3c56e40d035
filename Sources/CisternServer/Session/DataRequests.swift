// Reading and writing entries: the hot part of a session. Everything runs on the event loop from frame to engine and back.

internal import CisternLSM
internal import CisternPrimitives
internal import CisternTransport
internal import CisternWire
internal import NIOCore

enum PageLimits {
    /// A page a client does not limit.
    static let bytesDefault = 1 << 20
    static let entriesDefault = 16_384
    /// No page is larger, so that one scan does not hold up the other connections of the loop.
    static let bytesMax = 4 << 20
    static let entriesMax = 65_536
    /// Room for column ends and expiries beside an entry's bytes.
    static let overheadBytesAnEntry = 16
    /// Room for the start of the next page and the tags of the fields.
    static let roomForNextBytes = WireLimits.keyBytesMax + 256
}

/// A write batch on its way to its acknowledgement.
private struct WriteAnswer: Sendable {
    let header: FrameHeader
    let sequence: UInt64
    /// In monotonic nanoseconds.
    let arrival: UInt64
    /// Milliseconds that the answer waits for compaction.
    let delay: UInt64
}

extension ServerSession {
    // MARK: WRITE_BATCH

    func writeBatch(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        let message: WriteBatchMessage
        do throws(WireError) {
            message = unsafe try WriteBatchMessage.decode(body)
        } catch {
            return refuse(header, Refusal(error))
        }
        guard let tree = tree(of: header, epoch: message.epoch) else { return }
        if let foreign = firstForeignKey(message.columns, tree) {
            return refuse(header, foreignKey(header, tree, entry: foreign))
        }
        let sequence = message.sequence
        let arrival = core.time.monotonicNanoseconds
        // Read here, where the tree is the loop's for sure.
        let delay = tree.tree.writeDelayMilliseconds
        do throws(EngineError) {
            let outcome = try tree.tree.write(
                message.columns, epoch: message.epoch, sequence: sequence, watermark: message.watermark
            ) { [self] result in
                acknowledge(
                    WriteAnswer(header: header, sequence: sequence, arrival: arrival, delay: delay), tree, result)
            }
            if case .busy(let reason, let milliseconds) = outcome {
                refuse(header, busy(tree, sequence, reason, milliseconds))
            }
        } catch {
            refuse(header, Refusal(error, attempt: "write batch \(sequence) of \(tree.name)"))
        }
    }

    /// Comes on the loop that owns the tree: another one when the tree was handed over in between.
    private func acknowledge(_ answer: WriteAnswer, _ tree: SessionTree, _ result: Result<Void, EngineError>) {
        guard executor.eventLoop.inEventLoop else {
            return executor.execute { self.acknowledge(answer, tree, result) }
        }
        switch result {
        case .success:
            if answer.delay == 0 && tree.pace.isIdle { return send(answer) }
            tree.pace.hold(milliseconds: answer.delay, on: executor.eventLoop) { self.send(answer) }
        case .failure(let error):
            refuse(answer.header, Refusal(error, attempt: "write batch \(answer.sequence) of \(tree.name)"))
        }
    }

    private func send(_ answer: WriteAnswer) {
        counters.noteWrite(nanoseconds: core.time.monotonicNanoseconds - answer.arrival)
        let reply = WriteBatchReplyMessage(sequence: answer.sequence)
        unsafe connection?.reply(to: answer.header, size: reply.encodedSize) { unsafe reply.encode(into: $0) }
    }

    /// Index of the first entry whose key group the tree does not have. Keys ascend, so the ends tell about all.
    private func firstForeignKey(_ columns: EntryColumns, _ tree: SessionTree) -> Int? {
        if columns.count == 0 { return nil }
        if !(unsafe tree.owns(columns[0].key)) { return 0 }
        if !(unsafe tree.owns(columns[columns.count - 1].key)) { return columns.count - 1 }
        return nil
    }

    // MARK: MULTI_GET

    func multiGet(_ header: FrameHeader, _ body: UnsafeRawBufferPointer, _ patience: DiskPatience = DiskPatience()) {
        let message: MultiGetMessage
        do throws(WireError) {
            message = unsafe try MultiGetMessage.decode(body)
        } catch {
            return refuse(header, Refusal(error))
        }
        guard let tree = tree(of: header, epoch: message.epoch) else { return }
        let clock = clock(tree, watermark: message.watermark)
        let scratch = scratch
        let room = bodyBytesMax
        for index in 0..<message.keys.count where unsafe !tree.owns(message.keys[index]) {
            return refuse(header, foreignKey(header, tree, entry: index))
        }
        do throws(EngineError) {
            let isDone = try readWithoutWaiting(patience, again: { unsafe again(header, body) { unsafe $0.multiGet } })
            {
                () throws(EngineError) in
                scratch.values.reset()
                unsafe try tree.tree.multiGet(
                    count: message.keys.count, clock: clock, scratch: &scratch.lookup,
                    key: { index in unsafe message.keys[index] },
                    visit: { _, value, expiry in
                        if let value = unsafe value {
                            unsafe scratch.values.append(value: value, expiry: expiry)
                        } else {
                            scratch.values.appendAbsent()
                        }
                        // Looked at behind each key: the buffer stays within one answer and one value, whatever is asked for.
                        return scratch.values.encodedSize <= room
                    })
            }
            guard isDone else { return }
        } catch {
            return refuse(header, Refusal(error, attempt: "multi-get of \(tree.name)"))
        }
        guard scratch.values.encodedSize <= room else { return refuse(header, tooLarge(header, tree, room)) }
        unsafe connection?.reply(to: header, size: scratch.values.encodedSize) {
            unsafe scratch.values.encode(into: $0)
        }
    }

    // MARK: SCAN

    func scan(_ header: FrameHeader, _ body: UnsafeRawBufferPointer, _ patience: DiskPatience = DiskPatience()) {
        let message: ScanMessage
        do throws(WireError) {
            message = unsafe try ScanMessage.decode(body)
        } catch {
            return refuse(header, Refusal(error))
        }
        guard let tree = tree(of: header, epoch: message.epoch) else { return }
        let entriesMax = message.entriesMax == 0 ? PageLimits.entriesDefault : Int(message.entriesMax)
        let bytesMax = message.bytesMax == 0 ? PageLimits.bytesDefault : Int(message.bytesMax)
        let request = PageRequest(
            start: unsafe Array(message.start), end: unsafe Array(message.end),
            clock: clock(tree, watermark: message.watermark), keysOnly: message.keysOnly,
            entriesMax: min(entriesMax, PageLimits.entriesMax), bytesMax: min(bytesMax, PageLimits.bytesMax))
        do throws(EngineError) {
            let isDone = try readWithoutWaiting(
                patience, ahead: ServerSession.scanAheadBytes, again: { unsafe again(header, body) { unsafe $0.scan } }
            ) { () throws(EngineError) in
                _ = try fillPage(tree, request)
            }
            if isDone { answerWithPage(header) }
        } catch {
            refuse(header, Refusal(error, attempt: "scan of \(tree.name)"))
        }
    }

    struct PageRequest {
        var start: [UInt8]
        /// Empty: to the end of the tree's range.
        var end: [UInt8] = []
        var clock: ExpiryClock
        var keysOnly: Bool
        var entriesMax: Int
        var bytesMax: Int
    }

    /// Collects entries into the page until a limit is reached, one at least. Returns where the next page starts, empty at the
    /// end.
    func fillPage(_ tree: SessionTree, _ request: PageRequest) throws(EngineError) -> [UInt8] {
        let scratch = scratch
        scratch.page.reset()
        let from = request.start.lexicographicallyPrecedes(tree.lowest) ? tree.lowest : request.start
        let isBeyond = request.end.isEmpty || tree.end.lexicographicallyPrecedes(request.end)
        let to = isBeyond ? tree.end : request.end
        guard from.lexicographicallyPrecedes(to) else { return [] }
        let room = bodyBytesMax
        let limits = ScanLimits(entriesMax: request.entriesMax, bytesMax: request.bytesMax)
        var tooLarge: (key: [UInt8], bytes: Int)?
        let next = try tree.tree.scan(
            from: from, to: to, clock: request.clock, limits: limits, keysOnly: request.keysOnly
        ) { entry in
            let size = unsafe entry.key.count + (request.keysOnly ? 0 : entry.value.count)
            let taken = scratch.page.contentBytes + scratch.page.count * PageLimits.overheadBytesAnEntry
            // A folded list may be longer than a page: it waits for the next one, which it has for itself.
            guard taken + size + PageLimits.roomForNextBytes <= room else {
                tooLarge = (unsafe Array(entry.key), size)
                return false
            }
            if request.keysOnly {
                unsafe scratch.page.appendKey(entry.key, expiry: entry.expiry)
            } else {
                unsafe scratch.page.append(key: entry.key, value: entry.value, expiry: entry.expiry)
            }
            return true
        }
        if let tooLarge, scratch.page.count == 0 {
            throw .invalidEntry(
                detail:
                    "an entry of \(tooLarge.bytes) bytes does not fit an answer of \(room), which is what the client takes"
            )
        }
        let continuation = tooLarge?.key ?? next ?? []
        scratch.page.setNext(continuation)
        return continuation
    }

    // MARK: Common

    private typealias Request = (FrameHeader, UnsafeRawBufferPointer, DiskPatience) -> Void

    /// The request once more, from a copy of its body.
    private func again(
        _ header: FrameHeader, _ body: UnsafeRawBufferPointer, _ request: @escaping @Sendable (ServerSession) -> Request
    ) -> @Sendable (DiskPatience) -> Void {
        let copy = unsafe Array(body)
        return { [self] patience in
            guard isOpen else { return }
            unsafe copy.withUnsafeBytes { unsafe request(self)(header, $0, patience) }
        }
    }

    /// Read once a frame: all its keys are judged at the same time.
    func clock(_ tree: SessionTree, watermark: UInt64) -> ExpiryClock {
        ExpiryClock(processing: core.time.wallMilliseconds, event: max(tree.tree.watermark, watermark))
    }

    @inline(never)
    private func tooLarge(_ header: FrameHeader, _ tree: SessionTree, _ room: Int) -> Refusal {
        Refusal(
            .limitExceeded,
            "\(name(of: header)) of \(tree.name): the first \(scratch.values.count) values have "
                + "\(scratch.values.contentBytes) bytes, the client takes answers of \(room): ask for fewer keys at once"
        )
    }

    @inline(never)
    private func foreignKey(_ header: FrameHeader, _ tree: SessionTree, entry: Int) -> Refusal {
        Refusal(
            .keyOutOfRange,
            "\(name(of: header)): key \(entry) is not of a key group of \(tree.name): nothing of the request was done")
    }

    @inline(never)
    private func busy(
        _ tree: SessionTree, _ sequence: UInt64, _ reason: BusyReason, _ milliseconds: UInt64
    ) -> Refusal {
        let behind =
            switch reason {
            case .flushBehind: "flushing is behind"
            case .compactionBehind: "compaction is behind"
            case .logBehind: "the log's disk is behind"
            case .memoryUsedUp: "memory is used up and being freed"
            }
        return Refusal(
            .busy, "write batch \(sequence) of \(tree.name): \(behind); send it again in \(milliseconds) ms",
            retryMilliseconds: UInt32(clamping: milliseconds))
    }
}
