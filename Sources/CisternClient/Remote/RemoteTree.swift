// What a session needs from the other side, and nothing of how it gets there: the tree of one key-group range. The wire
// has one conformer; a model of the server, with faults on demand, is the other.
//
// Calls may come from the session's task and from one background task (key index, dictionary upload), so a conformer is
// Sendable. Every call can fail with `.disconnected`: the session then attaches again and repeats what it must.

package import CisternPrimitives

package protocol RemoteTree: AnyObject, Sendable {
    /// Connects when there is no connection, and becomes the writer. Called again after every `.disconnected`.
    func attach(_ request: AttachRequest) async throws(RemoteError) -> AttachAnswer
    /// Sends at once, in the order of the calls, without waiting. `completion` is called exactly once, on any thread:
    /// nil when the batch is acknowledged.
    func write(
        _ batch: SealedBatch, sequence: UInt64, watermark: UInt64,
        completion: @escaping @Sendable (RemoteError?) -> Void)
    /// One answer a key, in order.
    func multiGet(_ keys: KeyColumns, watermark: UInt64) async throws(RemoteError) -> ValueColumns
    func scan(_ request: ScanRequest) async throws(RemoteError) -> EntryPage
    /// Every live key from `start` on, in pages; returns after the last.
    func keyIndex(
        from start: [UInt8], watermark: UInt64, onPage: @escaping @Sendable (EntryPage) -> Void
    ) async throws(RemoteError)
    /// - Parameter sequence: the newest acknowledged batch; the snapshot holds all of them.
    func snapshot(checkpoint: UInt64, sequence: UInt64) async throws(RemoteError) -> SnapshotHandle
    func register(name: String, kind: StateKind, ttl: StateTimeToLive) async throws(RemoteError) -> RegisterAnswer
    func putDictionary(state: UInt16, bytes: [UInt8]) async throws(RemoteError) -> UInt32
    func dictionary(id: UInt32) async throws(RemoteError) -> [UInt8]
    func detach() async throws(RemoteError)
    /// Drops the connection at once. Idempotent.
    func close()
    /// Body bytes sent and received so far.
    var traffic: (sent: UInt64, received: UInt64) { get }
}

/// Why a remote call failed, as the session's recovery sees it.
package enum RemoteError: Error, Sendable {
    /// The request may or may not have had its effect.
    case disconnected(reason: String)
    /// Refused for now, without effect.
    case retryLater(milliseconds: UInt64, reason: String)
    /// The batch was refused because the tree waits for an earlier one.
    case sequenceGap(expected: UInt64)
    /// Will never succeed.
    case fatal(ClientError)
}

/// The kinds of state. On the wire: never renumber.
package enum StateKind: UInt8, Sendable {
    case value = 1
    case list = 2
    case map = 3
    case reducing = 4
    case aggregating = 5
    case timers = 6
}

package struct AttachRequest: Sendable {
    package var store: String
    package var keyGroupCount: Int
    package var keyGroups: KeyGroupRange
    package var epoch: UInt64
    package var writer: String
    /// nil: go on with what the server has. Otherwise the content becomes exactly the union of these, clipped.
    package var restoring: [SnapshotHandle]?

    package init(
        store: String, keyGroupCount: Int, keyGroups: KeyGroupRange, epoch: UInt64, writer: String,
        restoring: [SnapshotHandle]?
    ) {
        self.store = store
        self.keyGroupCount = keyGroupCount
        self.keyGroups = keyGroups
        self.epoch = epoch
        self.writer = writer
        self.restoring = restoring
    }
}

package struct RemoteState: Sendable {
    package var id: UInt16
    package var name: String
    package var kind: StateKind

    package init(id: UInt16, name: String, kind: StateKind) {
        self.id = id
        self.name = name
        self.kind = kind
    }
}

package struct RegisterAnswer: Sendable {
    package var id: UInt16
    /// Expiries that were read when the tree had seen fewer changes of times to live may be wrong.
    package var timeToLiveChanges: UInt64
    /// What stored expiries of the state mean, by key groups; none: what they say.
    package var expiryRules: [ExpiryRule]

    package init(id: UInt16, timeToLiveChanges: UInt64 = 0, expiryRules: [ExpiryRule] = []) {
        self.id = id
        self.timeToLiveChanges = timeToLiveChanges
        self.expiryRules = expiryRules
    }
}

package struct AttachAnswer: Sendable {
    /// Newest sequence of this epoch that the tree holds.
    package var lastSequence: UInt64
    /// The tree was there with this epoch and writer.
    package var resumed: Bool
    package var states: [RemoteState]
    /// Dictionary ids and the states they belong to, oldest first.
    package var dictionaries: [(id: UInt32, state: UInt16)]
    package var watermark: UInt64
    package var restoreMicroseconds: UInt64
    /// The server's wall clock when it answered; never ahead of the true one because the answer travelled.
    package var wallMilliseconds: UInt64
    /// Changes of times to live that the tree has seen.
    package var timeToLiveChanges: UInt64

    package init(
        lastSequence: UInt64, resumed: Bool, states: [RemoteState], dictionaries: [(id: UInt32, state: UInt16)],
        watermark: UInt64, restoreMicroseconds: UInt64, wallMilliseconds: UInt64, timeToLiveChanges: UInt64 = 0
    ) {
        self.lastSequence = lastSequence
        self.resumed = resumed
        self.states = states
        self.dictionaries = dictionaries
        self.watermark = watermark
        self.restoreMicroseconds = restoreMicroseconds
        self.wallMilliseconds = wallMilliseconds
        self.timeToLiveChanges = timeToLiveChanges
    }
}

package struct ScanRequest: Sendable {
    package var start: [UInt8]
    /// Empty: to the end of the tree.
    package var end: [UInt8]
    package var entriesMax: UInt32
    package var keysOnly: Bool
    package var watermark: UInt64

    package init(start: [UInt8], end: [UInt8], entriesMax: UInt32, keysOnly: Bool, watermark: UInt64) {
        self.start = start
        self.end = end
        self.entriesMax = entriesMax
        self.keysOnly = keysOnly
        self.watermark = watermark
    }
}

/// Entries of a scan page as columns: entry `i` is `[ends[i - 1], ends[i])`.
package struct EntryPage: Sendable {
    package var keyEnds: [UInt32]
    package var keys: [UInt8]
    /// Empty when only keys were asked for.
    package var valueEnds: [UInt32]
    package var values: [UInt8]
    /// Empty when none expires.
    package var expiries: [UInt64]
    /// Where the next page starts; empty: this was the last.
    package var next: [UInt8]

    package init(
        keyEnds: [UInt32] = [], keys: [UInt8] = [], valueEnds: [UInt32] = [], values: [UInt8] = [],
        expiries: [UInt64] = [], next: [UInt8] = []
    ) {
        self.keyEnds = keyEnds
        self.keys = keys
        self.valueEnds = valueEnds
        self.values = values
        self.expiries = expiries
        self.next = next
    }

    package var count: Int { keyEnds.count }

    func keyRange(_ index: Int) -> Range<Int> {
        (index == 0 ? 0 : Int(keyEnds[index - 1]))..<Int(keyEnds[index])
    }

    package func key(_ index: Int) -> [UInt8] { Array(keys[keyRange(index)]) }

    package func value(_ index: Int) -> [UInt8] {
        valueEnds.isEmpty ? [] : Array(values[(index == 0 ? 0 : Int(valueEnds[index - 1]))..<Int(valueEnds[index])])
    }

    package func expiry(_ index: Int) -> Expiry { Expiry(rawValue: expiries.isEmpty ? 0 : expiries[index]) }
}
