// A data block: entries of ascending keys, in columns. A point read looks at the tag column first and compares about one key.
//
//    values │ key suffixes │ value ends │ key ends │ kinds │ expiries │ tags │ common prefix │ footer 20
//
//    value ends, key ends   running ends, u16 or u32 each; absent when all have one size
//    kinds                  u8 an entry, 4 for a put whose value is a pointer into a value file; absent when all are puts
//    expiries               u64 an entry; absent when none expires
//    tags                   u8 an entry: the top byte of the key's Hash64
//    common prefix          what all keys of the block start with; the suffixes are without it
//    footer                 0 u32 count │ 4 u32 size of all values, or of each when no ends │ 8 u32 the same for suffixes
//                           12 u16 prefix size │ 14 u16 flags │ 16 u32 zero
//
// Nothing is read before `DataLayout` has proven that the columns fill the payload exactly and the ends ascend.

internal import CCisternShims
internal import CisternPrimitives

/// On disk: never renumber.
enum DataBlockFlags {
    static let valueEnds: UInt16 = 1
    static let keyEnds: UInt16 = 2
    static let kinds: UInt16 = 4
    static let expiries: UInt16 = 8
    static let wideValueEnds: UInt16 = 16
    static let wideKeyEnds: UInt16 = 32
    static let all: UInt16 = 63
}

enum DataBlockFormat {
    static let footerBytes = 20

    @inline(__always)
    static func tag(ofHash hash: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: hash >> 56) }

    static func isKind(_ stored: UInt8) -> Bool {
        stored == ValueFormat.pointerKind || EntryKind(rawValue: stored) != nil
    }

    /// - Precondition: `isKind(stored)`.
    @inline(__always)
    static func kind(_ stored: UInt8) -> (kind: EntryKind, isPointer: Bool) {
        stored == ValueFormat.pointerKind ? (.put, true) : (EntryKind(rawValue: stored)!, false)
    }
}

/// Offsets of the columns inside a payload that was proven well-formed. Small enough for the header of a frame: a payload
/// has less than 2³² bytes.
struct DataLayout: BitwiseCopyable {
    private var count32: UInt32 = 0
    private var valueSize32: UInt32 = 0
    private var suffixSize32: UInt32 = 0
    private var suffixes32: UInt32 = 0
    private var valueEnds32: UInt32 = 0
    private var keyEnds32: UInt32 = 0
    private var kinds32: UInt32 = 0
    private var expiries32: UInt32 = 0
    private var tags32: UInt32 = 0
    private var prefix32: UInt32 = 0
    private var prefixCount16: UInt16 = 0
    private(set) var flags: UInt16 = 0

    var count: Int { Int(count32) }
    var valueSize: Int { Int(valueSize32) }
    var suffixSize: Int { Int(suffixSize32) }
    var suffixes: Int { Int(suffixes32) }
    var valueEnds: Int { Int(valueEnds32) }
    var keyEnds: Int { Int(keyEnds32) }
    var kinds: Int { Int(kinds32) }
    var expiries: Int { Int(expiries32) }
    var tags: Int { Int(tags32) }
    var prefix: Int { Int(prefix32) }
    var prefixCount: Int { Int(prefixCount16) }

    func has(_ flag: UInt16) -> Bool { flags & flag != 0 }

