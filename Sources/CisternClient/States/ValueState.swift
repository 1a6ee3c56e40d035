// One value for each key and namespace; reducing and aggregating states are built on it.

internal import CisternPrimitives

/// What a call that never waits knows about a value.
public enum KnownValue<Value> {
    case present(Value)
    case absent
    /// Only the server can tell: use the `async` call.
    case unknown
}

/// One value for each key and namespace. Made by `KeyedStateSession.valueState`; used by the session's task only.
public final class ValueState<Value> {
    let session: KeyedStateSession
    let record: StateRecord
    let serializer: StateSerializer<Value>

    init(_ session: KeyedStateSession, _ record: StateRecord, _ serializer: StateSerializer<Value>) {
        self.session = session
        self.record = record
        self.serializer = serializer
    }

    /// The value of the current key and namespace; nil when there is none or it has expired.
    ///
    /// Does not suspend when the write buffer, the value cache or the key index knows the answer; one round trip otherwise.
    public func value() async throws(ClientError) -> Value? {
        try session.prepareKey(record)
        guard let (bytes, expiry) = try await session.read(record) else { return nil }
        let value = try session.decode(bytes, serializer, record)
        if let extended = session.extendedLife(record, consume bytes, expiry) {
            try await session.extendLife(record, extended)
        }
        return value
    }

    /// The same without ever waiting, for engines that batch what is unknown.
    public func valueIfKnown() throws(ClientError) -> KnownValue<Value> {
        try session.ensureOpen()
        try session.prepareKey(record)
        // Extending a life may have to wait for the write buffer, so such a value is for the asynchronous call.
        if record.options.ttl?.refresh == .onReadAndWrite { return .unknown }
        switch session.readLocally(record) {
        case .found(let bytes, _): return .present(try session.decode(bytes, serializer, record))
        case .absent: return .absent
        case .unknown: return .unknown
        }
    }

    /// The values of many keys under the current namespace, in their order; nil where there is none. The current key stays what it
    /// was. What the write buffer, the value cache or the key index does not know is asked for in one request for every 4,096 keys,
    /// so an engine that knows its next records reads them for a fraction of what single reads cost.
    /// - Throws: `.invalidArgument` when a key belongs to another worker; what `value` throws.
    public func values(of keys: [[UInt8]]) async throws(ClientError) -> [Value?] {
        var values = [Value?](repeating: nil, count: keys.count)
        guard record.options.ttl?.refresh != .onReadAndWrite else {
            return try await refreshedValues(of: keys)
        }
        try await session.readMany(record, keys, isAhead: false) { number, bytes throws(ClientError) in
            if let bytes { values[number] = try session.decode(bytes, serializer, record) }
        }
        return values
    }

    /// Brings the values of these keys into the value cache, as `values` reads them, so that reads which follow need not wait. Does
    /// nothing where there is no cache.
    public func prefetch(_ keys: [[UInt8]]) async throws(ClientError) {
        guard session.configuration.valueCacheBytes > 0 else { return }
        try await session.readMany(record, keys, isAhead: true) { (_, _) throws(ClientError) in }
    }

    /// Reading extends lives, which is a write for each value.
    private func refreshedValues(of keys: [[UInt8]]) async throws(ClientError) -> [Value?] {
        try await prefetch(keys)
        let current = (session.key, session.keyGroup, session.namespace)
        defer { session.restoreKey(current.0, current.1, current.2) }
        var values: [Value?] = []
        for key in keys {
            try session.setCurrentKey(key)
            values.append(try await value())
        }
        return values
    }

    /// Replaces the value of the current key and namespace. Goes into the write buffer; waits only when too many batches
    /// are in flight. When it throws, nothing was written.
    public func update(_ value: Value) async throws(ClientError) {
        try session.prepareKey(record)
        session.valueScratch.removeAll(keepingCapacity: true)
        serializer.encode(value, &session.valueScratch)
        try await session.write(.put, record, expiry: session.expiry(record))
    }

    /// Removes the value of the current key and namespace. Costs as `update`, and does not read.
    public func clear() async throws(ClientError) {
        try session.prepareKey(record)
        session.valueScratch.removeAll(keepingCapacity: true)
        try await session.write(.delete, record, expiry: .never)
    }
}

/// One value for each key and namespace that additions are combined into. Made by `KeyedStateSession.reducingState`.
public final class ReducingState<Value> {
    let state: ValueState<Value>
    private let reduce: (Value, Value) -> Value

    init(_ state: ValueState<Value>, _ reduce: @escaping (Value, Value) -> Value) {
        self.state = state
        self.reduce = reduce
    }

    /// The combination of everything added; nil when nothing was. Costs as `ValueState.value`.
    public func get() async throws(ClientError) -> Value? { try await state.value() }

    /// Combines `value` behind what is there: a read and a write.
    public func add(_ value: Value) async throws(ClientError) {
        if let old = try await state.value() {
            try await state.update(reduce(old, value))
        } else {
            try await state.update(value)
        }
    }

    public func clear() async throws(ClientError) { try await state.clear() }
}

/// How inputs are gathered in an accumulator and how a result is read from it.
public struct Aggregate<Input, Accumulator, Output> {
    public let makeAccumulator: () -> Accumulator
    public let add: (Input, inout Accumulator) -> Void
    public let result: (Accumulator) -> Output

    public init(
        makeAccumulator: @escaping () -> Accumulator, add: @escaping (Input, inout Accumulator) -> Void,
        result: @escaping (Accumulator) -> Output
    ) {
        self.makeAccumulator = makeAccumulator
        self.add = add
        self.result = result
    }
}

/// An accumulator for each key and namespace. Made by `KeyedStateSession.aggregatingState`.
public final class AggregatingState<Input, Accumulator, Output> {
    let state: ValueState<Accumulator>
    let aggregate: Aggregate<Input, Accumulator, Output>

    init(_ state: ValueState<Accumulator>, _ aggregate: Aggregate<Input, Accumulator, Output>) {
        self.state = state
        self.aggregate = aggregate
    }

    /// The result over everything added; nil when nothing was. Costs as `ValueState.value`.
    public func get() async throws(ClientError) -> Output? {
        guard let accumulator = try await state.value() else { return nil }
        return aggregate.result(accumulator)
    }

    /// Adds to the accumulator: a read and a write.
    public func add(_ input: Input) async throws(ClientError) {
        var accumulator = try await state.value() ?? aggregate.makeAccumulator()
        aggregate.add(input, &accumulator)
        try await state.update(accumulator)
    }

    public func clear() async throws(ClientError) { try await state.clear() }
}
