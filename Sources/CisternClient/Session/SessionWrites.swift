// The write path of a session: key and value into the active table, the table into a batch, the batch on its way.

internal import CisternCompression
internal import CisternPrimitives

extension KeyedStateSession {
    /// Bytes of one table beyond which no further write is put into it: with what envelopes add, a batch stays below 8 MiB.
    static let tableBytesMax = ClientLimits.valueBytesMax

    /// Builds the store key of the current key in `record`. Where a user key is put behind it, `finishKey` follows.
    func prepareKey(_ record: StateRecord) throws(ClientError) {
        guard let group = keyGroup else { throw keyIsMissing(record) }
        unsafe try setKey(size: StateKey.prefixSize + keyAndNamespace.count) { memory in
            unsafe StateKey.writePrefix(keyGroup: group, stateID: record.id, into: memory)
            unsafe keyAndNamespace.withUnsafeBytes {
                unsafe UnsafeMutableRawBufferPointer(rebasing: memory[StateKey.prefixSize...]).copyMemory(from: $0)
            }
        }
    }

    @inline(never)
    private func keyIsMissing(_ record: StateRecord) -> ClientError {
        ClientError(
            .invalidArgument, .fixTheCall, "state \(record.name) was used before setCurrentKey: set a key first")
    }

    /// Builds the store key of `key` in `record`, without making it the current one.
    func prepareStoreKey(of key: [UInt8], _ record: StateRecord) throws(ClientError) {
        let group = KeyGroup.group(ofKey: key, count: request.keyGroupCount)
        guard request.keyGroups.contains(group) else { throw foreignKey(group) }
        let size = StateKey.size(key: key.count, namespace: currentNamespace.count)
        unsafe try setKey(size: size) { memory in
            unsafe key.withUnsafeBytes { key in
                unsafe currentNamespace.withUnsafeBytes { namespace in
                    unsafe StateKey.write(
                        keyGroup: group, stateID: record.id, key: key, namespace: namespace, into: memory)
                }
            }
        }
    }

    /// Makes `keyScratch` what `write` writes, and hashes it where it lies. Keys of a state mostly have one size, so nothing but the
    /// bytes changes: an append for each part costs several times that.
    private func setKey(size: Int, _ write: (UnsafeMutableRawBufferPointer) -> Void) throws(ClientError) {
        guard size <= ClientLimits.keyBytesMax else { throw Self.keyTooLong(size) }
        let excess = keyScratch.count - size
        if excess > 0 { keyScratch.removeLast(excess) }
        if excess < 0 { keyScratch.append(contentsOf: repeatElement(0, count: -excess)) }
        keyHash = unsafe keyScratch.withUnsafeMutableBytes { memory in
            unsafe write(memory)
            return unsafe Hash64.hash(UnsafeRawBufferPointer(memory))
        }
    }

    /// After something was put behind the key.
    func finishKey() throws(ClientError) {
        guard keyScratch.count <= ClientLimits.keyBytesMax else { throw Self.keyTooLong(keyScratch.count) }
        keyHash = Hash64.hash(keyScratch)
    }

    @inline(never)
    static func keyTooLong(_ size: Int) -> ClientError {
        ClientError(
            .limitExceeded, .fixTheCall,
            "key, namespace and user key make a store key of \(size) bytes; the limit is \(ClientLimits.keyBytesMax)")
    }

    /// Expiry of a value written at this moment.
    func expiry(_ record: StateRecord) -> Expiry {
        guard let ttl = record.options.ttl else { return .never }
        switch ttl.clock {
        case .processing: return .processingTime(milliseconds: processingNow() + ttl.milliseconds)
        case .event: return .eventTime(milliseconds: watermark + ttl.milliseconds)
        }
    }

    /// How a list element of this moment is stored, under the key of the operation under way.
    func storedExpiry(_ record: StateRecord, _ current: Expiry) -> Expiry {
        guard let rule = record.expiryRule(in: StateKey.group(of: keyScratch)) else { return current }
        return rule.stored(current, ExpiryClock(processing: processingNow(), event: watermark))
    }

