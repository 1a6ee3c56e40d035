// KEY_INDEX: all keys of a tree as a stream of pages. One page a turn of the event loop, so that other connections are served
// in between, and none while the peer does not read: the stream holds a key, not pages. A stream whose page has to come from the
// disk first is put aside and leaves the turn to the others.

internal import CisternLSM
internal import CisternPrimitives
internal import CisternTransport
internal import CisternWire

struct KeyIndexStream {
    let header: FrameHeader
    var next: [UInt8]
    let epoch: UInt64
    let watermark: UInt64
    /// Of the page that is next.
    var patience = DiskPatience()

    enum Turn {
        case goesOn
        case isOver
        /// It comes back when the disk has what its page takes.
        case isPutAside
    }
}

extension ServerSession {
    /// Small enough for the loop, large enough that the page's fixed cost does not show.
    static let keyIndexPageBytes = 256 << 10
    static let keyIndexStreamsMax = 64

    func keyIndex(_ header: FrameHeader, _ body: UnsafeRawBufferPointer) {
        let message: KeyIndexMessage
        do throws(WireError) {
            message = unsafe try KeyIndexMessage.decode(body)
        } catch {
            return refuse(header, Refusal(error))
        }
        guard tree(of: header, epoch: message.epoch) != nil else { return }
        let running = keyIndexStreams.count + keyIndexStreamsAside
        guard running < ServerSession.keyIndexStreamsMax else {
            return refuse(
                header,
                Refusal(
                    .busy, "key index: \(running) are being sent on this connection; wait for one to end")
            )
        }
        let start = unsafe Array(message.start)
        keyIndexStreams.append(
            KeyIndexStream(header: header, next: start, epoch: message.epoch, watermark: message.watermark))
        // A stream that is already running has its turn scheduled.
        if keyIndexStreams.count == 1 { continueKeyIndexes() }
    }

    /// Sends one page of the oldest stream and comes back for the next, unless the peer does not read.
    func continueKeyIndexes() {
        guard let connection, connection.isWritable, !keyIndexStreams.isEmpty else { return }
        var stream = keyIndexStreams.removeFirst()
        switch sendPage(&stream) {
        case .goesOn: keyIndexStreams.append(stream)
        case .isPutAside: keyIndexStreamsAside += 1
        case .isOver: break
        }
        if !keyIndexStreams.isEmpty { scheduleKeyIndexTurn() }
    }

    private func scheduleKeyIndexTurn() {
        guard !keyIndexTurnIsScheduled else { return }
        keyIndexTurnIsScheduled = true
        executor.execute { [self] in
            keyIndexTurnIsScheduled = false
            continueKeyIndexes()
        }
    }

    private func resume(_ stream: KeyIndexStream) {
        keyIndexStreamsAside -= 1
        guard isOpen else { return }
        keyIndexStreams.append(stream)
        if keyIndexStreams.count == 1 { continueKeyIndexes() }
    }

    private func sendPage(_ stream: inout KeyIndexStream) -> KeyIndexStream.Turn {
        // Looked up for each page: the tree may have been taken away since the last.
        guard let tree = tree(of: stream.header, epoch: stream.epoch) else { return .isOver }
        let request = PageRequest(
            start: stream.next, clock: clock(tree, watermark: stream.watermark), keysOnly: true,
            entriesMax: PageLimits.entriesMax, bytesMax: ServerSession.keyIndexPageBytes)
        let same = stream
        var next: [UInt8] = []
        do throws(EngineError) {
            let isDone = try readWithoutWaiting(
                stream.patience, ahead: ServerSession.scanAheadBytes,
                again: {
                    { [self] patience in
                        var later = same
                        later.patience = patience
                        resume(later)
                    }
                }
            ) { () throws(EngineError) in
                next = try fillPage(tree, request)
            }
            guard isDone else { return .isPutAside }
        } catch {
            refuse(stream.header, Refusal(error, attempt: "key index of \(tree.name)"))
            return .isOver
        }
        stream.next = next
        stream.patience = DiskPatience()
        answerWithPage(stream.header, more: !next.isEmpty)
        return next.isEmpty ? .isOver : .goesOn
    }
}