    /// The layout, or the sentence that says what is wrong.
    static func parse(_ payload: UnsafeRawBufferPointer) -> Result<DataLayout, LayoutFault> {
        var layout = DataLayout()
        let footer = payload.count - DataBlockFormat.footerBytes
        guard footer >= 0 else { return .failure("a data block of \(payload.count) bytes has no footer") }
        func number(_ at: Int) -> Int {
            unsafe Int(UInt32(littleEndian: payload.loadUnaligned(fromByteOffset: footer + at, as: UInt32.self)))
        }
        layout.count32 = UInt32(number(0))
        layout.valueSize32 = UInt32(number(4))
        layout.suffixSize32 = UInt32(number(8))
        layout.prefixCount16 = UInt16(number(12) & 0xFFFF)
        layout.flags = UInt16(number(12) >> 16)
        // Each entry has a tag, so there are no more entries than bytes.
        guard layout.count > 0, layout.count <= footer, layout.flags & ~DataBlockFlags.all == 0, number(16) == 0 else {
            return .failure("a data block says \(layout.count) entries, flags \(layout.flags)")
        }
        // The count is below the block's size and all other operands are below 2³²: no sum or product overflows an Int.
        let count = layout.count
        let suffixes = layout.has(DataBlockFlags.valueEnds) ? layout.valueSize : layout.valueSize * count
        let suffixBytes = layout.has(DataBlockFlags.keyEnds) ? layout.suffixSize : layout.suffixSize * count
        guard suffixes <= footer, suffixBytes <= footer else {
            return .failure("the columns of a data block are larger than its \(payload.count) bytes")
        }
        let valueEnds = suffixes + suffixBytes
        let keyEnds = valueEnds + count * layout.endSize(DataBlockFlags.valueEnds, DataBlockFlags.wideValueEnds)
        let kinds = keyEnds + count * layout.endSize(DataBlockFlags.keyEnds, DataBlockFlags.wideKeyEnds)
        let expiries = kinds + (layout.has(DataBlockFlags.kinds) ? count : 0)
        let tags = expiries + (layout.has(DataBlockFlags.expiries) ? count * 8 : 0)
        let prefix = tags + count
        guard prefix + layout.prefixCount == footer else {
            return .failure("the columns of a data block take \(prefix + layout.prefixCount) bytes of \(footer)")
        }
        // All lie before the footer, whose place is below 2³².
        layout.suffixes32 = UInt32(suffixes)
        layout.valueEnds32 = UInt32(valueEnds)
        layout.keyEnds32 = UInt32(keyEnds)
        layout.kinds32 = UInt32(kinds)
        layout.expiries32 = UInt32(expiries)
        layout.tags32 = UInt32(tags)
        layout.prefix32 = UInt32(prefix)
        return unsafe layout.checkColumns(payload)
    }

    private func endSize(_ present: UInt16, _ wide: UInt16) -> Int { has(present) ? (has(wide) ? 4 : 2) : 0 }

    private func checkColumns(_ payload: UnsafeRawBufferPointer) -> Result<DataLayout, LayoutFault> {
        if has(DataBlockFlags.valueEnds),
            unsafe !endsAscend(payload, valueEnds, count, has(DataBlockFlags.wideValueEnds), to: valueSize)
        {
            return .failure("the value ends of a data block do not ascend to \(valueSize)")
        }
        if has(DataBlockFlags.keyEnds),
            unsafe !endsAscend(payload, keyEnds, count, has(DataBlockFlags.wideKeyEnds), to: suffixSize)
        {
            return .failure("the key ends of a data block do not ascend to \(suffixSize)")
        }
        if has(DataBlockFlags.kinds) {
            for index in 0..<count where unsafe !DataBlockFormat.isKind(payload[kinds + index]) {
                return .failure(unsafe "entry \(index) of a data block has kind \(payload[kinds + index])")
            }
        }
        return .success(self)
    }
}

/// Why bytes are not the structure they should be.
struct LayoutFault: Error, ExpressibleByStringInterpolation {
    let detail: String
    init(stringLiteral value: String) { detail = value }
}

@inline(__always)
func loadEnd(_ base: UnsafeRawPointer, _ index: Int, _ isWide: Bool) -> Int {
    unsafe isWide
        ? Int(UInt32(littleEndian: base.loadUnaligned(fromByteOffset: index &* 4, as: UInt32.self)))
        : Int(UInt16(littleEndian: base.loadUnaligned(fromByteOffset: index &* 2, as: UInt16.self)))
}

private func endsAscend(
    _ payload: UnsafeRawBufferPointer, _ offset: Int, _ count: Int, _ isWide: Bool, to total: Int
) -> Bool {
    let base = unsafe payload.baseAddress! + offset
    var previous = 0
    for index in 0..<count {
        let end = unsafe loadEnd(base, index, isWide)
        if end < previous { return false }
        previous = end
    }
    return previous == total
}

/// The columns of a block, to read entries from. Borrowed from the frame or the chunk that keeps the memory; cheap to copy,
/// so that a walk counts no references.
@safe struct DataColumns {
    let count: Int
    let prefix: UnsafeRawBufferPointer
    private let layout: DataLayout
    private let base: UnsafeRawPointer

