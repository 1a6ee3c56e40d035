// Where a table cursor stands inside of a block, in memory of its own, so that a merge steps there without touching an object.
//
//    key buffer │ prefix of the block │ suffix of the entry that was looked at last │ slack
//    head       16 bytes of the key, from a byte on that all keys of the range share up to, as a number: part of the
//               prefix, which is prepared once a block, and part of the suffix
//
// Owned by one thread.

internal import CisternPrimitives

@safe struct BlockPlace: ~Copyable {
    /// Whole words are copied: so much is written behind a key at most.
    private static let slackBytes = 16

    private(set) var columns = DataColumns.none
    private(set) var position = 0
    /// Entries of the block before the end of the window or the range; the cursor is positioned when `position` is below.
    private(set) var limit = 0
    private var key = GrowingBuffer(capacity: 256)
    private var prefixCount = 0
    /// What the prefix contributes to every head, and how many bits of a head that is.
    private var prefixHead: UInt128 = 0
    private var prefixHeadBits: UInt128 = 0
    /// Bytes of each suffix before its part of the head.
    private var suffixSkip = 0

    init() {}

    @inline(__always) var isPositioned: Bool { position < limit }
    /// False when entries of the block lie behind the end.
    var showsWholeBlock: Bool { limit == columns.count }

    /// - Parameter headOffset: where heads begin in a key.
    mutating func enter(_ block: DataColumns, at newPosition: Int, limit newLimit: Int, headOffset: Int) {
        columns = block
        position = newPosition
        limit = newLimit
        key.reset()
        unsafe key.append(block.prefix)
        prefixCount = key.count
        key.reserve(block.suffixBytesMax + BlockPlace.slackBytes)
        let shown = max(prefixCount - headOffset, 0)
        suffixSkip = max(headOffset - prefixCount, 0)
        prefixHeadBits = UInt128(min(shown, keyHeadBytes) * 8)
        prefixHead =
            shown == 0 ? 0 : unsafe keyHead(UnsafeRawBufferPointer(rebasing: block.prefix[(prefixCount - shown)...]))
    }

    mutating func leave() {
        columns = .none
        position = 0
        limit = 0
    }

    /// The next entry of the block; false, and not positioned any more, when there is none before the end.
    @inline(__always)
    mutating func step() -> Bool {
        position &+= 1
        return position < limit
    }

    /// - Precondition of all below: positioned.

    /// The key of the entry without the block's prefix.
    @inline(__always)
    var suffix: UnsafeRawBufferPointer { unsafe columns.suffix(position) }

    /// Valid until the next call of this or of `enter`.
    @inline(__always)
    mutating func entry() -> EntryView { unsafe entry(suffix) }

    /// - Parameter suffix: of the entry.
    @inline(__always)
    mutating func entry(_ suffix: UnsafeRawBufferPointer) -> EntryView {
        let target = unsafe key.base + prefixCount
        // Behind each suffix lies the footer of its block, 20 bytes, so the last word may be read whole; `enter` has made
        // room for the longest suffix and a word.
        var offset = 0
        repeat {
            unsafe target.storeBytes(
                of: suffix.baseAddress.unsafelyUnwrapped.loadUnaligned(fromByteOffset: offset, as: SIMD2<UInt64>.self),
                toByteOffset: offset, as: SIMD2<UInt64>.self)
            offset &+= 16
        } while offset < suffix.count
        return unsafe columns.entry(
            position, key: UnsafeRawBufferPointer(start: key.base, count: prefixCount &+ suffix.count))
    }

    /// True when the entry replaces whatever is older, is alive, and has its value beside it.
    @inline(__always)
    func isLivingPut(_ clock: ExpiryClock) -> Bool {
        columns.hasOnlyLastingPuts
            || (columns.isPut(position) && !clock.isExpired(columns.expiry(position)))
    }

    @inline(__always)
    func head() -> UInt128 { unsafe head(suffix) }

    /// Different heads order as their keys do; equal heads decide nothing.
    @inline(__always)
    func head(_ suffix: UnsafeRawBufferPointer) -> UInt128 {
        if prefixHeadBits == UInt128(keyHeadBytes * 8) { return prefixHead }
        return unsafe prefixHead | suffixHead(suffix) &>> prefixHeadBits
    }

    @inline(__always)
    private func suffixHead(_ suffix: UnsafeRawBufferPointer) -> UInt128 {
        let rest = suffix.count &- suffixSkip
        guard rest > 0 else { return 0 }
        // Behind the suffix lie the 20 bytes of the footer at least.
        let base = unsafe suffix.baseAddress.unsafelyUnwrapped + suffixSkip
        var high = unsafe UInt64(bigEndian: base.loadUnaligned(as: UInt64.self))
        var low = unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        if rest < 16 {
            let unused = UInt64(truncatingIfNeeded: 16 &- rest) &* 8
            // More than a word of it: nothing of the lower one counts.
            low = unused >= 64 ? 0 : low & (.max &<< unused)
            if unused > 64 { high &= .max &<< (unused &- 64) }
        }
        return UInt128(high) << 64 | UInt128(low)
    }
}