    func processingNow() -> UInt64 { serverClock.now(environment.time.monotonicNanoseconds) }

    func isExpired(_ expiry: Expiry) -> Bool {
        if expiry == .never { return false }
        return expiry.milliseconds <= (expiry.isEventTime ? watermark : processingNow())
    }

    /// One write of `keyScratch` with the bytes of `valueScratch`. When it throws, the write was not taken: the caller may
    /// repeat it. Waits only when the buffer is full and too many batches are in flight, or the connection is gone.
    func write(_ kind: EntryKind, _ record: StateRecord, expiry: Expiry) async throws(ClientError) {
        try ensureOpen()
        guard valueScratch.count <= ClientLimits.valueBytesMax else {
            throw ClientError(
                .limitExceeded, .fixTheCall,
                "a value of \(valueScratch.count) bytes for state \(record.name); the limit is "
                    + "\(ClientLimits.valueBytesMax): split it, for example into a map state")
        }
        takeArrivals()
        if activeMustGo(adding: keyScratch.count + valueScratch.count) {
            // The key and value of this write wait in the scratch buffers: nothing below touches them.
            try await sealActive()
        }
        counters.writeOperations += 1
        apply(kind, record, expiry: expiry)
        flushIfDueWithoutWaiting()
    }

    private func apply(_ kind: EntryKind, _ record: StateRecord, expiry: Expiry) {
        var kind = kind
        if kind == .append, isKnownAbsent() { kind = .put }
        if kind == .delete, isKnownAbsent() {
            // Nothing to hide: neither the server nor a write under way has the key.
            counters.writesAbsorbed += 1
            return
        }
        if active.isEmpty { activeSinceNanoseconds = environment.time.monotonicNanoseconds }
        let absorbed = active.apply(
            kind, stateID: record.id, key: keyScratch, hash: keyHash, value: valueScratch, expiry: expiry)
        if absorbed { counters.writesAbsorbed += 1 }
        guard index != nil, record.kind != .timers else { return }
        if kind == .delete {
            index?.remove(keyScratch)
        } else {
            let event = watermark
            let now = expiry == .never ? 0 : processingNow()
            index?.insert(keyScratch, expiry: expiry, clock: ExpiryClock(processing: now, event: event))
            giveUpIndexIfTooLarge()
        }
    }

    /// True when a complete index says that the key does not exist; the index knows the writes under way too. In `verify`
    /// mode the index decides nothing.
    func isKnownAbsent() -> Bool {
        guard configuration.keyIndex == .keys, let index, index.isComplete, isIndexed(keyScratch) else { return false }
        return index.lookUp(keyScratch) == nil
    }

    private func isIndexed(_ key: [UInt8]) -> Bool {
        timerStateIDs.isEmpty || !timerStateIDs.contains(UInt16(key[2]) << 8 | UInt16(key[3]))
    }

    func giveUpIndexIfTooLarge() {
        guard let index, index.byteCount > configuration.keyIndexBytesMax else { return }
        self.index = nil
        loader.stop()
        counters.keyIndexDropped = true
    }

    private func activeMustGo(adding bytes: Int) -> Bool {
        guard !active.isEmpty else { return false }
        // Age is no reason to wait: an old buffer goes as soon as a batch may go.
        return active.byteCount + bytes + WriteTable.entryOverheadBytes > Self.tableBytesMax
            || policy.reason(
                bytes: active.byteCount, entries: active.count, arenaBytes: active.arenaByteCount, ageNanoseconds: 0)
                != nil
    }

    private func isDue() -> Bool {
        policy.reason(
            bytes: active.byteCount, entries: active.count, arenaBytes: active.arenaByteCount,
            ageNanoseconds: environment.time.monotonicNanoseconds - activeSinceNanoseconds) != nil
    }

