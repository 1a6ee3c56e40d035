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
        counters.readOperations += keys.count
        var rest = keys[...]
        while !rest.isEmpty {
            takeArrivals()
            let unknown = knowsNothing ? try allUnknown(record, rest) : try lookLocally(record, rest, visit)
            rest = rest[unknown.end...]
            if unknown.columns.count > 0 { try await ask(unknown, record, isAhead: isAhead, visit) }
        }
    }

    /// Keys that only the server can tell about.
    private struct UnknownKeys {
        var columns: KeyColumns
        /// Empty when they are all of those from `end - count` to `end`.
        var numbers: [Int] = []
        /// What the key index would have answered; empty unless `verify` asks.
        var predictions: [Bool?] = []
        /// Number of the first key that was not looked at.
        var end: Int

        func number(_ index: Int) -> Int { numbers.isEmpty ? end - columns.count + index : numbers[index] }
        func prediction(_ index: Int) -> Bool? { predictions.isEmpty ? nil : predictions[index] }
    }

    /// True when no key can be answered here.
    private var knowsNothing: Bool {
        active.isEmpty && sender.isIdle && cache.count == 0 && index?.isComplete != true
    }

    /// The first keys, as many as a request takes, without a look for each.
    private func allUnknown(
        _ record: StateRecord, _ keys: ArraySlice<[UInt8]>
    ) throws(ClientError) -> UnknownKeys {
        let keys = keys.prefix(Self.keysPerRequestMax)
        let namespace = currentNamespace
        let bytes = keys.reduce(0) { $0 + StateKey.size(key: $1.count, namespace: namespace.count) }
        let groups = request.keyGroups
        let groupCount = request.keyGroupCount
        var refused: ClientError?
        // Keys are looked at where they lie: a key taken out of its array is retained and released.
        let columns = unsafe keys.withUnsafeBufferPointer { keys in
            unsafe namespace.withUnsafeBytes { namespace in
                unsafe KeyColumns(count: keys.count, bytes: bytes) { number, memory in
                    unsafe keys[number].withUnsafeBytes { key -> Int? in
                        let group = unsafe KeyGroup.group(ofKey: key, count: groupCount)
                        let size = StateKey.size(key: key.count, namespace: namespace.count)
                        guard groups.contains(group), size <= ClientLimits.keyBytesMax else {
                            refused = groups.contains(group) ? Self.keyTooLong(size) : foreignKey(group)
                            return nil
                        }
                        unsafe StateKey.write(
                            keyGroup: group, stateID: record.id, key: key, namespace: namespace, into: memory)
                        return size
                    }
                }
            }
        }
        if let refused { throw refused }
        return UnknownKeys(columns: columns, end: keys.endIndex)
    }

    /// Shows what is known here of the first keys, until a request is full of those that are not.
    private func lookLocally(
        _ record: StateRecord, _ keys: ArraySlice<[UInt8]>,
        _ visit: (Int, ArraySlice<UInt8>?) throws(ClientError) -> Void
    ) throws(ClientError) -> UnknownKeys {
        var unknown = UnknownKeys(columns: KeyColumns(), end: keys.startIndex)
        for number in keys.indices {
            try prepareStoreKey(of: keys[number], record)
            switch lookLocally(record) {
            case .found(let bytes, _): try visit(number, bytes)
            case .absent: try visit(number, nil)
            case .unknown:
                unknown.columns.append(keyScratch)
                unknown.numbers.append(number)
                if configuration.keyIndex == .verify { unknown.predictions.append(miss.prediction) }
            }
            unknown.end = number + 1
            if unknown.columns.count == Self.keysPerRequestMax { break }
        }
        return unknown
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
        var index = 0
        while true {
            try take(answers, of: unknown, from: &index, isAhead: isAhead, visit)
            guard index < answers.count else { return }
            let value = try await open(record, Array(answers.value(index)))
            try take(value[...], answers.expiry(index), index, of: unknown, isAhead: isAhead, visit)
            index += 1
        }
    }

    /// Takes answers until one that has to be decoded, or the end. A function that does not wait: what it keeps in registers, one
    /// that may wait keeps in memory.
    private func take(
        _ answers: ValueColumns, of unknown: UnknownKeys, from index: inout Int, isAhead: Bool,
        _ visit: (Int, ArraySlice<UInt8>?) throws(ClientError) -> Void
    ) throws(ClientError) {
        while index < answers.count {
            let expiry = answers.expiry(index)
            let isPresent = answers.isPresent(index) && !isExpired(expiry)
            verify(unknown.prediction(index), against: isPresent)
            if !isPresent {
                try takeAbsence(index, of: unknown, visit)
            } else if let value = ValueEnvelope.rawPayload(answers.value(index)) {
                try take(value, expiry, index, of: unknown, isAhead: isAhead, visit)
            } else {
                return
            }
            index += 1
        }
    }

    private func take(
        _ value: ArraySlice<UInt8>, _ expiry: Expiry, _ index: Int, of unknown: UnknownKeys, isAhead: Bool,
        _ visit: (Int, ArraySlice<UInt8>?) throws(ClientError) -> Void
    ) throws(ClientError) {
        if configuration.valueCacheBytes > 0 {
            let key = unknown.columns.slice(index)
            let hash = unsafe key.withUnsafeBytes { unsafe Hash64.hash($0) }
            cache.set(key, hash: hash, value: value, expiry: expiry, isAwaited: isAhead)
        }
        try visit(unknown.number(index), value)
    }

    private func takeAbsence(
        _ index: Int, of unknown: UnknownKeys, _ visit: (Int, ArraySlice<UInt8>?) throws(ClientError) -> Void
    ) throws(ClientError) {
        let prediction = unknown.prediction(index)
        if prediction == nil, configuration.valueCacheBytes > 0 {
            let key = unknown.columns.key(index)
            rememberAbsence(key, hash: Hash64.hash(key))
        }
        counters.absentReads += 1
        if configuration.keyIndex != .verify || prediction == nil { counters.absentReadRPCs += 1 }
        try visit(unknown.number(index), nil)
    }
}
