// Changes of a prefix, pulled one version at a time: whoever watches too slowly meets a compaction, not a growing queue.

package import CisternLogProtocol

package struct MetadataChange: Hashable, Sendable {
    package let key: String
    /// The new value; nil when the key was deleted or its lease ended.
    package let value: [UInt8]?

    package init(key: String, value: [UInt8]?) {
        self.key = key
        self.value = value
    }
}

/// All changes of one version that the watch is about: one, or the keys of a lease that ended.
package struct MetadataChangeSet: Hashable, Sendable {
    package let version: MetadataVersion
    package let changes: [MetadataChange]

    package init(version: MetadataVersion, changes: [MetadataChange]) {
        self.version = version
        self.changes = changes
    }
}

/// Versions strictly increase. Ends when the task is cancelled; one consumer at a time.
package struct MetadataWatch: AsyncSequence, Sendable {
    package typealias Pull = @Sendable () async throws(MetadataError) -> MetadataChangeSet?

    private let pull: Pull

    /// - Parameter pull: the next change set; nil when the watching task is cancelled.
    package init(pull: @escaping Pull) { self.pull = pull }

    package func makeAsyncIterator() -> Iterator { Iterator(pull: pull) }

    package struct Iterator: AsyncIteratorProtocol {
        let pull: Pull

        package mutating func next(
            isolation actor: isolated (any Actor)? = #isolation
        ) async throws(MetadataError) -> MetadataChangeSet? { try await pull() }

        package mutating func next() async throws(MetadataError) -> MetadataChangeSet? { try await pull() }
    }
}
