// What the server knows about stores besides their entries: how many key groups a store has, its named states with the ids
// the server gave them, and its dictionaries. Pure values: every change is a function from one state to the next, which
// `Catalog` makes durable before anyone sees it.

package import CisternLSM
internal import CisternPrimitives

/// What a state is. Stored and sent: never renumber. Equals `StateKind` of proto-spec/cistern/control.proto.
package enum CatalogStateKind: UInt8, Sendable, CaseIterable {
    case value = 1
    case list = 2
    case map = 3
    case reducing = 4
    case aggregating = 5
    case timers = 6

    /// True when entries are only ever looked up by their whole key, so that a memtable need not keep them in order.
    package var isPoint: Bool {
        switch self {
        case .value, .list, .reducing, .aggregating: true
        case .map, .timers: false
        }
    }
}

package struct CatalogStateEntry: Equatable, Sendable {
    package let id: UInt16
    package let name: String
    package let kind: CatalogStateKind
    /// Information for tools, 0 = none: what trees go by is in their expiry rules.
    package var ttlMilliseconds: UInt64

    package init(id: UInt16, name: String, kind: CatalogStateKind, ttlMilliseconds: UInt64) {
        self.id = id
        self.name = name
        self.kind = kind
        self.ttlMilliseconds = ttlMilliseconds
    }
}

/// Immutable once given an id: values on disk name it for ever.
package struct CatalogDictionary: Equatable, Sendable {
    package let id: UInt32
    package let stateID: UInt16
    package let bytes: [UInt8]

    package init(id: UInt32, stateID: UInt16, bytes: [UInt8]) {
        self.id = id
        self.stateID = stateID
        self.bytes = bytes
    }
}

package struct CatalogStore: Equatable, Sendable {
    package let name: String
    /// `maxParallelism` of the job: fixed by the first attach.
    package let keyGroupCount: Int
    /// In the order of their ids, which count from 1.
    package var states: [CatalogStateEntry] = []
    package var dictionaries: [CatalogDictionary] = []

    package init(name: String, keyGroupCount: Int) {
        self.name = name
        self.keyGroupCount = keyGroupCount
    }

    package var pointStates: PointStates { PointStates(states.filter { $0.kind.isPoint }.map(\.id)) }
}

/// Bounds of everything in the catalog, which is held in memory and written as a whole.
package enum CatalogLimits {
    package static let nameBytesMax = 200
    package static let storesMax = 10_000
    package static let statesPerStoreMax = 1_024
    package static let dictionaryBytesMax = 128 << 10
    package static let dictionariesPerStoreMax = 1_024
    /// A longer file is refused unread.
    package static let fileBytesMax = 256 << 20
}

/// Why a change was refused. The sentence is for the person who runs the job.
package enum CatalogRefusal: Error, Equatable, Sendable {
    case invalidName(String)
    case unknownStore(String)
    case keyGroupCountDiffers(store: String, stored: Int, asked: Int)
    case stateKindDiffers(store: String, state: String, stored: CatalogStateKind, asked: CatalogStateKind)
    case unknownState(store: String, id: UInt32)
    case unknownDictionary(store: String, id: UInt32)
    case limit(what: String, max: Int)
    case idsDiffer(store: String, what: String, here: String, there: String)

    package var sentence: String {
        switch self {
        case .invalidName(let name):
            "the name \"\(name)\" cannot be used: names have 1 to \(CatalogLimits.nameBytesMax) bytes, "
                + "no control characters and no \"/\""
        case .unknownStore(let store): "there is no store \"\(store)\": attach to it first"
        case .keyGroupCountDiffers(let store, let stored, let asked):
            "store \"\(store)\" has \(stored) key groups, the attach says \(asked): the number is fixed by the first "
                + "attach; use \(stored), or another store name"
        case .stateKindDiffers(let store, let state, let stored, let asked):
            "state \"\(state)\" of store \"\(store)\" is registered as \(stored), not as \(asked): use another name"
        case .unknownState(let store, let id): "store \"\(store)\" has no state \(id): register it first"
        case .unknownDictionary(let store, let id): "store \"\(store)\" has no dictionary \(id)"
        case .idsDiffer(let store, let what, let here, let there):
            "\(what) of store \"\(store)\" is \"\(here)\" here and \"\(there)\" where the snapshot was taken: restore under a store "
                + "name that is new here, or on the server it is from"
        case .limit(let what, let max): "\(what) is beyond the limit of \(max)"
        }
    }
}

