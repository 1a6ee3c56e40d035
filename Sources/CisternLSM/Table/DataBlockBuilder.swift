// Collects entries and lays them out as a data block, at the end of the buffer that goes to the file: a value is copied once,
// from where it was read to where it is written from. Keys wait aside until the block's common prefix is known. Reused from
// block to block; owned by its writer.

internal import CisternPrimitives

@safe struct DataBlockBuilder: ~Copyable {
    /// Tag, two narrow ends.
    static let columnBytes = 5

    private(set) var count = 0
    private var capacity = 256
    /// Where in the output the block begins.
    private var start = 0
    private var valueBytes = 0
    private var keys = GrowingBuffer(capacity: 8192)
    private var keyEnds: UnsafeMutablePointer<UInt32>
    private var valueEnds: UnsafeMutablePointer<UInt32>
    private var tags: UnsafeMutablePointer<UInt8>
    /// Filled from the first entry on that is not a put with its value, or that expires: most blocks have neither.
    private var kinds: UnsafeMutablePointer<UInt8>
    private var expiries: UnsafeMutablePointer<UInt64>
    private var hasKinds = false
    private var hasExpiries = false

    init() {
        unsafe keyEnds = .allocate(capacity: capacity)
        unsafe valueEnds = .allocate(capacity: capacity)
        unsafe tags = .allocate(capacity: capacity)
        unsafe kinds = .allocate(capacity: capacity)
        unsafe expiries = .allocate(capacity: capacity)
    }

    deinit {
        unsafe keyEnds.deallocate()
        unsafe valueEnds.deallocate()
        unsafe tags.deallocate()
        unsafe kinds.deallocate()
        unsafe expiries.deallocate()
    }

    /// What the block takes so far, without the common prefix cut.
    @inline(__always)
    var byteCount: Int { valueBytes &+ keys.count &+ count &* DataBlockBuilder.columnBytes }
    /// Of all its keys. They are not in the output yet.
    var keyBytes: Int { keys.count }
    /// Of all its values. They are in the output already.
    var rawValueBytes: Int { valueBytes }

    /// Valid until the next call that changes the builder.
    /// - Precondition: the block has an entry.
    @inline(__always)
    var lastKey: UnsafeRawBufferPointer { unsafe key(count &- 1) }

    /// Starts a block at the end of `output`, which nobody else may lengthen until `finish`.
    mutating func begin(in output: borrowing GrowingBuffer) {
        start = output.count
        count = 0
        valueBytes = 0
        keys.reset()
        hasKinds = false
        hasExpiries = false
    }

    @inline(__always)
    mutating func add(_ entry: EntryView, hash: UInt64, to output: inout GrowingBuffer) {
        if count == capacity { grow() }
        unsafe keys.append(entry.key)
        unsafe keyEnds[count] = UInt32(truncatingIfNeeded: keys.count)
        if entry.kind != .put || entry.isPointer || entry.expiry != .never || hasKinds || hasExpiries {
            noteColumns(of: entry)
        }
        if entry.kind != .delete {
            unsafe output.append(entry.value)
            valueBytes = output.count &- start
        }
        // Values and keys of a block stay below 2³²: `TableFormat` bounds both.
        unsafe valueEnds[count] = UInt32(truncatingIfNeeded: valueBytes)
        unsafe tags[count] = DataBlockFormat.tag(ofHash: hash)
        count &+= 1
    }

    /// Writes the other columns behind the values.
    /// - Returns: the size of the payload, which begins where the block began.
    /// - Precondition: at least one entry was added since `begin`.
    mutating func finish(in output: inout GrowingBuffer) -> Int {
        invariant(count > 0, "an empty data block is finished")
        // Keys ascend, so what the first and the last share, all share.
        let prefixCount = unsafe commonPrefixCount(key(0), lastKey)
        let suffixBytes = keys.count - count * prefixCount
        appendSuffixes(prefixCount, suffixBytes, to: &output)
        var flags: UInt16 = hasKinds ? DataBlockFlags.kinds : 0
        if hasExpiries { flags |= DataBlockFlags.expiries }
        let fixedValue = unsafe DataBlockBuilder.commonSize(valueEnds, count)
        if fixedValue == nil {
            flags |= DataBlockFlags.valueEnds
            if valueBytes > Int(UInt16.max) { flags |= DataBlockFlags.wideValueEnds }
            unsafe appendEnds(valueEnds, cut: 0, isWide: flags & DataBlockFlags.wideValueEnds != 0, to: &output)
        }
        let fixedKey = unsafe DataBlockBuilder.commonSize(keyEnds, count)
        if fixedKey == nil {
            flags |= DataBlockFlags.keyEnds
            if suffixBytes > Int(UInt16.max) { flags |= DataBlockFlags.wideKeyEnds }
            unsafe appendEnds(keyEnds, cut: prefixCount, isWide: flags & DataBlockFlags.wideKeyEnds != 0, to: &output)
        }
        if hasKinds { unsafe output.append(UnsafeRawBufferPointer(start: kinds, count: count)) }
        if hasExpiries { unsafe output.append(UnsafeRawBufferPointer(start: expiries, count: count * 8)) }
        unsafe output.append(UnsafeRawBufferPointer(start: tags, count: count))
        unsafe output.append(UnsafeRawBufferPointer(start: keys.base, count: prefixCount))
        output.appendInteger(UInt32(count))
        output.appendInteger(UInt32(fixedValue ?? valueBytes))
        output.appendInteger(UInt32(fixedKey.map { $0 - prefixCount } ?? suffixBytes))
        output.appendInteger(UInt16(prefixCount))
        output.appendInteger(flags)
        output.appendInteger(UInt32(0))
        return output.count - start
    }