    /// - Precondition: `layout` was parsed from the payload at `base`.
    @inline(__always)
    init(base: UnsafeRawPointer, layout: DataLayout) {
        unsafe self.base = unsafe base
        self.layout = layout
        count = layout.count
        unsafe prefix = unsafe UnsafeRawBufferPointer(start: base + layout.prefix, count: layout.prefixCount)
    }

    /// No entries; nothing may be read from it.
    static var none: DataColumns { unsafe DataColumns(base: UnsafeRawPointer(bitPattern: 8)!, layout: DataLayout()) }

    /// Of a frame that a data block was loaded into.
    @inline(__always)
    init(_ frame: CacheFrame) { unsafe self.init(base: UnsafeRawPointer(frame.payload), layout: frame.layout()) }

    /// The word of a slot for the frame: the address, and above it in which line of the frame the tags begin, when that number
    /// has 16 bits. So a look-up asks for the tags and for the header that says where they are at the same time.
    static func word(_ frame: CacheFrame) -> UInt {
        let line = UInt(CacheFrame.headerBytes + frame.layout(as: DataLayout.self).tags) / UInt(CacheFrame.alignment)
        return frame.bits | (line <= 0xFFFF ? line << 48 : 0)
    }

    /// Asks for what `find` reads first of the frame in a slot: its header, the tags, and the prefix behind them.
    @inline(__always)
    static func prefetch(word: UInt) {
        let base = unsafe CacheFrame(bits: word).base
        let tags = unsafe base + Int(word >> 48) &* CacheFrame.alignment
        unsafe cistern_prefetch(base)
        unsafe cistern_prefetch(tags)
        unsafe cistern_prefetch(tags + CacheFrame.alignment)
    }

    /// The same for what a walk reads: the suffixes lie before the tags as a rule. The processor gets lines in pairs.
    @inline(__always)
    static func prefetchWalk(word: UInt) {
        let base = unsafe CacheFrame(bits: word).base
        let tags = unsafe base + Int(word >> 48) &* CacheFrame.alignment
        unsafe cistern_prefetch(base)
        unsafe cistern_prefetch(tags)
        unsafe cistern_prefetch(tags - 2 &* CacheFrame.alignment)
        unsafe cistern_prefetch(tags - 4 &* CacheFrame.alignment)
    }

    // Element access is unchecked: `DataLayout.parse` has proven that all slices lie inside the payload.

    /// The key of entry `index` without the block's prefix.
    @inline(__always)
    func suffix(_ index: Int) -> UnsafeRawBufferPointer {
        let column = unsafe base + layout.suffixes
        guard layout.has(DataBlockFlags.keyEnds) else {
            return unsafe UnsafeRawBufferPointer(start: column + index &* layout.suffixSize, count: layout.suffixSize)
        }
        return unsafe slice(column, base + layout.keyEnds, index, layout.has(DataBlockFlags.wideKeyEnds))
    }

    /// No suffix is longer.
    var suffixBytesMax: Int { layout.suffixSize }

    @inline(__always)
    func value(_ index: Int) -> UnsafeRawBufferPointer {
        guard layout.has(DataBlockFlags.valueEnds) else {
            return unsafe UnsafeRawBufferPointer(start: base + index &* layout.valueSize, count: layout.valueSize)
        }
        return unsafe slice(base, base + layout.valueEnds, index, layout.has(DataBlockFlags.wideValueEnds))
    }

    /// True for a put that has its value beside it.
    @inline(__always)
    func isPut(_ index: Int) -> Bool {
        guard layout.has(DataBlockFlags.kinds) else { return true }
        return unsafe base.load(fromByteOffset: layout.kinds &+ index, as: UInt8.self) == EntryKind.put.rawValue
    }

    /// No entry is a delete or an append, and none expires.
    @inline(__always)
    var hasOnlyLastingPuts: Bool { !layout.has(DataBlockFlags.kinds | DataBlockFlags.expiries) }

    @inline(__always)
    private func kind(_ index: Int) -> (kind: EntryKind, isPointer: Bool) {
        guard layout.has(DataBlockFlags.kinds) else { return (.put, false) }
        return unsafe DataBlockFormat.kind(base.load(fromByteOffset: layout.kinds &+ index, as: UInt8.self))
    }

