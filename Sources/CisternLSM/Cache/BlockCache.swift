// The one cache of all trees: data blocks, index and filter partitions of tables, within one budget of bytes.
//
// Threads: any. Sixteen shards by hash, each behind a `Mutex`; nothing is read from disk and nothing is freed to the system
// allocator's slow path while a lock is held longer than one eviction needs.
//
// Eviction is S3-FIFO (Yang et al., SOSP 2023): a new block enters a small probation queue and is gone soon unless it is read
// again; one that was read, or comes back shortly after it left (the ghost table remembers), enters the main queue, a CLOCK.
// So a scan passes through probation and leaves the main queue alone. Partitions of index and filter have a CLOCK of their
// own and are evicted only when data has nothing left to give or they exceed their share: a read that misses its data block
// costs one read of the disk, one that misses its filter and index costs three.

internal import CisternPrimitives
internal import Synchronization

/// A block in the cache. Readers that hold one keep it alive after its eviction.
enum CachedBlock {
    case data(DataBlock)
    case index(IndexPartition)
    case filter(FilterPartition)

    var isMetadata: Bool {
        switch self {
        case .data: false
        case .index, .filter: true
        }
    }
}

/// A block's place: file numbers are unique among all files that share a cache.
struct BlockKey: Equatable {
    var file: UInt64
    var offset: UInt64

    var hash: UInt64 {
        // Both numbers are dense; the odd multipliers spread them over all bits.
        var mixed = file &* 0x9E37_79B9_7F4A_7C15 ^ offset &* 0xC2B2_AE3D_27D4_EB4F
        mixed ^= mixed >> 32
        mixed = mixed &* 0xD6E8_FEB8_6659_FD93
        return mixed ^ (mixed >> 32)
    }
}

package struct BlockCacheStatistics: Equatable, Sendable {
    package var hits: UInt64 = 0
    package var misses: UInt64 = 0
    package var insertions: UInt64 = 0
    package var evictions: UInt64 = 0
    package var blockCount = 0
    package var usedBytes = 0
    package var metadataBytes = 0
    package var capacityBytes = 0
}

package final class BlockCache: Sendable {
    private static let shardsMax = 16
    /// A shard smaller than this would evict by accident of hashing.
    private static let shardBytesMin = 1 << 20

    package let capacityBytes: Int
    private let shards: [Shard]

    private final class Shard: Sendable {
        let state: Mutex<CacheShard>
        init(capacityBytes: Int) { state = Mutex(CacheShard(capacityBytes: capacityBytes)) }
    }

    /// - Parameter capacityBytes: 0 caches nothing.
    package init(capacityBytes: Int) {
        self.capacityBytes = max(capacityBytes, 0)
        var count = 1
        while count < BlockCache.shardsMax && self.capacityBytes / (count * 2) >= BlockCache.shardBytesMin {
            count *= 2
        }
        let share = self.capacityBytes / count
        shards = (0..<count).map { _ in Shard(capacityBytes: share) }
    }

    package var statistics: BlockCacheStatistics {
        var total = BlockCacheStatistics()
        total.capacityBytes = capacityBytes
        for shard in shards {
            let part = shard.state.withLock { $0.statistics }
            total.hits += part.hits
            total.misses += part.misses
            total.insertions += part.insertions
            total.evictions += part.evictions
            total.blockCount += part.blockCount
            total.usedBytes += part.usedBytes
            total.metadataBytes += part.metadataBytes
        }
        return total
    }

    func find(_ key: BlockKey) -> CachedBlock? {
        let hash = key.hash
        return shard(hash).state.withLock { $0.find(key, hash: hash) }
    }

    /// Adds a block that takes `byteCount` bytes. A block that is there already stays; one larger than half a shard is not
    /// cached, because it would empty the shard.
    func insert(_ block: CachedBlock, for key: BlockKey, byteCount: Int) {
        let hash = key.hash
        // What is evicted is released behind the lock: freeing may be slow.
        let evicted = shard(hash).state.withLock { $0.insert(block, for: key, hash: hash, byteCount: byteCount) }
        withExtendedLifetime(evicted) {}
    }

    /// Forgets a block, for files that are gone.
    func remove(_ key: BlockKey) {
        let hash = key.hash
        let removed = shard(hash).state.withLock { $0.remove(key, hash: hash) }
        withExtendedLifetime(removed) {}
    }

    private func shard(_ hash: UInt64) -> Shard { shards[Int(hash >> 59) & (shards.count - 1)] }
}
