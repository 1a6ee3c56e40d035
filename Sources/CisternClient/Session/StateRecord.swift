// A registered state as the session sees it: its id, its settings, and the codec objects for its values.

internal import CisternCompression
internal import CisternPrimitives

final class StateRecord {
    let id: UInt16
    let name: String
    let kind: StateKind
    private(set) var options: StateOptions
    /// What the expiries of stored list elements mean, by key groups; none: what they say.
    private(set) var expiryRules: [ExpiryRule] = []
    private(set) var encoder: EnvelopeEncoder
    var trainer: DictionaryTrainer?
    /// The last read found that the key index does not have its key: the next one asks the index first, before write tables and
    /// cache. States of keys that are seen once are read like that.
    var expectsAbsence = false

    init(id: UInt16, name: String, kind: StateKind, options: StateOptions) {
        self.id = id
        self.name = name
        self.kind = kind
        self.options = options
        encoder = EnvelopeEncoder(options.compression)
    }

    /// What the tree goes by from here on.
    func follow(_ ttl: TimeToLive?, _ rules: [ExpiryRule]) {
        options.ttl = ttl
        expiryRules = rules
    }

    func expiryRule(in group: UInt16) -> ExpiryRule? {
        expiryRules.isEmpty ? nil : expiryRules.first { $0.keyGroups.contains(group) }
    }

    /// Values made from here on use the dictionary; older ones stay readable.
    func use(_ dictionary: CompressionDictionary) {
        encoder = EnvelopeEncoder(options.compression, dictionary: dictionary)
    }
}
