// How a store is opened, and what it says when it cannot.

/// How a store is opened. What both sides know by other names is translated in their files.
package struct StoreSettings {
    package var cacheBytes = 256 << 20
    package var memtableBytes = 64 << 20
    /// Merges start by themselves.
    package var compacts = true
    /// Ours only: the engine's log, synced. The peer's log is always off.
    package var logs = false
    /// The peer's only: what all entries of a map begin with, 0 where nobody iterates. Ours reads it off each key.
    package var mapPrefixBytes = 0
    package var blockCompression = BlockCompression.none
    /// Values from this size on go to value files, or blob files; 0: none.
    package var valueFileThresholdBytes = 0
    /// The peer's time to live filter; ours reads each entry's expiry.
    package var timeToLiveMilliseconds: UInt64 = 0

    package init() {}
}

/// What RocksDB calls compression: of whole blocks.
package enum BlockCompression: Hashable {
    case none, lz4
    case zstd(level: Int, dictionary: Bool)
}

package struct BenchFailure: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
