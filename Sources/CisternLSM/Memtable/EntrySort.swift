// Sorts the point entries of a memtable by key, for flushes and scans: a radix sort from the most significant byte on 8-byte
// words of the keys (McIlroy, Bostic, McIlroy: Engineering Radix Sort, 1993), in place.
//
//   records {word, reference} ─► buckets by the byte where words differ first ─► small ones by insertion
//                                equal words ─► the words behind what the keys of the bucket share, and again
//
// Words are loaded once for each round, so keys are touched seldom; bits that all words of a bucket share cost nothing.

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
        let sort = EntrySort(view: view)
        unsafe sort.loadWords(records, count, at: 0)
        unsafe sort.sort(records, count, at: 0, rounds: 0)
        for index in 0..<count { unsafe (references + index).initialize(to: records[index].reference) }
        unsafe pool.giveBack(block, recordBytes, from: .scratch)
    }

    deinit {
        let listBytes = max(count, 1) * MemoryLayout<UInt32>.stride
        unsafe pool.giveBack(UnsafeMutableRawPointer(references), listBytes, from: .scratch)
    }
}

@safe struct EntrySort {
    private static let insertionMax = 20
    /// Rounds of ties, one inside the other, before keys are compared as a whole: it bounds the depth of the stack.
    private static let roundsMax = 64
    private static let prefetchDistance = 12

    let view: ArenaView

    @inline(__always)
    private func key(_ record: SortRecord) -> UnsafeRawBufferPointer {
        unsafe MemtableEntry(view.address(record.reference)).key
    }

    /// Sets each record's word to the eight bytes of its key from `offset` on.
    func loadWords(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int, at offset: Int) {
        for index in 0..<count {
            let ahead = index &+ EntrySort.prefetchDistance
            if ahead < count { unsafe cistern_prefetch(view.address(records[ahead].reference) + offset) }
            unsafe records[index].word = unsafe word(key(records[index]), at: offset)
        }
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

    /// - Precondition: the keys agree before `offset`, and the words are those at `offset`.
    func sort(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int, at offset: Int, rounds: Int) {
        if count <= EntrySort.insertionMax { return unsafe insertionSort(records, count, at: offset) }
        let first = unsafe records[0].word
        var differences: UInt64 = 0
        for index in 1..<count { differences |= unsafe records[index].word ^ first }
        if differences == 0 { return unsafe sortTies(records, count, at: offset, rounds: rounds) }
        let shift = UInt64(max(56 - differences.leadingZeroBitCount, 0))
        let ends = unsafe distribute(records, count, shift: shift)
        var start = 0
        for digit in 0..<256 {
            let end = Int(ends[digit])
            if end - start > 1 { unsafe sort(records + start, end - start, at: offset, rounds: rounds) }
            start = end
        }
    }

    /// Moves every record to the bucket of its digit; returns where each bucket ends.
    private func distribute(
        _ records: UnsafeMutablePointer<SortRecord>, _ count: Int, shift: UInt64
    ) -> InlineArray<256, UInt32> {
        var ends = InlineArray<256, UInt32>(repeating: 0)
        for index in 0..<count { ends[Int((unsafe records[index].word &>> shift) & 0xFF)] &+= 1 }
        var next = InlineArray<256, UInt32>(repeating: 0)
        var sum: UInt32 = 0
        for digit in 0..<256 {
            next[digit] = sum
            sum &+= ends[digit]
            ends[digit] = sum
        }
        for digit in 0..<256 {
            while next[digit] < ends[digit] {
                var record = unsafe records[Int(next[digit])]
                while true {
                    let target = Int((record.word &>> shift) & 0xFF)
                    if target == digit { break }
                    let place = Int(next[target])
                    next[target] &+= 1
                    let displaced = unsafe records[place]
                    unsafe records[place] = record
                    record = displaced
                }
                unsafe records[Int(next[digit])] = record
                next[digit] &+= 1
            }
        }
        return ends
    }

    /// Keys that agree up to the end of their words, or ended before it.
    private func sortTies(_ records: UnsafeMutablePointer<SortRecord>, _ count: Int, at offset: Int, rounds: Int) {
        let first = unsafe key(records[0])
        var shared = first.count
        for index in 1..<count {
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