package struct CatalogState: Equatable, Sendable {
    /// Identity of the data directory, so that a client notices when it reaches another server's data.
    package let serverID: [UInt8]
    /// In the order in which they were made.
    package var stores: [CatalogStore] = []

    package static let serverIDBytes = 16

    /// - Precondition: `serverID` has `serverIDBytes` bytes.
    package init(serverID: [UInt8]) {
        precondition(serverID.count == CatalogState.serverIDBytes, "a server id has 16 bytes")
        self.serverID = serverID
    }

    package func store(_ name: String) -> CatalogStore? { stores.first { $0.name == name } }

    /// The store, made when it is new.
    package mutating func ensureStore(_ name: String, keyGroupCount: Int) throws(CatalogRefusal) -> CatalogStore {
        if let known = store(name) {
            guard known.keyGroupCount == keyGroupCount else {
                throw .keyGroupCountDiffers(store: name, stored: known.keyGroupCount, asked: keyGroupCount)
            }
            return known
        }
        try checkName(name)
        guard keyGroupCount >= 1, keyGroupCount <= KeyGroup.countMax else {
            throw .limit(what: "the number of key groups, \(keyGroupCount),", max: KeyGroup.countMax)
        }
        guard stores.count < CatalogLimits.storesMax else {
            throw .limit(what: "one more store", max: CatalogLimits.storesMax)
        }
        let made = CatalogStore(name: name, keyGroupCount: keyGroupCount)
        stores.append(made)
        return made
    }

    /// What a store was elsewhere, for a snapshot from there: its ids are in the snapshot's keys and values, so they must be free
    /// here or mean the same. What both have stays as it is here.
    package mutating func adopt(_ other: CatalogStore) throws(CatalogRefusal) {
        let known = try ensureStore(other.name, keyGroupCount: other.keyGroupCount)
        for (mine, theirs) in zip(known.states, other.states) where mine.name != theirs.name {
            throw .idsDiffer(store: other.name, what: "state \(mine.id)", here: mine.name, there: theirs.name)
        }
        for (mine, theirs) in zip(known.dictionaries, other.dictionaries)
        where mine.bytes != theirs.bytes || mine.stateID != theirs.stateID {
            throw .idsDiffer(store: other.name, what: "dictionary \(mine.id)", here: "another one", there: "one")
        }
        for state in other.states {
            let isKnown = known.states.contains { $0.name == state.name }
            let entry = try register(
                store: other.name, state: state.name, kind: state.kind,
                ttlMilliseconds: isKnown ? known.states[Int(state.id) - 1].ttlMilliseconds : state.ttlMilliseconds)
            guard entry.id == state.id else {
                throw .idsDiffer(store: other.name, what: "state \(state.id)", here: entry.name, there: state.name)
            }
        }
        for dictionary in other.dictionaries {
            let id = try addDictionary(
                store: other.name, stateID: UInt32(dictionary.stateID), bytes: dictionary.bytes)
            guard id == dictionary.id else {
                throw .idsDiffer(store: other.name, what: "dictionary \(dictionary.id)", here: "\(id)", there: "one")
            }
        }
    }

    /// The state's entry: a known name of the same kind keeps its id, its TTL follows the newest registration.
    package mutating func register(
        store name: String, state: String, kind: CatalogStateKind, ttlMilliseconds: UInt64
    ) throws(CatalogRefusal) -> CatalogStateEntry {
        guard let index = stores.firstIndex(where: { $0.name == name }) else { throw .unknownStore(name) }
        if let position = stores[index].states.firstIndex(where: { $0.name == state }) {
            let known = stores[index].states[position]
            guard known.kind == kind else {
                throw .stateKindDiffers(store: name, state: state, stored: known.kind, asked: kind)
            }
            stores[index].states[position].ttlMilliseconds = ttlMilliseconds
            return stores[index].states[position]
        }
        try checkName(state)
        guard stores[index].states.count < CatalogLimits.statesPerStoreMax else {
            throw .limit(what: "one more state in store \"\(name)\"", max: CatalogLimits.statesPerStoreMax)
        }
        let entry = CatalogStateEntry(
            id: UInt16(stores[index].states.count + 1), name: state, kind: kind, ttlMilliseconds: ttlMilliseconds)
        stores[index].states.append(entry)
        return entry
    }

    /// The dictionary's id: the same bytes for the same state keep theirs.
    package mutating func addDictionary(
        store name: String, stateID: UInt32, bytes: [UInt8]
    ) throws(CatalogRefusal) -> UInt32 {
        guard let index = stores.firstIndex(where: { $0.name == name }) else { throw .unknownStore(name) }
        guard let state = stores[index].states.first(where: { UInt32($0.id) == stateID }) else {
            throw .unknownState(store: name, id: stateID)
        }
        if let known = stores[index].dictionaries.first(where: { $0.stateID == state.id && $0.bytes == bytes }) {
            return known.id
        }
        guard bytes.count <= CatalogLimits.dictionaryBytesMax else {
            throw .limit(what: "a dictionary of \(bytes.count) bytes", max: CatalogLimits.dictionaryBytesMax)
        }
        guard stores[index].dictionaries.count < CatalogLimits.dictionariesPerStoreMax else {
            throw .limit(what: "one more dictionary in store \"\(name)\"", max: CatalogLimits.dictionariesPerStoreMax)
        }
        let id = UInt32(stores[index].dictionaries.count + 1)
        stores[index].dictionaries.append(CatalogDictionary(id: id, stateID: state.id, bytes: bytes))
        return id
    }
}

/// Names become part of snapshot handles (`STORE/CHECKPOINT/…`) and of messages.
private func checkName(_ name: String) throws(CatalogRefusal) {
    let usable = name.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "/") }
    guard usable, !name.isEmpty, name.utf8.count <= CatalogLimits.nameBytesMax else { throw .invalidName(name) }
}
