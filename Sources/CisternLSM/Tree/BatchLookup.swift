// Many keys looked up at once. A look-up alone waits for memory four times a table: filter, index, header and tags of a block.
// Here every step is made for all keys of a group before the next one, and each step asks for the lines that the next one
// reads, so the waits of a group pass together.
//
// Owned by the tree's owner. Only what is in memory is found this way, newest first as always; a key that needs the disk, or
// parts of a list from more than one place, is left to a look-up of its own.

internal import CisternPrimitives
internal import Synchronization

@safe final class BatchLookup {
    /// Keys of a group: enough to fill the processor's queue of outstanding loads, few enough that what a step asked for is
    /// still in the nearest cache at the next.
    static let keysMax = 32

    enum Outcome {
        /// Not decided; absent when the search is over.
        case pending
        /// A put or a delete.
        case found
        /// To be looked up by itself.
        case alone
    }

    @safe struct Item {
        var key: UnsafeRawBufferPointer
        var hash: UInt64
        var outcome = Outcome.pending
        var kind = EntryKind.delete
        var expiry = Expiry.never
        /// Borrowed from a memtable or a frame, or from `copies`.
        var value = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        /// Where the value is to be read from, which `value` says until then.
        var isPointer = false
        fileprivate(set) var table: Unmanaged<TableReader>?
        fileprivate var partition = 0
        /// Of the slot the next step reads.
        fileprivate var word: UInt = 0

        init(_ key: UnsafeRawBufferPointer) {
            unsafe self.key = unsafe key
            hash = unsafe Hash64.hash(key)
        }
    }

    let items: UnsafeMutablePointer<Item>
    private(set) var count = 0
    /// Numbers of the items a step is for.
    private let chosen: UnsafeMutablePointer<Int>
    private var copies = GrowingBuffer(capacity: 4096)
    /// Values that were read from value files.
    var pointed = GrowingBuffer()

    init() {
        unsafe items = .allocate(capacity: BatchLookup.keysMax)
        unsafe chosen = .allocate(capacity: BatchLookup.keysMax)
    }

    deinit {
        unsafe items.deallocate()
        unsafe chosen.deallocate()
    }

    func reset() { count = 0 }

    /// - Precondition: fewer than `keysMax` keys were added since `reset`.
    func add(_ key: UnsafeRawBufferPointer) {
        unsafe (items + count).initialize(to: Item(key))
        count += 1
    }

    func take(_ entry: EntryView, for number: Int) {
        if entry.kind == .append {
            unsafe items[number].outcome = .alone
            return
        }
        unsafe items[number].outcome = .found
        unsafe items[number].kind = entry.kind
        unsafe items[number].expiry = entry.expiry
        unsafe items[number].value = unsafe entry.value
    }

    /// The same of a memtable; a value in pieces has to be put together by `collect`.
    func take(_ stored: MemtableEntry, for number: Int) {
        if stored.hasPieces {
            unsafe items[number].outcome = .alone
        } else {
            take(stored.view, for: number)
        }
    }

    /// A key that the tree cannot have.
    func refuse(_ number: Int) {
        unsafe items[number].outcome = .found
        unsafe items[number].kind = .delete
    }

    var hasAlone: Bool {
        for number in 0..<count where unsafe items[number].outcome == .alone { return true }
        return false
    }

    /// True when values are to be read from value files.
    var hasPointers: Bool {
        for number in 0..<count where unsafe items[number].isPointer { return true }
        return false
    }

    /// Makes what was found independent of epochs.
    func copyValues() {
        copies.reset()
        var size = 0
        for number in 0..<count { size += unsafe items[number].value.count }
        copies.reserve(size)
        for number in 0..<count where unsafe items[number].outcome == .found {
            let start = copies.count
            unsafe copies.append(items[number].value)
            unsafe items[number].value = unsafe UnsafeRawBufferPointer(rebasing: copies.bytes[start...])
        }
    }

    /// Moves expiries to what they mean by the rules of the tree.
    func apply(_ rules: ExpiryRules) {
        for number in 0..<count where unsafe items[number].outcome == .found {
            unsafe items[number].expiry = unsafe rules.current(items[number].expiry, of: items[number].key)
        }
    }

