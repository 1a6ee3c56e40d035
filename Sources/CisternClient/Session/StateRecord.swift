// A registered state as the session sees it: its id, its settings, and the codec objects for its values.

internal import CisternCompression

final class StateRecord {
    let id: UInt16
    let name: String
    let kind: StateKind
    let options: StateOptions
    private(set) var encoder: EnvelopeEncoder
    var trainer: DictionaryTrainer?

    init(id: UInt16, name: String, kind: StateKind, options: StateOptions) {
        self.id = id
        self.name = name
        self.kind = kind
        self.options = options
        encoder = EnvelopeEncoder(options.compression)
    }

    /// Values made from here on use the dictionary; older ones stay readable.
    func use(_ dictionary: CompressionDictionary) {
        encoder = EnvelopeEncoder(options.compression, dictionary: dictionary)
    }
}
