// Sorts the point entries of a memtable by key, for flushes and scans: a radix sort from the most significant byte on 8-byte
// words of the keys (McIlroy, Bostic, McIlroy: Engineering Radix Sort, 1993), in place.
//
//   records {word, reference} ─► scattered by the first eleven bits in which words differ, from one buffer to another
//                             ─► each part: buckets by the byte where words differ first ─► small ones by insertion
//                                equal words ─► the words behind what the keys of the bucket share, and again
//
// Words are loaded once for each round, so keys are touched seldom; bits that all words of a bucket share cost nothing. The
// scattering makes parts that fit the nearest cache; moving records in place among all of them would miss it at every step
// (docs/decisions/0087).

internal import CCisternShims
internal import CisternPrimitives

/// An entry on its way to its place.
struct SortRecord {
    /// Eight bytes of the key, big-endian, zero behind its end.
    var word: UInt64
    var reference: UInt32
}

/// The references of entries in key order. Immutable.
@safe final class SortedEntries: @unchecked Sendable {
    // Unchecked: filled in `init`, which is the only writer.
    let references: UnsafeMutablePointer<UInt32>
    let count: Int
    private let pool: MemoryPool

    /// - Parameter collect: writes `count` records.
    init(
        count: Int, view: ArenaView, pool: MemoryPool, collect: (UnsafeMutablePointer<SortRecord>) -> Void
    ) {
        self.count = count
        self.pool = pool
        let listBytes = max(count, 1) * MemoryLayout<UInt32>.stride
        unsafe references = unsafe pool.take(listBytes, for: .scratch).bindMemory(
            to: UInt32.self, capacity: max(count, 1))
        let recordBytes = max(count, 1) * MemoryLayout<SortRecord>.stride
        let block = unsafe pool.take(recordBytes, for: .scratch)
        let records = unsafe block.bindMemory(to: SortRecord.self, capacity: max(count, 1))
        unsafe collect(records)
        let counters = UnsafeMutablePointer<UInt32>.allocate(capacity: EntrySort.counterCount)
        defer { unsafe counters.deallocate() }
        let sort = unsafe EntrySort(view: view, counters: counters)
        unsafe sort.loadWords(records, count, at: 0)
        let digit = unsafe count < EntrySort.scatterMin ? nil : ScatterDigit(records, count)
        if let digit {
            let spare = unsafe pool.take(recordBytes, for: .scratch)
            let parts = unsafe spare.bindMemory(to: SortRecord.self, capacity: count)
            unsafe sort.scatter(records, count, by: digit, to: parts)
            unsafe list(parts)
            unsafe pool.giveBack(spare, recordBytes, from: .scratch)
        } else {
            unsafe sort.sort(records, count, at: 0, rounds: 0)
            unsafe list(records)
        }
        unsafe pool.giveBack(block, recordBytes, from: .scratch)
    }

    private func list(_ records: UnsafeMutablePointer<SortRecord>) {
        for index in 0..<count { unsafe (references + index).initialize(to: records[index].reference) }
    }

    deinit {
        let listBytes = max(count, 1) * MemoryLayout<UInt32>.stride
        unsafe pool.giveBack(UnsafeMutableRawPointer(references), listBytes, from: .scratch)
    }
}

/// The highest bits in which words differ, from up to two places of a word: the bits between are the same in all of them. So
/// digits order as the words do.
struct ScatterDigit {
    static let bits = 11
    /// So many bits that all words share end the first place.
    private static let gapBits = 8

    private let highShift: UInt64
    private let highMask: UInt64
    private let lowShift: UInt64
    private let lowMask: UInt64
    private let lowWidth: UInt64

