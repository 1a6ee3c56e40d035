// Collects entries and lays them out as a data block. Values go straight to where they stay; keys wait until the block's
// common prefix is known. Reused from block to block.

internal import CisternPrimitives

@safe struct DataBlockBuilder: ~Copyable {
    /// Begins with the values; the other columns are added by `finish`.
    private var payload = GrowingBuffer(capacity: 8192)
    private var keys = GrowingBuffer(capacity: 4096)
    private var keyEnds: [UInt32] = []
    private var valueEnds: [UInt32] = []
    private var kinds: [UInt8] = []
    private var expiries: [UInt64] = []
    private var tags: [UInt8] = []
    private var hasKinds = false
    private var hasExpiries = false

    init() {}

    var count: Int { tags.count }
    /// What the block takes in memory so far, without the common prefix cut.
    var byteCount: Int { payload.count + keys.count + tags.count * DataBlockBuilder.columnBytes }
    /// Tag, two narrow ends.
    static let columnBytes = 5

    var lastKey: UnsafeRawBufferPointer { unsafe key(count - 1) }

    mutating func add(_ entry: EntryView, hash: UInt64) {
        unsafe keys.append(entry.key)
        keyEnds.append(UInt32(keys.count))
        if entry.kind != .delete { unsafe payload.append(entry.value) }
        valueEnds.append(UInt32(payload.count))
        kinds.append(entry.kind.rawValue)
        if entry.kind != .put { hasKinds = true }
        let expiry = entry.kind == .delete ? 0 : entry.expiry.rawValue
        expiries.append(expiry)
        if expiry != 0 { hasExpiries = true }
        tags.append(DataBlockFormat.tag(ofHash: hash))
    }

    /// The payload, valid until `reset`.
    /// - Precondition: at least one entry was added since `reset`.
    mutating func finish() -> UnsafeRawBufferPointer {
        invariant(count > 0, "an empty data block is finished")
        let valuesSize = payload.count
        // Keys ascend, so what the first and the last share, all share.
        let prefixCount = unsafe commonPrefixCount(key(0), key(count - 1))
        let suffixesSize = appendSuffixes(prefixCount: prefixCount)
        var flags: UInt16 = hasKinds ? DataBlockFlags.kinds : 0
        if hasExpiries { flags |= DataBlockFlags.expiries }
        let fixedValue = DataBlockBuilder.commonSize(valueEnds)
        if fixedValue == nil {
            flags |= DataBlockFlags.valueEnds
            if valuesSize > Int(UInt16.max) { flags |= DataBlockFlags.wideValueEnds }
            appendEnds(valueEnds, subtracting: 0, isWide: flags & DataBlockFlags.wideValueEnds != 0)
        }
        let fixedKey = DataBlockBuilder.commonSize(keyEnds)
        if fixedKey == nil {
            flags |= DataBlockFlags.keyEnds
            if suffixesSize > Int(UInt16.max) { flags |= DataBlockFlags.wideKeyEnds }
            appendEnds(keyEnds, subtracting: prefixCount, isWide: flags & DataBlockFlags.wideKeyEnds != 0)
        }
        if hasKinds { for kind in kinds { payload.append(kind) } }
        if hasExpiries { for expiry in expiries { payload.appendInteger(expiry) } }
        for tag in tags { payload.append(tag) }
        unsafe payload.append(UnsafeRawBufferPointer(rebasing: key(0)[..<prefixCount]))
        payload.appendInteger(UInt32(count))
        payload.appendInteger(UInt32(fixedValue ?? valuesSize))
        payload.appendInteger(UInt32(fixedKey.map { $0 - prefixCount } ?? suffixesSize))
        payload.appendInteger(UInt16(prefixCount))
        payload.appendInteger(flags)
        payload.appendInteger(UInt32(0))
        return unsafe payload.bytes
    }

    mutating func reset() {
        payload.reset()
        keys.reset()
        keyEnds.removeAll(keepingCapacity: true)
        valueEnds.removeAll(keepingCapacity: true)
        kinds.removeAll(keepingCapacity: true)
        expiries.removeAll(keepingCapacity: true)
        tags.removeAll(keepingCapacity: true)
        hasKinds = false
        hasExpiries = false
    }

    private func key(_ index: Int) -> UnsafeRawBufferPointer {
        let start = index == 0 ? 0 : Int(keyEnds[index - 1])
        return unsafe UnsafeRawBufferPointer(rebasing: keys.bytes[start..<Int(keyEnds[index])])
    }

    private mutating func appendSuffixes(prefixCount: Int) -> Int {
        let before = payload.count
        for index in 0..<count {
            unsafe payload.append(UnsafeRawBufferPointer(rebasing: key(index)[prefixCount...]))
        }
        return payload.count - before
    }

    /// `subtracting` is what each element is shorter by than the ends say.
    private mutating func appendEnds(_ ends: [UInt32], subtracting cut: Int, isWide: Bool) {
        for index in 0..<ends.count {
            let end = UInt32(Int(ends[index]) - cut * (index + 1))
            if isWide { payload.appendInteger(end) } else { payload.appendInteger(UInt16(end)) }
        }
    }

    /// The one size of all elements, or nil.
    private static func commonSize(_ ends: [UInt32]) -> Int? {
        let size = ends[0]
        for index in 1..<max(ends.count, 1) where ends[index] &- ends[index - 1] != size { return nil }
        return Int(size)
    }
}
