// Attaching, and registering states: the calls a worker makes before its first record.

internal import CisternCompression
internal import CisternPrimitives

extension KeyedStateSession {
    /// Becomes the writer and makes the session ready; with a key index, waits for it unless told otherwise.
    package static func attach(
        over remote: any RemoteTree, request: AttachRequest, configuration: ClientConfiguration,
        environment: ClientEnvironment = ClientEnvironment()
    ) async throws(ClientError) -> KeyedStateSession {
        try configuration.validate()
        guard request.keyGroupCount > 0, request.keyGroupCount <= KeyGroup.countMax,
            Int(request.keyGroups.last) < request.keyGroupCount
        else {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "key groups \(request.keyGroups) of \(request.keyGroupCount): the count must be within "
                    + "1...\(KeyGroup.countMax) and the range below it")
        }
        let session = KeyedStateSession(
            remote: remote, request: request, configuration: configuration, environment: environment)
        let started = environment.time.monotonicNanoseconds
        let deadline = session.retryDeadline()
        var attempt = 0
        while true {
            do throws(RemoteError) {
                let answer = try await remote.attach(request)
                session.begin(answer)
                break
            } catch {
                try await session.pauseBeforeAttaching(after: error, attempt: attempt, deadline: deadline)
            }
            attempt += 1
        }
        try session.checkFirstAttach()
        if session.index != nil {
            session.loader.begin(remote, watermark: session.watermark, connection: session.connections)
            if !configuration.keyIndexLoadsInBackground { try await session.loadKeyIndex() }
        }
        session.counters.attachMicroseconds = (environment.time.monotonicNanoseconds - started) / 1000
        return session
    }

    private func begin(_ answer: AttachAnswer) {
        take(answer)
        sequenceAtAttach = answer.lastSequence
        knownTimeToLiveChanges = answer.timeToLiveChanges
        counters.restoreMicroseconds = answer.restoreMicroseconds
        startedEmpty = request.restoring?.isEmpty == true && answer.lastSequence == 0
    }

    /// A new session numbers its batches from 1, so the tree must not hold batches of this epoch: a restarted worker takes a
    /// newer epoch.
    private func checkFirstAttach() throws(ClientError) {
        guard sequenceAtAttach > 0 else { return }
        failure = ClientError(
            .fenced, .attachAgain,
            "the tree of \(request.store) \(request.keyGroups) already holds batches up to \(sequenceAtAttach) of epoch "
                + "\(request.epoch): a restarted worker attaches with a newer epoch", currentEpoch: request.epoch)
        remote.close()
        try ensureOpen()
    }

    /// Registers a state, or finds it again by its name. The same name with the same kind gives the same state.
    func register(
        _ name: String, kind: StateKind, _ options: StateOptions
    ) async throws(ClientError) -> StateRecord {
        try ensureOpen()
        try options.validate(state: name)
        guard !name.isEmpty, name.utf8.count <= Self.stateNameBytesMax else {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "a state's name has 1...\(Self.stateNameBytesMax) bytes, this one \(name.utf8.count)")
        }
        if let record = recordsByName[name] {
            guard record.kind == kind, record.options == options else {
                throw ClientError(
                    .invalidArgument, .fixTheCall,
                    "state \(name) is registered as \(record.kind) already; one name is one state with one set of options"
                )
            }
            return record
        }
        if let remote = remoteStates.first(where: { $0.name == name }), remote.kind != kind {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "state \(name) of store \(request.store) is a \(remote.kind) state; it cannot be used as \(kind)")
        }
        let answer = try await tell(options.ttl, name, kind)
        let id = answer.id
        let record = StateRecord(id: id, name: name, kind: kind, options: options)
        record.follow(options.ttl, answer.expiryRules)
        try await forgetExpiries(answer.timeToLiveChanges)
        try await loadDictionaries(record)
        recordsByName[name] = record
        while recordsByID.count <= Int(id) { recordsByID.append(nil) }
        recordsByID[Int(id)] = record
        if kind == .timers { timerStateIDs.insert(id) }
        return record
    }

    private func tell(
        _ ttl: TimeToLive?, _ name: String, _ kind: StateKind
    ) async throws(ClientError) -> RegisterAnswer {
        let told = ttl.map { StateTimeToLive(milliseconds: $0.milliseconds, isEventTime: $0.clock == .event) } ?? .none
        return try await call("register state \(name)") {
            (remote: any RemoteTree) async throws(RemoteError) -> RegisterAnswer in
            try await remote.register(name: name, kind: kind, ttl: told)
        }
    }

    /// Changes the time to live of a registered state, for what is stored too: values count from when they were written, those
    /// that were written without one from now. What has expired stays expired. The same as registering the state with other
    /// options at the next attach. Flushes, and with a key index loads it again in the background.
    /// - Parameter ttl: nil to let values live on.
    /// - Throws: `.invalidArgument` when no such state is registered; what a remote call throws.
    public func setTimeToLive(_ ttl: TimeToLive?, ofState name: String) async throws(ClientError) {
        guard let record = recordsByName[name], record.kind != .timers else {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "state \(name) of store \(request.store) is not registered by this session, or has timers; only values have a "
                    + "time to live")
        }
        var options = record.options
        options.ttl = ttl
        try options.validate(state: name)
        // What was written before is stored by the old time to live.
        try await flush()
        let answer = try await tell(ttl, name, record.kind)
        record.follow(ttl, answer.expiryRules)
        cache = ValueCache(capacityBytes: configuration.valueCacheBytes)
        try await forgetExpiries(answer.timeToLiveChanges)
    }

    /// What the key index knows of expiries was read before a time to live changed: a key that lives longer now would be taken for
    /// gone. It is loaded again, in the background; keys written since then are with the server, because everything is flushed
    /// first.
    private func forgetExpiries(_ changes: UInt64) async throws(ClientError) {
        guard changes != knownTimeToLiveChanges else { return }
        if index != nil {
            try await flush()
            loader.stop()
            loader = KeyIndexLoader()
            index = KeyIndex()
            loader.begin(remote, watermark: watermark, connection: connections)
        }
        knownTimeToLiveChanges = changes
    }

    /// Longest name of a state.
    static let stateNameBytesMax = 255

    /// Loads what earlier sessions trained, so that reads need not stop for it; the newest is used for writing, and then
    /// nothing is trained.
    private func loadDictionaries(_ record: StateRecord) async throws(ClientError) {
        var newest: UInt32?
        for known in remoteDictionaries where known.state == record.id {
            if !decoder.knows(dictionary: known.id) { try await fetchDictionary(known.id) }
            newest = known.id
        }
        guard case .trained(let bytes) = record.options.dictionary, record.options.codec != .none else { return }
        if let newest, let dictionary = decoder.dictionary(newest) {
            record.use(dictionary)
        } else {
            record.trainer = DictionaryTrainer(stateID: record.id, dictionaryBytes: bytes)
        }
    }

    // MARK: States

    /// One value for each key and namespace.
    /// - Throws: `.invalidArgument` when the name is taken by another kind; what a remote call throws.
    public func valueState<Value>(
        _ name: String, _ serializer: StateSerializer<Value>, _ options: StateOptions = StateOptions()
    ) async throws(ClientError) -> ValueState<Value> {
        ValueState(self, try await register(name, kind: .value, options), serializer)
    }

    /// A list of values for each key and namespace. Adding does not read.
    public func listState<Element>(
        _ name: String, _ serializer: StateSerializer<Element>, _ options: StateOptions = StateOptions()
    ) async throws(ClientError) -> ListState<Element> {
        ListState(self, try await register(name, kind: .list, options), serializer)
    }

    /// A map for each key and namespace, whose entries are read and written one by one.
    public func mapState<Key, Value>(
        _ name: String, _ keySerializer: StateSerializer<Key>, _ serializer: StateSerializer<Value>,
        _ options: StateOptions = StateOptions()
    ) async throws(ClientError) -> MapState<Key, Value> {
        MapState(self, try await register(name, kind: .map, options), keySerializer, serializer)
    }

    /// One value for each key and namespace that additions are combined into.
    public func reducingState<Value>(
        _ name: String, _ serializer: StateSerializer<Value>, _ options: StateOptions = StateOptions(),
        reduce: @escaping (Value, Value) -> Value
    ) async throws(ClientError) -> ReducingState<Value> {
        ReducingState(ValueState(self, try await register(name, kind: .reducing, options), serializer), reduce)
    }

    /// As a reducing state, with an accumulator between what goes in and what comes out.
    public func aggregatingState<Input, Accumulator, Output>(
        _ name: String, _ serializer: StateSerializer<Accumulator>, _ options: StateOptions = StateOptions(),
        _ aggregate: Aggregate<Input, Accumulator, Output>
    ) async throws(ClientError) -> AggregatingState<Input, Accumulator, Output> {
        AggregatingState(
            ValueState(self, try await register(name, kind: .aggregating, options), serializer), aggregate)
    }

    /// Timers of this session's key groups, loaded from the server if there are any.
    public func timerQueue(_ name: String) async throws(ClientError) -> TimerQueue {
        let known = remoteStates.contains { $0.name == name }
        let record = try await register(name, kind: .timers, StateOptions())
        if let heap = timers[name] { return TimerQueue(self, record, heap) }
        let heap = TimerHeap()
        let queue = TimerQueue(self, record, heap)
        if known, !startedEmpty { try await queue.load() }
        timers[name] = heap
        return queue
    }
}