    /// nil when all words are equal.
    init?(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int) {
        let first = unsafe records[0].word
        var differences: UInt64 = 0
        for index in 1..<count { differences |= unsafe records[index].word ^ first }
        if differences == 0 { return nil }
        let top = 63 - differences.leadingZeroBitCount
        var bottom = top
        while bottom > 0, top - bottom + 1 < ScatterDigit.bits {
            let gap = differences & ((1 << UInt64(bottom)) - 1)
            if gap == 0 || bottom - (64 - gap.leadingZeroBitCount) >= ScatterDigit.gapBits { break }
            bottom -= 1
        }
        let rest = differences & ((1 << UInt64(bottom)) - 1)
        let restWidth = 64 - rest.leadingZeroBitCount
        let width = min(ScatterDigit.bits - (top - bottom + 1), restWidth)
        highShift = UInt64(bottom)
        highMask = (1 << UInt64(top - bottom + 1)) - 1
        lowShift = UInt64(restWidth - width)
        lowMask = (1 << UInt64(width)) - 1
        lowWidth = UInt64(width)
    }

    @inline(__always)
    func callAsFunction(_ word: UInt64) -> Int {
        Int(truncatingIfNeeded: ((word &>> highShift) & highMask) &<< lowWidth | ((word &>> lowShift) & lowMask))
    }
}

@safe struct EntrySort {
    /// With fewer records all of them are in the nearest cache.
    static let scatterMin = 2048
    private static let insertionMax = 20
    /// Rounds of ties, one inside the other, before keys are compared as a whole: it bounds the depth of the stack.
    private static let roundsMax = 64
    private static let prefetchDistance = 12
    /// Where the next record of each digit goes, and where its bucket ends.
    static let counterCount = 512

    let view: ArenaView
    /// Used by one distribution after the other: most buckets are so small that filling counters of their own would be the
    /// larger part of their sorting.
    let counters: UnsafeMutablePointer<UInt32>

    @inline(__always)
    private func key(_ record: SortRecord) -> UnsafeRawBufferPointer {
        unsafe MemtableEntry(view.address(record.reference)).key
    }

    /// Sets each record's word to the eight bytes of its key from `offset` on.
    func loadWords(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int, at offset: Int) {
        for index in 0..<count {
            let ahead = index &+ EntrySort.prefetchDistance
            if ahead < count { unsafe prefetch(records[ahead], at: offset) }
            unsafe records[index].word = unsafe word(key(records[index]), at: offset)
        }
    }

    /// Asks for an entry's header and for the word of its key at `offset`.
    @inline(__always)
    private func prefetch(_ record: SortRecord, at offset: Int) {
        let base = unsafe view.address(record.reference)
        unsafe cistern_prefetch(base)
        unsafe cistern_prefetch(base + (MemtableEntry.headerBytes &+ offset &+ 7))
    }

