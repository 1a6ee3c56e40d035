// The read path of a session: what the worker wrote last, the cache, the key index; the server only when none of them knows.

internal import CisternCompression
internal import CisternPrimitives

/// What a session knows without asking the server.
enum LocalRead {
    /// The serializer's bytes (of a list: its plain elements).
    case found(ArraySlice<UInt8>, Expiry)
    case absent
    case unknown
}

extension KeyedStateSession {
    /// Dictionaries a single value or list can need before it is taken for damaged.
    private static let dictionariesPerValueMax = 64

    /// Reads `keyScratch`. Does not suspend unless the server has to be asked.
    func read(_ record: StateRecord) async throws(ClientError) -> (bytes: ArraySlice<UInt8>, expiry: Expiry)? {
        try ensureOpen()
        switch readLocally(record) {
        case .found(let bytes, let expiry): return (bytes, expiry)
        case .absent: return nil
        case .unknown: return try await readRemotely(record)
        }
    }

    /// Answers from the write tables, the cache and the key index.
    func readLocally(_ record: StateRecord) -> LocalRead {
        takeArrivals()
        counters.readOperations += 1
        return lookLocally(record)
    }

    /// The same for one of many keys, behind `takeArrivals`.
    func lookLocally(_ record: StateRecord) -> LocalRead {
        miss = Miss()
        if record.expectsAbsence {
            if isKnownAbsent() {
                counters.indexSkips += 1
                return absent()
            }
            record.expectsAbsence = false
        }
        if active.isEmpty && sender.isIdle { return readCaches(record, [], .never) }
        // Newest first; an append lets the search go on for what it stands behind.
        var operands: [ArraySlice<UInt8>] = []
        var expiry = Expiry.never
        var position = sender.inFlight.count
        while position >= 0 {
            let isActive = position == sender.inFlight.count
            let table = isActive ? active : sender.inFlight[position].table
            position -= 1
            guard let found = table.find(keyScratch, hash: keyHash) else { continue }
            let entry = table.entries[found]
            if operands.isEmpty {
                if entry.kind == .delete || isExpired(entry.expiry) {
                    counters.bufferHits += 1
                    return absent()
                }
                expiry = entry.expiry
            }
            switch entry.kind {
            case .delete:
                counters.bufferHits += 1
                return .found(Self.joined(nil, operands), expiry)
            case .put:
                counters.bufferHits += 1
                return .found(Self.joined(table.value(at: found), operands), expiry)
            case .append:
                operands.append(table.value(at: found))
                if !isActive { miss.hasAppendsInFlight = true }
            }
        }
        return readCaches(record, operands, expiry)
    }

    /// The base under the operands: from the cache, or known to be absent, or unknown.
    private func readCaches(
        _ record: StateRecord, _ operands: [ArraySlice<UInt8>], _ expiry: Expiry
    ) -> LocalRead {
        switch cache.get(keyScratch, hash: keyHash) {
        case .value(let bytes, let baseExpiry):
            let isGone = isExpired(baseExpiry)
            counters.cacheHits += 1
            if operands.isEmpty { return isGone ? absent() : .found(bytes, baseExpiry) }
            return .found(Self.joined(isGone ? nil : bytes, operands), expiry)
        case .absent:
            counters.cacheHits += 1
            return operands.isEmpty ? absent() : .found(Self.joined(nil, operands), expiry)
        case nil: break
        }
        guard operands.isEmpty, let index, index.isComplete else { return .unknown }
        let known = index.lookUp(keyScratch)
        let isPresent = known.map { !isExpired($0) } ?? false
        if configuration.keyIndex == .verify {
            // A key that expires may be gone at the server and still be here: that is no disagreement.
            miss.prediction = isPresent && known != .never ? nil : isPresent
            return .unknown
        }
        if isPresent { return .unknown }
        counters.indexSkips += 1
        record.expectsAbsence = true
        return absent()
    }

    private func absent() -> LocalRead {
        counters.absentReads += 1
        return .absent
    }

    /// Base and operands as one value; `operands` come newest first.
    private static func joined(_ base: ArraySlice<UInt8>?, _ operands: [ArraySlice<UInt8>]) -> ArraySlice<UInt8> {
        if operands.isEmpty { return base ?? [] }
        var bytes: [UInt8] = []
        bytes.reserveCapacity((base?.count ?? 0) + operands.reduce(0) { $0 + $1.count })
        if let base { bytes.append(contentsOf: base) }
        for operand in operands.reversed() { bytes.append(contentsOf: operand) }
        return bytes[...]
    }

