// Ascending byte strings that are searched for a key: first keys of partitions and blocks, last keys of files.
//
// Beside the strings lies an array of heads: eight bytes of each string behind what all have in common, as numbers that
// order as the bytes do. A search compares the key with the common prefix once, halves the heads without a branch that could
// be mispredicted, and looks at strings only where heads are equal. Borrowed: whoever made it keeps the memory.

internal import CisternPrimitives

@safe struct KeyColumn {
    let count: Int
    /// Bytes that all strings begin with.
    private let prefixCount: Int
    private let bytes: UnsafeRawPointer
    /// u32 each, running.
    private let ends: UnsafeRawPointer
    private let heads: UnsafePointer<UInt64>

    /// - Precondition: the ends were checked by `validate`, and `heads` were filled by `fillHeads`.
    @inline(__always)
    init(
        count: Int, prefixCount: Int, bytes: UnsafeRawPointer, ends: UnsafeRawPointer, heads: UnsafePointer<UInt64>
    ) {
        self.count = count
        self.prefixCount = prefixCount
        unsafe self.bytes = unsafe bytes
        unsafe self.ends = unsafe ends
        unsafe self.heads = unsafe heads
    }

    // MARK: Making one

    /// True when the ends ascend and finish at `byteCount`: all strings lie inside their column.
    static func validate(ends: UnsafeRawPointer, count: Int, byteCount: Int) -> Bool {
        var previous: UInt32 = 0
        for index in 0..<count {
            let end = unsafe UInt32(littleEndian: ends.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
            if end < previous { return false }
            previous = end
        }
        return Int(previous) == byteCount
    }

    /// Fills `heads`.
    /// - Returns: what all strings have in common, or nil when they do not ascend.
    static func fillHeads(
        _ heads: UnsafeMutablePointer<UInt64>, count: Int, bytes: UnsafeRawPointer, ends: UnsafeRawPointer
    ) -> Int? {
        guard count > 0 else { return 0 }
        let plain = unsafe KeyColumn(count: count, prefixCount: 0, bytes: bytes, ends: ends, heads: heads)
        let first = unsafe plain[0]
        // Ascending strings share what the first and the last share; were they not ascending, the heads might still be, and
        // so each string is compared with the one before.
        let prefixCount = unsafe commonPrefixCount(first, plain[count - 1])
        var previous = unsafe first
        for index in 0..<count {
            let string = unsafe plain[index]
            if index > 0, unsafe compareBytes(previous, string) >= 0 { return nil }
            unsafe heads[index] = unsafe keyHead64(string, from: prefixCount)
            unsafe previous = unsafe string
        }
        return prefixCount
    }

    // MARK: Searching

    @inline(__always)
    subscript(index: Int) -> UnsafeRawBufferPointer {
        let start = index == 0 ? 0 : end(index &- 1)
        return unsafe UnsafeRawBufferPointer(start: bytes + start, count: end(index) &- start)
    }

    /// How many strings are not greater than `key`.
    @inline(__always)
    func countNotGreater(than key: UnsafeRawBufferPointer) -> Int {
        if let whole = unsafe sideOfPrefix(key) { return whole }
        let head = unsafe keyHead64(key, from: prefixCount)
        let low = countLess(head)
        if low == count { return low }
        if unsafe heads[low] != head { return low }
        return unsafe resolveTies(key, head, from: low, orEqual: true)
    }

    /// How many strings are less than `key`.
    @inline(__always)
    func countLess(than key: UnsafeRawBufferPointer) -> Int {
        if let whole = unsafe sideOfPrefix(key) { return whole }
        let head = unsafe keyHead64(key, from: prefixCount)
        let low = countLess(head)
        if low == count { return low }
        if unsafe heads[low] != head { return low }
        return unsafe resolveTies(key, head, from: low, orEqual: false)
    }

    /// The answer when the common prefix gives it: all strings lie on one side of the key.
    @inline(__always)
    private func sideOfPrefix(_ key: UnsafeRawBufferPointer) -> Int? {
        if prefixCount == 0 { return nil }
        let shared = min(prefixCount, key.count)
        guard shared > 0, let base = key.baseAddress else { return 0 }
        if unsafe shared == prefixCount && bytesAreEqual(bytes, base, count: shared) { return nil }
        let order = unsafe compareBytes(
            UnsafeRawBufferPointer(start: bytes, count: shared), UnsafeRawBufferPointer(start: base, count: shared))
        // A key that ends inside the prefix is less than every string.
        return order < 0 ? count : 0
    }

    /// Strings whose head is less.
    @inline(__always)
    private func countLess(_ head: UInt64) -> Int {
        if count == 0 { return 0 }
        var low = unsafe heads
        var length = count
        while length > 1 {
            let half = length / 2
            unsafe low += unsafe low[half &- 1] < head ? half : 0
            length &-= half
        }
        return unsafe (low - heads) &+ (low[0] < head ? 1 : 0)
    }

    /// Among strings with the key's head, from `first` on, those that count come first.
    @inline(never)
    private func resolveTies(_ key: UnsafeRawBufferPointer, _ head: UInt64, from first: Int, orEqual: Bool) -> Int {
        var low = first
        var high = count
        while low < high {
            let middle = (low &+ high) / 2
            let order = unsafe heads[middle] > head ? 1 : compareBytes(self[middle], key)
            if order < 0 || (order == 0 && orEqual) { low = middle &+ 1 } else { high = middle }
        }
        return low
    }

    @inline(__always)
    private func end(_ index: Int) -> Int {
        unsafe Int(UInt32(littleEndian: ends.loadUnaligned(fromByteOffset: index &* 4, as: UInt32.self)))
    }
}

/// A column with memory of its own.
@safe struct OwnedKeyColumn {
    let keys: KeyColumn
    private let memory: UnsafeMutableRawPointer