    @inline(__always)
    private func word(_ key: UnsafeRawBufferPointer, at offset: Int) -> UInt64 {
        if offset &+ 8 <= key.count, let base = key.baseAddress {
            return unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
        return unsafe shortWord(key, at: offset)
    }

    private func shortWord(_ key: UnsafeRawBufferPointer, at offset: Int) -> UInt64 {
        var word: UInt64 = 0
        for index in offset..<(offset + 8) { word = unsafe word << 8 | (index < key.count ? UInt64(key[index]) : 0) }
        return word
    }

    /// Puts the records, whose words are those at 0, into `target` in the order of their keys.
    func scatter(
        _ records: UnsafeMutablePointer<SortRecord>, _ count: Int, by digit: ScatterDigit,
        to target: UnsafeMutablePointer<SortRecord>
    ) {
        let parts = 1 << ScatterDigit.bits
        // Where the next record of each part goes; in the end, where the part ends.
        let places = UnsafeMutablePointer<UInt32>.allocate(capacity: parts)
        unsafe places.initialize(repeating: 0, count: parts)
        for index in 0..<count { unsafe places[digit(records[index].word)] &+= 1 }
        var sum: UInt32 = 0
        for part in 0..<parts {
            let size = unsafe places[part]
            unsafe places[part] = sum
            sum &+= size
        }
        for index in 0..<count {
            let record = unsafe records[index]
            let part = digit(record.word)
            unsafe target[Int(places[part])] = record
            unsafe places[part] &+= 1
        }
        var start = 0
        for part in 0..<parts {
            let end = unsafe Int(places[part])
            if end - start > 1 { unsafe sort(target + start, end - start, at: 0, rounds: 0) }
            start = end
        }
        unsafe places.deallocate()
    }

    /// - Precondition: the keys agree before `offset`, and the words are those at `offset`.
    func sort(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int, at offset: Int, rounds: Int) {
        if count <= EntrySort.insertionMax { return unsafe insertionSort(records, count, at: offset) }
        let first = unsafe records[0].word
        var differences: UInt64 = 0
        for index in 1..<count { differences |= unsafe records[index].word ^ first }
        if differences == 0 { return unsafe sortTies(records, count, at: offset, rounds: rounds) }
        let shift = UInt64(max(56 - differences.leadingZeroBitCount, 0))
        unsafe distribute(records, count, shift: shift)
        var start = 0
        while start < count {
            let digit = unsafe digit(records[start], shift)
            var end = start &+ 1
            while end < count, unsafe self.digit(records[end], shift) == digit { end &+= 1 }
            if end &- start > 1 { unsafe sort(records + start, end &- start, at: offset, rounds: rounds) }
            start = end
        }
    }

    @inline(__always)
    private func digit(_ record: SortRecord, _ shift: UInt64) -> Int { Int((record.word &>> shift) & 0xFF) }

    /// Moves every record to the bucket of its digit.
    private func distribute(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int, shift: UInt64) {
        let next = unsafe counters
        let ends = unsafe counters + 256
        unsafe ends.update(repeating: 0, count: 256)
        for index in 0..<count { unsafe ends[digit(records[index], shift)] &+= 1 }
        var sum: UInt32 = 0
        for digit in 0..<256 {
            unsafe next[digit] = sum
            sum &+= unsafe ends[digit]
            unsafe ends[digit] = sum
        }
        for bucket in 0..<256 {
            while unsafe next[bucket] < ends[bucket] {
                var record = unsafe records[Int(next[bucket])]
                while case let target = digit(record, shift), target != bucket {
                    let place = unsafe Int(next[target])
                    unsafe next[target] &+= 1
                    let displaced = unsafe records[place]
                    unsafe records[place] = record
                    record = displaced
                }
                unsafe records[Int(next[bucket])] = record
                unsafe next[bucket] &+= 1
            }
        }
    }

    /// Keys that agree up to the end of their words, or ended before it.
    private func sortTies(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int, at offset: Int, rounds: Int) {
        let first = unsafe key(records[0])
        var shared = first.count
        for index in 1..<count {
            let ahead = index &+ EntrySort.prefetchDistance
            if ahead < count { unsafe prefetch(records[ahead], at: offset &+ 8) }
            let other = unsafe key(records[index])
            shared = unsafe min(shared, commonPrefixCount(first, other))
        }
        // A key that ends inside the word cannot be told from one with zeros there.
        if shared < offset + 8 || rounds == EntrySort.roundsMax {
            return unsafe sortWhole(records, count)
        }
        unsafe loadWords(records, count, at: shared)
        unsafe sort(records, count, at: shared, rounds: rounds + 1)
    }

    private func sortWhole(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int) {
        var all = unsafe UnsafeMutableBufferPointer(start: records, count: count)
        unsafe all.sort { unsafe compareBytes(key($0), key($1)) < 0 }
    }

    private func insertionSort(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int, at offset: Int) {
        var index = 1
        while index < count {
            let record = unsafe records[index]
            var place = index
            while place > 0, unsafe isBefore(record, records[place &- 1], at: offset) {
                unsafe records[place] = unsafe records[place &- 1]
                place &-= 1
            }
            unsafe records[place] = record
            index &+= 1
        }
    }

    @inline(__always)
    private func isBefore(_ left: SortRecord, _ right: SortRecord, at offset: Int) -> Bool {
        if left.word != right.word { return left.word < right.word }
        return unsafe compareBytes(key(left), key(right)) < 0
    }
}
