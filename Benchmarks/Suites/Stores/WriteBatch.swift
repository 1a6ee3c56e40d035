// A batch as columns in memory that is kept from batch to batch. Keys and values are written in place by the workload, so
// that making a batch costs the measured loop little.

import CisternPrimitives

final class WriteBatch {
    private(set) var count = 0
    private(set) var keyBytes = 0
    private(set) var valueBytes = 0
    private let entriesMax: Int
    private let columnBytesMax: Int
    let keys: UnsafeMutableRawPointer
    let values: UnsafeMutableRawPointer
    let keyEnds: UnsafeMutablePointer<UInt32>
    let valueEnds: UnsafeMutablePointer<UInt32>
    let kinds: UnsafeMutablePointer<UInt8>
    let expiries: UnsafeMutablePointer<UInt64>
    /// False until an entry with an expiry is added.
    private(set) var expires = false

    init(entriesMax: Int = 1000, columnBytesMax: Int = 8 << 20) {
        self.entriesMax = entriesMax
        self.columnBytesMax = columnBytesMax
        keys = .allocate(byteCount: columnBytesMax, alignment: 16)
        values = .allocate(byteCount: columnBytesMax, alignment: 16)
        keyEnds = .allocate(capacity: entriesMax)
        valueEnds = .allocate(capacity: entriesMax)
        kinds = .allocate(capacity: entriesMax)
        expiries = .allocate(capacity: entriesMax)
    }

    deinit {
        keys.deallocate()
        values.deallocate()
        keyEnds.deallocate()
        valueEnds.deallocate()
        kinds.deallocate()
        expiries.deallocate()
    }

    func reset() {
        count = 0
        keyBytes = 0
        valueBytes = 0
        expires = false
    }

    /// Adds an entry and returns where its key and value belong.
    @inline(__always)
    func add(
        _ kind: EntryKind, keyBytes keySize: Int, valueBytes valueSize: Int, expiry: Expiry = .never
    ) -> (key: UnsafeMutableRawPointer, value: UnsafeMutableRawPointer) {
        precondition(
            count < entriesMax && keyBytes + keySize <= columnBytesMax && valueBytes + valueSize <= columnBytesMax,
            "a batch is full")
        let key = keys + keyBytes
        let value = values + valueBytes
        keyBytes += keySize
        valueBytes += valueSize
        keyEnds[count] = UInt32(truncatingIfNeeded: keyBytes)
        valueEnds[count] = UInt32(truncatingIfNeeded: valueBytes)
        kinds[count] = kind.rawValue
        expiries[count] = expiry.rawValue
        if expiry != .never { expires = true }
        count += 1
        return (key, value)
    }

    /// Adds an entry whose bytes are elsewhere.
    func add(_ kind: EntryKind, _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        let places = add(kind, keyBytes: key.count, valueBytes: value.count)
        places.key.copyMemory(from: key.baseAddress!, byteCount: key.count)
        if !value.isEmpty { places.value.copyMemory(from: value.baseAddress!, byteCount: value.count) }
    }
}

/// Keys of one size, one behind the other, for a multi-get.
final class KeyList {
    let keySize: Int
    let capacity: Int
    let bytes: UnsafeMutableRawPointer
    private(set) var count = 0

    init(keySize: Int, capacity: Int) {
        self.keySize = keySize
        self.capacity = capacity
        bytes = .allocate(byteCount: keySize * capacity, alignment: 16)
    }

    deinit { bytes.deallocate() }

    func reset() { count = 0 }

    func add() -> UnsafeMutableRawPointer {
        precondition(count < capacity, "a key list is full")
        count += 1
        return bytes + (count - 1) * keySize
    }

    subscript(index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: bytes + index * keySize, count: keySize)
    }
}
