// What both sides must do.

protocol BenchStore: AnyObject {
    /// Applies a batch of puts; blocks while the store says that its background work is behind.
    func put(_ batch: PutBatch) throws
    /// Looks a key up; returns the value's size, or -1.
    func get(_ key: [UInt8]) throws -> Int
    /// Visits up to `limit` entries whose keys begin with the first `prefix` bytes of `key`; returns how many.
    func scan(_ key: [UInt8], prefix: Int, limit: Int) throws -> Int
    /// Writes what is in memory to files and waits until no background work is left.
    func settle() throws
    /// Bytes of the store's files.
    func bytesOnDisk() -> UInt64
    func close()
}

/// A batch as columns, kept from batch to batch.
struct PutBatch {
    private(set) var keys: [UInt8] = []
    private(set) var values: [UInt8] = []
    private(set) var keyEnds: [UInt32] = []
    private(set) var valueEnds: [UInt32] = []

    var count: Int { keyEnds.count }

    mutating func reset() {
        keys.removeAll(keepingCapacity: true)
        values.removeAll(keepingCapacity: true)
        keyEnds.removeAll(keepingCapacity: true)
        valueEnds.removeAll(keepingCapacity: true)
    }

    mutating func add(_ key: [UInt8], _ value: [UInt8]) {
        keys += key
        values += value
        keyEnds.append(UInt32(keys.count))
        valueEnds.append(UInt32(values.count))
    }
}

struct BenchFailure: Error, CustomStringConvertible {
    let description: String
}
