// What the state machines ask of the metadata store, and what it says. The store is linearizable; a host turns these into
// calls of whatever store there is. Each machine has one request outstanding at most.

package import CisternPrimitives

package typealias MetadataVersion = UInt64

package struct Versioned<Value: Hashable & Sendable>: Hashable, Sendable {
    package var value: Value
    package var version: MetadataVersion

    package init(_ value: Value, version: MetadataVersion) {
        self.value = value
        self.version = version
    }
}

package enum LedgerMetadataRequest: Hashable, Sendable {
    case get(LedgerID)
    case compareAndSwap(LedgerID, expected: MetadataVersion, new: LedgerMetadata)
}

package enum LedgerMetadataResult: Hashable, Sendable {
    /// The answer to a get.
    case found(Versioned<LedgerMetadata>)
    /// The swap took place.
    case written(MetadataVersion)
    /// The version is another one; nothing was written by this request.
    case conflict
    /// The ledger was deleted, or never created.
    case missing
    /// No answer. A swap may have taken place or may still do so.
    case unavailable
}
