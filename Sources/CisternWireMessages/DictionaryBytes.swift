// Dictionaries as plain byte arrays, so that callers of the generated messages need no Foundation type.

internal import FoundationEssentials

extension Cistern_V1_PutDictionary {
    public init(stateID: UInt32, dictionaryBytes: [UInt8]) {
        self.init()
        self.stateID = stateID
        self.dictionary = Data(dictionaryBytes)
    }

    public var dictionaryBytes: [UInt8] { [UInt8](dictionary) }
}

extension Cistern_V1_GetDictionaryReply {
    public init(stateID: UInt32, dictionaryBytes: [UInt8]) {
        self.init()
        self.stateID = stateID
        self.dictionary = Data(dictionaryBytes)
    }

    public var dictionaryBytes: [UInt8] { [UInt8](dictionary) }
}