    /// Of the entries added so far; valid until the next call that changes the builder.
    @inline(__always)
    func key(_ index: Int) -> UnsafeRawBufferPointer {
        let start = unsafe index == 0 ? 0 : Int(keyEnds[index &- 1])
        return unsafe UnsafeRawBufferPointer(start: keys.base + start, count: Int(keyEnds[index]) &- start)
    }

    /// True when a value may lie in a value file.
    var mayPoint: Bool { hasKinds }

    /// Size of a value, wherever it lies.
    /// - Parameter output: that the block was begun in.
    func valueBytes(_ index: Int, in output: borrowing GrowingBuffer) -> Int {
        let first = unsafe index == 0 ? 0 : Int(valueEnds[index - 1])
        let end = unsafe Int(valueEnds[index])
        guard hasKinds, unsafe kinds[index] == ValueFormat.pointerKind else { return end - first }
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: output.bytes[(start + first)..<(start + end)])
        return unsafe ValuePointer(bytes).map { Int($0.valueBytes) } ?? bytes.count
    }

    /// Kind and expiry of the entry that is being added, and of those before it that had no need of the columns.
    @inline(never)
    private mutating func noteColumns(of entry: EntryView) {
        if !hasKinds {
            unsafe kinds.update(repeating: EntryKind.put.rawValue, count: count)
            hasKinds = entry.kind != .put || entry.isPointer
        }
        if !hasExpiries {
            unsafe expiries.update(repeating: 0, count: count)
            hasExpiries = entry.kind != .delete && entry.expiry != .never
        }
        unsafe kinds[count] = entry.isPointer ? ValueFormat.pointerKind : entry.kind.rawValue
        unsafe expiries[count] = entry.kind == .delete ? 0 : entry.expiry.rawValue.littleEndian
    }

    private func appendSuffixes(_ prefixCount: Int, _ byteCount: Int, to output: inout GrowingBuffer) {
        var target = unsafe output.extend(by: byteCount)
        var from = unsafe UnsafeRawPointer(keys.base)
        var previous = 0
        for index in 0..<count {
            let end = unsafe Int(keyEnds[index])
            let size = end &- previous &- prefixCount
            unsafe copyBytes(to: target, from: from + prefixCount, count: size)
            unsafe target += size
            unsafe from += end &- previous
            previous = end
        }
    }

    /// `cut` is what each element is shorter by than the ends say.
    private func appendEnds(
        _ ends: UnsafeMutablePointer<UInt32>, cut: Int, isWide: Bool, to output: inout GrowingBuffer
    ) {
        let target = unsafe output.extend(by: count * (isWide ? 4 : 2))
        for index in 0..<count {
            let end = unsafe ends[index] &- UInt32(truncatingIfNeeded: cut &* (index &+ 1))
            if isWide {
                unsafe target.storeBytes(of: end.littleEndian, toByteOffset: index &* 4, as: UInt32.self)
            } else {
                unsafe target.storeBytes(
                    of: UInt16(truncatingIfNeeded: end).littleEndian, toByteOffset: index &* 2, as: UInt16.self)
            }
        }
    }

    /// The one size of all elements, or nil.
    private static func commonSize(_ ends: UnsafeMutablePointer<UInt32>, _ count: Int) -> Int? {
        let size = unsafe ends[0]
        var differences: UInt32 = 0
        for index in 1..<max(count, 1) { unsafe differences |= (ends[index] &- ends[index &- 1]) ^ size }
        return differences == 0 ? Int(size) : nil
    }

    @inline(never)
    private mutating func grow() {
        let larger = capacity * 2
        unsafe keyEnds = unsafe moved(keyEnds, count, to: larger)
        unsafe valueEnds = unsafe moved(valueEnds, count, to: larger)
        unsafe tags = unsafe moved(tags, count, to: larger)
        unsafe kinds = unsafe moved(kinds, count, to: larger)
        unsafe expiries = unsafe moved(expiries, count, to: larger)
        capacity = larger
    }
}

private func moved<T: BitwiseCopyable>(
    _ elements: UnsafeMutablePointer<T>, _ count: Int, to capacity: Int
) -> UnsafeMutablePointer<T> {
    let larger = UnsafeMutablePointer<T>.allocate(capacity: capacity)
    unsafe larger.initialize(from: elements, count: count)
    unsafe elements.deallocate()
    return unsafe larger
}