    /// - Precondition: `strings` ascend, without two that are equal, and have less than 4 GiB together.
    init(_ strings: [[UInt8]]) {
        let count = strings.count
        let byteCount = strings.reduce(0) { $0 + $1.count }
        unsafe memory = .allocate(byteCount: count * 12 + byteCount + 8, alignment: 8)
        let ends = unsafe memory + count * 8
        let bytes = unsafe ends + count * 4
        var position = 0
        for (index, string) in strings.enumerated() {
            for byte in string {
                unsafe bytes.storeBytes(of: byte, toByteOffset: position, as: UInt8.self)
                position += 1
            }
            unsafe ends.storeBytes(of: UInt32(position).littleEndian, toByteOffset: index * 4, as: UInt32.self)
        }
        let heads = unsafe memory.bindMemory(to: UInt64.self, capacity: count)
        let prefixCount = unsafe KeyColumn.fillHeads(heads, count: count, bytes: bytes, ends: ends)
        invariant(prefixCount != nil, "the keys of \(count) files of one level do not ascend")
        keys = unsafe KeyColumn(
            count: count, prefixCount: prefixCount ?? 0, bytes: bytes, ends: ends, heads: heads)
    }

    func deallocate() { unsafe memory.deallocate() }
}

/// Eight bytes of a key from `start` on as a big-endian number, zero behind a shorter key. Different heads order as their
/// keys do; equal heads decide nothing.
@inline(__always)
func keyHead64(_ key: UnsafeRawBufferPointer, from start: Int) -> UInt64 {
    let rest = key.count &- start
    guard let base = key.baseAddress, rest > 0 else { return 0 }
    if rest >= 8 { return unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: start, as: UInt64.self)) }
    if key.count >= 8 {
        let tail = unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: key.count &- 8, as: UInt64.self))
        return tail << UInt64((8 &- rest) &* 8)
    }
    var head: UInt64 = 0
    for index in 0..<8 {
        head = unsafe head << 8 | (index < rest ? UInt64(base.load(fromByteOffset: start &+ index, as: UInt8.self)) : 0)
    }
    return head
}
