// A split-block bloom filter over the keys of one partition (Putze, Sanders, Singler; the layout of Parquet and Impala):
// 32-byte blocks of eight u32 words; a key sets one bit in each word of one block, so that a probe touches one cache line.
//
//    payload    blocks × 32 bytes, no header; the number of blocks is the size / 32
//    block      ((hash >> 32) × blocks) >> 32
//    bit        of word i: (low 32 bits of hash × salt[i], modulo 2³²) >> 27

internal import CCisternShims
internal import CisternPrimitives

enum FilterFormat {
    static let blockBytes = 32
    /// The eight odd constants of the published layout. On disk: never change.
    static let salts = SIMD8<UInt32>(
        0x47B6_137B, 0x4497_4D91, 0x8824_AD5B, 0xA2B7_289D, 0x7054_95C7, 0x2DF1_424B, 0x9EFC_4947, 0x5C6B_FB31)

    /// Byte offset of the key's block.
    @inline(__always)
    static func blockOffset(_ hash: UInt64, blockCount: Int) -> Int {
        // Shifts bind tighter than multiplication here: the parentheses are the formula.
        Int(((hash >> 32) &* UInt64(blockCount)) >> 32) &* blockBytes
    }

    /// The bit of each word.
    @inline(__always)
    static func mask(_ hash: UInt64) -> SIMD8<UInt32> {
        let low = SIMD8<UInt32>(repeating: UInt32(truncatingIfNeeded: hash))
        let shift = (low &* salts) &>> SIMD8(repeating: 27)
        return SIMD8(repeating: 1) &<< shift
    }
}

/// Appends the filter of `hashes`, whose number is `count`, to `output`.
/// - Returns: its size.
func buildFilter(_ hashes: UnsafePointer<UInt64>, count: Int, bitsPerKey: Int, into output: inout GrowingBuffer) -> Int
{
    if bitsPerKey == 0 || count == 0 { return 0 }
    let blockBits = FilterFormat.blockBytes * 8
    let blockCount = (count * bitsPerKey + blockBits - 1) / blockBits
    let byteCount = blockCount * FilterFormat.blockBytes
    let blocks = unsafe output.extend(by: byteCount)
    unsafe blocks.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    for index in 0..<count {
        let hash = unsafe hashes[index]
        let offset = FilterFormat.blockOffset(hash, blockCount: blockCount)
        let words = unsafe blocks.loadUnaligned(fromByteOffset: offset, as: SIMD8<UInt32>.self)
        unsafe blocks.storeBytes(
            of: words | FilterFormat.mask(hash), toByteOffset: offset, as: SIMD8<UInt32>.self)
    }
    return byteCount
}

/// A filter partition in a frame. Borrowed: valid as long as the frame is.
@safe struct FilterPartition {
    private let blocks: UnsafeRawPointer
    private let blockCount: Int

    private struct Layout: BitwiseCopyable {
        var blockCount: UInt32
    }

    /// From the word of the partition's slot.
    @inline(__always)
    init(word: UInt) {
        let frame = CacheFrame(bits: word)
        unsafe blocks = unsafe UnsafeRawPointer(frame.payload)
        let count = Int(word >> 48)
        blockCount = count != 0 ? count : Int(frame.layout(as: Layout.self).blockCount)
    }

    init(_ frame: CacheFrame) { self.init(word: frame.bits) }

    /// The word of a slot: the address, and above it the number of blocks when that has 16 bits, so that a probe need not
    /// wait for the frame's header.
    static func word(_ frame: CacheFrame) -> UInt {
        let count = UInt(frame.layout(as: Layout.self).blockCount)
        return frame.bits | (count <= 0xFFFF ? count << 48 : 0)
    }

    /// Copies a payload into a frame that has room for it.
    static func load(_ payload: UnsafeRawBufferPointer, into frame: CacheFrame) -> LayoutFault? {
        guard payload.count > 0, payload.count % FilterFormat.blockBytes == 0 else {
            return "a filter of \(payload.count) bytes"
        }
        unsafe frame.payload.copyMemory(from: payload.baseAddress!, byteCount: payload.count)
        frame.setLayout(Layout(blockCount: UInt32(payload.count / FilterFormat.blockBytes)))
        return nil
    }

    /// Asks for the line that `mayContain` reads of the frame in a slot; for anyone, as nothing is read.
    @inline(__always)
    static func prefetch(word: UInt, hash: UInt64) {
        let offset = FilterFormat.blockOffset(hash, blockCount: Int(word >> 48))
        unsafe cistern_prefetch(CacheFrame(bits: word).payload + offset)
    }

    /// Asks for the line that `mayContain` reads.
    @inline(__always)
    func touchLine(_ hash: UInt64) {
        unsafe touchMemory(blocks + FilterFormat.blockOffset(hash, blockCount: blockCount))
    }

    /// False: no key of this hash is in the partition. True: probably one is.
    @inline(__always)
    func mayContain(_ hash: UInt64) -> Bool {
        // `blockOffset` is below blockCount × 32, so the load stays inside.
        let offset = FilterFormat.blockOffset(hash, blockCount: blockCount)
        let words = unsafe blocks.loadUnaligned(fromByteOffset: offset, as: SIMD8<UInt32>.self)
        let mask = FilterFormat.mask(hash)
        return words & mask == mask
    }
}
