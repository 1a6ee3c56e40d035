// Many reads at once: what nothing here knows is asked for in one request, and read where its answer lies.

internal import CisternCompression
internal import CisternPrimitives

extension KeyedStateSession {
    /// Keys of one request: the server takes more, but answers of some megabytes hold up everything behind them.
    static let keysPerRequestMax = 4096

    /// Shows what each key has in `record` under the current namespace, nil when nothing: first, in any order, what is known here,
    /// then what the server says. States whose entries are only ever replaced: no list has appends that an answer could miss.
    /// The current key stays what it was.
    /// - Parameter isAhead: the values are for reads that follow, so the cache keeps them for these.
    func readMany(
        _ record: StateRecord, _ keys: [[UInt8]],
        isAhead: Bool, _ visit: (Int, ArraySlice<UInt8>?) throws(ClientError) -> Void
    ) async throws(ClientError) {
        try ensureOpen()
        var unknown = UnknownKeys()
        for (number, key) in keys.enumerated() {
            try prepareStoreKey(of: key, record)
            switch readLocally(record) {
            case .found(let bytes, _): try visit(number, bytes)
            case .absent: try visit(number, nil)
            case .unknown:
                unknown.append(number, keyScratch, hash: keyHash, prediction: miss.prediction)
                if unknown.columns.count == Self.keysPerRequestMax {
                    try await ask(unknown, record, isAhead: isAhead, visit)
                    unknown = UnknownKeys()
                }
            }
        }
        if unknown.columns.count > 0 { try await ask(unknown, record, isAhead: isAhead, visit) }
    }

    private struct UnknownKeys {
        var columns = KeyColumns()
        var numbers: [Int] = []
        var hashes: [UInt64] = []
        var predictions: [Bool?] = []

        mutating func append(_ number: Int, _ key: [UInt8], hash: UInt64, prediction: Bool?) {
            columns.append(key)
            numbers.append(number)
            hashes.append(hash)
            predictions.append(prediction)
        }
    }

    private func ask(
        _ unknown: UnknownKeys, _ record: StateRecord, isAhead: Bool,
        _ visit: (Int, ArraySlice<UInt8>?) throws(ClientError) -> Void
    ) async throws(ClientError) {
        counters.readRPCs += 1
        let watermark = self.watermark
        let columns = unknown.columns
        let answers = try await call("read \(columns.count) keys of state \(record.name)") {
            (remote: any RemoteTree) async throws(RemoteError) -> ValueColumns in
            try await remote.multiGet(columns, watermark: watermark)
        }
        guard answers.count == columns.count else {
            throw ClientError(
                .damagedValue, .retry,
                "state \(record.name): asked for \(columns.count) keys, the server answered \(answers.count)")
        }
        for index in 0..<answers.count {
            let number = unknown.numbers[index]
            let expiry = answers.expiry(index)
            let isPresent = answers.isPresent(index) && !isExpired(expiry)
            verify(unknown.predictions[index], against: isPresent)
            if !isPresent {
                if unknown.predictions[index] == nil {
                    rememberAbsence(columns.key(index), hash: unknown.hashes[index])
                }
                counters.absentReads += 1
                if configuration.keyIndex != .verify || unknown.predictions[index] == nil {
                    counters.absentReadRPCs += 1
                }
                try visit(number, nil)
                continue
            }
            let value: ArraySlice<UInt8>
            if let raw = ValueEnvelope.rawPayload(answers.value(index)) {
                value = raw
            } else {
                value = try await open(record, Array(answers.value(index)))[...]
            }
            if configuration.valueCacheBytes > 0 {
                cache.set(
                    columns.key(index), hash: unknown.hashes[index], value: Array(value), expiry: expiry,
                    isAwaited: isAhead)
            }
            try visit(number, value)
        }
    }
}