    @inline(__always)
    func expiry(_ index: Int) -> Expiry {
        guard layout.has(DataBlockFlags.expiries) else { return .never }
        let raw = unsafe base.loadUnaligned(fromByteOffset: layout.expiries &+ index &* 8, as: UInt64.self)
        return Expiry(rawValue: UInt64(littleEndian: raw))
    }

    @inline(__always)
    func entry(_ index: Int, key: UnsafeRawBufferPointer) -> EntryView {
        let (kind, isPointer) = kind(index)
        return unsafe EntryView(
            key: key, kind: kind, isPointer: isPointer, expiry: expiry(index), value: value(index))
    }

    func tag(_ index: Int) -> UInt8 { unsafe base.load(fromByteOffset: layout.tags + index, as: UInt8.self) }

    /// Asks for the line that `find` reads first.
    @inline(__always)
    func touchTags() { unsafe touchMemory(base + layout.tags) }

    /// The index of `key`, or nil.
    @inline(__always)
    func find(_ key: UnsafeRawBufferPointer, hash: UInt64) -> Int? {
        let prefixCount = unsafe prefix.count
        guard key.count >= prefixCount, let keyBase = key.baseAddress else { return nil }
        if prefixCount > 0, unsafe !bytesAreEqual(prefix.baseAddress!, keyBase, count: prefixCount) { return nil }
        let restCount = key.count &- prefixCount
        let rest = unsafe keyBase + prefixCount
        let pattern = UInt64(DataBlockFormat.tag(ofHash: hash)) &* 0x0101_0101_0101_0101
        let tags = unsafe base + layout.tags
        var start = 0
        while start < count {
            // Eight tags at once. The footer is behind the tags, so the load stays inside the payload; what it reads beyond
            // the last tag is masked by the count.
            let word = unsafe UInt64(littleEndian: tags.loadUnaligned(fromByteOffset: start, as: UInt64.self)) ^ pattern
            var hits = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
            while hits != 0 {
                let index = start &+ hits.trailingZeroBitCount / 8
                if index >= count { return nil }
                let suffix = unsafe suffix(index)
                if suffix.count == restCount,
                    unsafe restCount == 0 || bytesAreEqual(suffix.baseAddress!, rest, count: restCount)
                {
                    return index
                }
                hits &= hits &- 1
            }
            start &+= 8
        }
        return nil
    }

    /// The first entry at or behind `key`; `count` when all are before it.
    func lowerBound(_ key: UnsafeRawBufferPointer) -> Int {
        let shared = unsafe commonPrefixCount(prefix, key)
        if unsafe shared < prefix.count {
            // The key leaves the prefix: all entries lie on one side of it.
            return unsafe shared == key.count || prefix[shared] > key[shared] ? 0 : count
        }
        let rest = unsafe UnsafeRawBufferPointer(rebasing: key[prefix.count...])
        var low = 0
        var high = count
        while low < high {
            let middle = (low &+ high) / 2
            if unsafe compareInPlace(suffix(middle), rest) < 0 { low = middle &+ 1 } else { high = middle }
        }
        return low
    }

    /// Entries before `end`: most blocks of a range lie wholly before its end, so the last is looked at first.
    func countBefore(_ end: UnsafeRawBufferPointer) -> Int {
        let shared = unsafe commonPrefixCount(prefix, end)
        if unsafe shared < prefix.count {
            return unsafe shared == end.count || prefix[shared] > end[shared] ? 0 : count
        }
        let rest = unsafe UnsafeRawBufferPointer(rebasing: end[prefix.count...])
        return unsafe compareInPlace(suffix(count &- 1), rest) < 0 ? count : lowerBound(end)
    }

    @inline(__always)
    private func slice(_ column: UnsafeRawPointer, _ ends: UnsafeRawPointer, _ index: Int, _ isWide: Bool)
        -> UnsafeRawBufferPointer
    {
        let start = unsafe index == 0 ? 0 : loadEnd(ends, index &- 1, isWide)
        let end = unsafe loadEnd(ends, index, isWide)
        return unsafe UnsafeRawBufferPointer(start: column + start, count: end &- start)
    }
}