    // MARK: Files

    /// Looks into one file a key of a level.
    /// - Parameters:
    ///   - reader: inside an epoch, which what is found is borrowed from.
    ///   - place: of the file that may hold the item's key.
    /// - Returns: the number of filters that were asked.
    func probe(
        _ search: LevelSearch, _ reader: CacheReader, place: (UnsafeRawBufferPointer) -> Int?
    ) -> Int {
        var n = 0
        for number in 0..<count where unsafe items[number].outcome == .pending {
            let item = unsafe items + number
            guard let file = unsafe place(item.pointee.key) else { continue }
            guard let table = unsafe search.openReader(file) else {
                unsafe item.pointee.outcome = .alone
                continue
            }
            let word = unsafe table._withUnsafeGuaranteedRef { unsafe $0.filterWord(item.pointee.key) }
            guard let (partition, word) = word else { continue }
            if word == 0 {
                unsafe item.pointee.outcome = .alone
                continue
            }
            unsafe item.pointee.table = unsafe table
            unsafe item.pointee.partition = partition
            unsafe item.pointee.word = word
            if word != TableSlots.noFilter { unsafe FilterPartition(word: word).touchLine(item.pointee.hash) }
            unsafe chosen[n] = number
            n += 1
        }
        let probes = n
        n = keep(n) { item, table in
            let filter = item.word
            if filter != TableSlots.noFilter {
                reader.countHit()
                CacheFrame(bits: filter).touch()
                if !FilterPartition(word: filter).mayContain(item.hash) { return false }
            }
            return take(&item, unsafe loadSlot(table.slots.index(item.partition)))
        }
        n = keep(n) { item, table in
            let frame = CacheFrame(bits: item.word)
            reader.countHit()
            frame.touch()
            guard let block = unsafe IndexPartition(frame).block(for: item.key) else { return false }
            return take(&item, unsafe loadSlot(table.slots.data(item.partition, block)))
        }
        n = keep(n) { item, _ in
            let frame = CacheFrame(bits: item.word)
            reader.countHit()
            frame.touch()
            DataColumns(frame).touchTags()
            return true
        }
        _ = keep(n) { item, _ in
            let columns = DataColumns(CacheFrame(bits: item.word))
            guard let place = unsafe columns.find(item.key, hash: item.hash) else { return false }
            let entry = unsafe columns.entry(place, key: item.key)
            if entry.kind == .append {
                item.outcome = .alone
            } else {
                item.outcome = .found
                item.kind = entry.kind
                item.expiry = entry.expiry
                item.isPointer = entry.isPointer
                unsafe item.value = unsafe entry.value
            }
            return false
        }
        return probes
    }

    /// The slot's word for the next step; false when the block is not in memory.
    @inline(__always)
    private func take(_ item: inout Item, _ word: UInt) -> Bool {
        if word == 0 {
            item.outcome = .alone
            return false
        }
        item.word = word
        CacheFrame(bits: word).prefetchHeader()
        return true
    }

    /// Makes a step for the chosen items; those it is true for stay chosen.
    @inline(__always)
    private func keep(_ chosenCount: Int, _ step: (inout Item, borrowing TableReader) -> Bool) -> Int {
        var kept = 0
        for index in 0..<chosenCount {
            let number = unsafe chosen[index]
            guard let table = unsafe items[number].table else { continue }
            let stays = unsafe table._withUnsafeGuaranteedRef { unsafe step(&items[number], $0) }
            if stays {
                unsafe chosen[kept] = number
                kept += 1
            }
        }
        return kept
    }
}

/// Loads a line and does nothing with it: the processor goes on while it comes. Atomic only so that it is not optimised out.
@inline(__always)
func touchMemory(_ address: UnsafeRawPointer) {
    let line = unsafe UnsafeMutableRawPointer(mutating: address).assumingMemoryBound(to: Atomic<UInt8>.self)
    _ = unsafe line.pointee.load(ordering: .relaxed)
}