    /// Asks the server, and remembers the answer.
    private func readRemotely(
        _ record: StateRecord
    ) async throws(ClientError) -> (bytes: ArraySlice<UInt8>, expiry: Expiry)? {
        let key = keyScratch
        let hash = keyHash
        let prediction = miss.prediction
        if miss.hasAppendsInFlight {
            // The server's answer may or may not contain the appends in flight; behind their acknowledgement it does.
            try await settle("read state \(record.name)") { $0.isIdle }
        }
        counters.readRPCs += 1
        let watermark = self.watermark
        let answers = try await call("read state \(record.name)") {
            (remote: any RemoteTree) async throws(RemoteError) -> ValueColumns in
            try await remote.multiGet(KeyColumns([key]), watermark: watermark)
        }
        guard answers.count == 1 else {
            throw ClientError(
                .damagedValue, .retry, "state \(record.name): asked for 1 key, the server answered \(answers.count)")
        }
        let expiry = answers.expiry(0)
        let isPresent = answers.isPresent(0) && !isExpired(expiry)
        verify(prediction, against: isPresent)
        // Only the active table can hold something for the key: what was in flight is acknowledged.
        let operand = active.find(key, hash: hash)
        guard isPresent else {
            if prediction == nil { rememberAbsence(key, hash: hash) }
            guard let operand else {
                counters.absentReads += 1
                if configuration.keyIndex != .verify || prediction == nil { counters.absentReadRPCs += 1 }
                return nil
            }
            return (active.value(at: operand), active.entries[operand].expiry)
        }
        let bytes = try await open(record, answers.value(0))
        if configuration.valueCacheBytes > 0 { cache.set(key[...], hash: hash, value: bytes, expiry: expiry) }
        guard let operand else { return (bytes, expiry) }
        return (Self.joined(bytes, [active.value(at: operand)]), active.entries[operand].expiry)
    }

    func verify(_ prediction: Bool?, against isPresent: Bool) {
        guard let prediction else { return }
        counters.verifyChecks += 1
        if prediction != isPresent { counters.verifyDisagreements += 1 }
    }

    func rememberAbsence(_ key: [UInt8], hash: UInt64) {
        if configuration.valueCacheBytes > 0, index?.isComplete != true { cache.setAbsent(key, hash: hash) }
    }

    /// Stored bytes → serializer's bytes, where they lie when they are not compressed; fetches the dictionaries they name.
    func open(_ record: StateRecord, _ stored: ArraySlice<UInt8>) async throws(ClientError) -> ArraySlice<UInt8> {
        if record.kind != .list, let raw = ValueEnvelope.rawPayload(stored) { return raw }
        return try await open(record, Array(stored))[...]
    }

    func open(_ record: StateRecord, _ stored: [UInt8]) async throws(ClientError) -> [UInt8] {
        for _ in 0..<Self.dictionariesPerValueMax {
            do throws(EnvelopeError) {
                return record.kind == .list
                    ? try ListFormat.open(stored, with: decoder) : try decoder.decode(stored)
            } catch {
                guard case .unknownDictionary(let id) = error else {
                    throw Self.damaged(record, error.description)
                }
                try await fetchDictionary(id)
            }
        }
        throw Self.damaged(record, "it needs more than \(Self.dictionariesPerValueMax) dictionaries")
    }

    func fetchDictionary(_ id: UInt32) async throws(ClientError) {
        let bytes = try await call("fetch dictionary \(id)") {
            (remote: any RemoteTree) async throws(RemoteError) -> [UInt8] in
            try await remote.dictionary(id: id)
        }
        guard !bytes.isEmpty, bytes.count <= CompressionDictionary.sizeMax else {
            throw ClientError(
                .damagedValue, .restoreFromCheckpoint,
                "dictionary \(id) has \(bytes.count) bytes; expected 1...\(CompressionDictionary.sizeMax)")
        }
        decoder.add(CompressionDictionary(id: id, bytes: bytes))
    }

    static func damaged(_ record: StateRecord, _ detail: String) -> ClientError {
        ClientError(
            .damagedValue, .restoreFromCheckpoint,
            "a value of state \(record.name) cannot be opened: \(detail); it was damaged or written by an incompatible "
                + "client")
    }

    /// Runs a program's decoder.
    func decode<Value>(
        _ bytes: ArraySlice<UInt8>, _ serializer: StateSerializer<Value>, _ record: StateRecord
    ) throws(ClientError) -> Value {
        do {
            return try serializer.decode(bytes)
        } catch {
            throw ClientError(
                .serializer, .fixTheCall,
                "the serializer of state \(record.name) refused \(bytes.count) bytes: \(error); was the state written with "
                    + "another one?")
        }
    }

    /// A read extends the life of the value when the state says so: prepares the write for `extendLife`, and returns its
    /// expiry. Two steps, and the slice is consumed by the first: while a slice of the write buffer is held, a write copies
    /// the whole buffer.
    func extendedLife(_ record: StateRecord, _ bytes: consuming ArraySlice<UInt8>, _ old: Expiry) -> Expiry? {
        guard let ttl = record.options.ttl, ttl.refresh == .onReadAndWrite else { return nil }
        let new = expiry(record)
        guard new != old else { return nil }
        valueScratch.removeAll(keepingCapacity: true)
        valueScratch.append(contentsOf: bytes)
        return new
    }

    func extendLife(_ record: StateRecord, _ new: Expiry) async throws(ClientError) {
        try await write(.put, record, expiry: new)
        counters.writeOperations -= 1
    }
}