    /// Sends a due buffer when a batch may go right now; otherwise the next write waits for that.
    func flushIfDueWithoutWaiting() {
        guard !active.isEmpty, failure == nil, sender.canSend, sender.inFlight.count < configuration.batchesInFlight,
            isDue()
        else { return }
        sealNow()
    }

    /// Sends the active table, waiting for room among the batches in flight.
    func sealActive() async throws(ClientError) {
        guard !active.isEmpty else { return }
        if sender.inFlight.count >= configuration.batchesInFlight || !sender.canSend {
            counters.writerWaits += 1
            let limit = configuration.batchesInFlight
            try await settle("send writes") { $0.canSend && $0.inFlight.count < limit }
        }
        sealNow()
    }

    private func sealNow() {
        useTrainedDictionaries()
        let table = active
        let batch = unsafe table.seal { entry, bytes, output in
            guard let record = recordsByID[Int(entry.stateID)] else {
                invariantFailed(
                    "an entry of state \(entry.stateID), which is not registered", file: #fileID, line: #line)
            }
            counters.bytesBeforeCompression += UInt64(bytes.count)
            if record.kind == .list {
                unsafe ListFormat.seal(bytes, with: record.encoder, into: &output)
            } else {
                unsafe record.encoder.encode(bytes, into: &output)
            }
            if let trainer = record.trainer { unsafe trainer.offer(bytes) }
        }
        counters.bytesAfterCompression += UInt64(batch.columns.values.count)
        counters.entriesSent += batch.count
        sender.submit(batch, from: table, watermark: watermark)
        active = spareTables.popLast() ?? WriteTable(entriesExpected: configuration.writeBufferEntries)
    }

    private func useTrainedDictionaries() {
        for case let record? in recordsByID {
            guard let trainer = record.trainer, let dictionary = trainer.advance(remote) else { continue }
            decoder.add(dictionary)
            record.use(dictionary)
            record.trainer = nil
            counters.dictionariesTrained += 1
        }
    }

    /// Takes in what arrived from other threads: acknowledgements and pages of the key index. Nearly free when nothing did.
    func takeArrivals() {
        for table in sender.poll() { retire(table) }
        if !loader.mailbox.isEmpty {
            if let index {
                loader.drain(into: index, bytesMax: configuration.keyIndexBytesMax, skipping: timerStateIDs)
                giveUpIndexIfTooLarge()
                continueKeyIndex()
            } else {
                _ = loader.mailbox.drain()
            }
        }
    }

    private func continueKeyIndex() {
        guard index != nil else { return }
        switch loader.phase {
        case .interrupted where loader.connection != connections:
            // The connection was made anew before the loss of the stream was seen here.
            loader.begin(remote, watermark: watermark, connection: connections)
        case .refused(let milliseconds):
            let pause = max(milliseconds, pauseMilliseconds(attempt: loader.failures - 1))
            loader.begin(remote, watermark: watermark, connection: connections) { [sleep = environment.sleep] in
                // Cut short only when the session ends, which ends the request behind it too.
                try? await sleep(pause)
            }
        case .idle, .streaming, .interrupted, .complete, .failed: break
        }
    }

    /// The table's batch is acknowledged: its entries become what the cache knows of the tree.
    func retire(_ table: WriteTable) {
        if configuration.valueCacheBytes > 0 {
            for position in 0..<table.count {
                let entry = table.entries[position]
                if timerStateIDs.contains(entry.stateID) { continue }
                switch entry.kind {
                case .put:
                    cache.set(
                        table.keySlice(at: position), hash: entry.hash, value: table.value(at: position),
                        expiry: entry.expiry)
                case .append:
                    let key = table.key(at: position)
                    cache.append(key, hash: entry.hash, operand: table.value(at: position), expiry: entry.expiry)
                case .delete:
                    let key = table.key(at: position)
                    if index?.isComplete == true {
                        cache.remove(key, hash: entry.hash)
                    } else {
                        cache.setAbsent(key, hash: entry.hash)
                    }
                }
            }
        }
        table.removeAll()
        if spareTables.count <= configuration.batchesInFlight { spareTables.append(table) }
    }
}
