// One batch of writes while it is made: the newest write of each key, in a hash table over an arena. The active table takes
// writes; sealed ones stay readable until their batch is acknowledged, then their entries move to the value cache and the
// memory is used again. Owned by the session's task.
//
// Values are the serializer's bytes: envelopes are made when the batch is, so a write that is overwritten is never
// compressed.

package import CisternPrimitives

@safe package final class WriteTable {
    package struct Entry {
        var hash: UInt64
        package var expiry: Expiry
        var keyOffset: UInt32
        var keyCount: UInt32
        var valueOffset: UInt32
        var valueCount: UInt32
        var valueCapacity: UInt32
        package var stateID: UInt16
        package var kind: EntryKind
    }

    /// Bytes an entry costs in a batch beside its key and value: two ends, kind, expiry.
    package static let entryOverheadBytes = 17

    /// Behind a pointer, because a variable of a class is checked for exclusive access each time. The table is its session's alone, and no
    /// access of one of these is inside of another's.
    private struct Storage: ~Copyable {
        var entries = PlainBuffer<Entry>(capacity: 64)
        /// Bytes of live keys and values, plus the overhead of each entry.
        var byteCount = 0
        /// Entry index + 1, or 0; linear probing, at most half full.
        var slots: PlainBuffer<UInt32>
        var arena: [UInt8] = []
    }

    /// Made with the table and freed with it; never handed out.
    private let storage: UnsafeMutablePointer<Storage>

    private(set) var entries: PlainBuffer<Entry> {
        _read { yield unsafe storage.pointee.entries }
        _modify { yield unsafe &storage.pointee.entries }
    }
    package private(set) var byteCount: Int {
        get { unsafe storage.pointee.byteCount }
        set { unsafe storage.pointee.byteCount = newValue }
    }
    private var slots: PlainBuffer<UInt32> {
        _read { yield unsafe storage.pointee.slots }
        _modify { yield unsafe &storage.pointee.slots }
    }
    private var arena: [UInt8] {
        _read { yield unsafe storage.pointee.arena }
        _modify { yield unsafe &storage.pointee.arena }
    }

    package init(entriesExpected: Int = 64) {
        var capacity = 128
        while capacity < entriesExpected * 2 { capacity *= 2 }
        unsafe storage = .allocate(capacity: 1)
        unsafe storage.initialize(to: Storage(slots: PlainBuffer(repeating: 0, count: capacity)))
    }

    deinit {
        unsafe storage.deinitialize(count: 1)
        unsafe storage.deallocate()
    }

    var isEmpty: Bool { entries.isEmpty }
    var count: Int { entries.count }
    /// Memory used, dead bytes of overwritten values included.
    var arenaByteCount: Int { arena.count }

    package func removeAll() {
        entries.removeAll()
        arena.removeAll(keepingCapacity: true)
        byteCount = 0
        slots.fill(with: 0)
    }

    package func entry(at index: Int) -> Entry { entries[index] }

    /// Index of the key's entry.
    package func find(_ key: [UInt8], hash: UInt64) -> Int? {
        guard !entries.isEmpty else { return nil }
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while slots[slot] != 0 {
            let index = Int(slots[slot]) - 1
            if entries[index].hash == hash, keyEquals(entries[index], key) { return index }
            slot = (slot + 1) & mask
        }
        return nil
    }

    /// The value's bytes; valid, as any array slice, for as long as it is kept, but keeping it makes the next write copy.
    package func value(at index: Int) -> ArraySlice<UInt8> {
        let entry = entries[index]
        return arena[Int(entry.valueOffset)..<Int(entry.valueOffset + entry.valueCount)]
    }

    func key(at index: Int) -> [UInt8] { Array(keySlice(at: index)) }

    /// As `value(at:)`.
    func keySlice(at index: Int) -> ArraySlice<UInt8> {
        let entry = entries[index]
        return arena[Int(entry.keyOffset)..<Int(entry.keyOffset + entry.keyCount)]
    }

    func hasPrefix(_ prefix: [UInt8], at index: Int) -> Bool {
        let entry = entries[index]
        guard Int(entry.keyCount) >= prefix.count else { return false }
        let start = Int(entry.keyOffset)
        return arena[start..<(start + prefix.count)].elementsEqual(prefix)
    }

    /// Folds a write into the table: a put or a delete replaces what is there; an append extends a put or an append, and is
    /// a put when a delete is there. Returns true when the key was in the table.
    @discardableResult
    package func apply(_ kind: EntryKind, stateID: UInt16, key: [UInt8], hash: UInt64, value: [UInt8], expiry: Expiry)
        -> Bool
    {
        if let index = find(key, hash: hash) {
            fold(kind, into: index, value: value)
            entries[index].expiry = expiry
            return true
        }
        if (entries.count + 1) * 2 > slots.count { growSlots() }
        let keyOffset = arena.count
        arena.append(contentsOf: key)
        let valueOffset = arena.count
        if kind != .delete { arena.append(contentsOf: value) }
        let valueCount = UInt32(kind == .delete ? 0 : value.count)
        entries.append(
            Entry(
                hash: hash, expiry: expiry, keyOffset: UInt32(keyOffset), keyCount: UInt32(key.count),
                valueOffset: UInt32(valueOffset), valueCount: valueCount, valueCapacity: valueCount, stateID: stateID,
                kind: kind))
        byteCount += key.count + Int(valueCount) + Self.entryOverheadBytes
        insertSlot(hash: hash, entry: entries.count)
        return false
    }

    private func fold(_ kind: EntryKind, into index: Int, value: [UInt8]) {
        switch kind {
        case .delete:
            byteCount -= Int(entries[index].valueCount)
            entries[index].valueCount = 0
            entries[index].kind = .delete
        case .put:
            replaceValue(at: index, with: value)
            entries[index].kind = .put
        case .append:
            if entries[index].kind == .delete {
                replaceValue(at: index, with: value)
                entries[index].kind = .put
            } else {
                extendValue(at: index, with: value)
            }
        }
    }

    private func replaceValue(at index: Int, with value: [UInt8]) {
        byteCount += value.count - Int(entries[index].valueCount)
        if value.count <= Int(entries[index].valueCapacity) {
            overwrite(at: Int(entries[index].valueOffset), with: value)
        } else {
            entries[index].valueOffset = UInt32(arena.count)
            entries[index].valueCapacity = UInt32(value.count)
            arena.append(contentsOf: value)
        }
        entries[index].valueCount = UInt32(value.count)
    }

    /// The room doubles when a value moves, so that a list that grows by small additions is copied only a few times.
    private func extendValue(at index: Int, with value: [UInt8]) {
        let entry = entries[index]
        let total = Int(entry.valueCount) + value.count
        byteCount += value.count
        if total > Int(entry.valueCapacity) {
            let target = arena.count
            let capacity = total * 2
            arena.append(contentsOf: repeatElement(0, count: capacity))
            move(from: Int(entry.valueOffset), to: target, count: Int(entry.valueCount))
            entries[index].valueOffset = UInt32(target)
            entries[index].valueCapacity = UInt32(capacity)
        }
        overwrite(at: Int(entries[index].valueOffset) + Int(entry.valueCount), with: value)
        entries[index].valueCount = UInt32(total)
    }

    private func overwrite(at offset: Int, with bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        let copied = unsafe arena.withUnsafeMutableBytes { memory -> Int in
            unsafe UnsafeMutableRawBufferPointer(rebasing: memory[offset..<(offset + bytes.count)])
                .copyBytes(from: bytes)
            return bytes.count
        }
        invariant(copied == bytes.count, "a value is written whole")
    }

    private func move(from source: Int, to target: Int, count: Int) {
        guard count > 0 else { return }
        let moved = unsafe arena.withUnsafeMutableBytes { memory -> Int in
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: memory[source..<(source + count)])
            unsafe UnsafeMutableRawBufferPointer(rebasing: memory[target..<(target + count)]).copyMemory(from: bytes)
            return count
        }
        invariant(moved == count, "a value moves whole")
    }

    private func keyEquals(_ entry: Entry, _ key: [UInt8]) -> Bool {
        guard Int(entry.keyCount) == key.count else { return false }
        let start = Int(entry.keyOffset)
        return unsafe arena.withUnsafeBytes { memory -> Bool in
            unsafe key.withUnsafeBytes { key -> Bool in
                unsafe compareBytes(UnsafeRawBufferPointer(rebasing: memory[start..<(start + key.count)]), key) == 0
            }
        }
    }

    private func insertSlot(hash: UInt64, entry: Int) {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while slots[slot] != 0 { slot = (slot + 1) & mask }
        slots[slot] = UInt32(entry)
    }

    private func growSlots() {
        slots = PlainBuffer(repeating: 0, count: slots.count * 2)
        for index in entries.indices { insertSlot(hash: entries[index].hash, entry: index + 1) }
    }

    private struct SortItem {
        var high: UInt64
        var low: UInt64
        var index: UInt32

        /// Behind which key group its key comes: the first bytes of a key.
        var group: Int { Int(high >> 48) }
    }

    /// Entries of one group that are sorted by insertion; more by the library's sort.
    private static let insertionSortMax = 64
    private static let bucketsMax = 1024

    /// Entry indices in the order of their keys.
    ///
    /// Keys are spread over key groups, which they begin with: scattered by them first, what is left to sort is a few entries each.
    /// The first 16 bytes of a key (key group, state, length, 11 bytes of the key) decide nearly every comparison, so they
    /// are compared as two integers; the rest only on a tie.
    func sortedOrder() -> [UInt32] {
        let count = entries.count
        guard count > 0 else { return [] }
        return unsafe arena.withUnsafeBytes { memory -> [UInt32] in
            var items = PlainBuffer<SortItem>(capacity: count)
            var (first, last) = (Int.max, 0)
            for index in 0..<count {
                let key = unsafe Self.slice(memory, entries[index].keyOffset, entries[index].keyCount)
                let item = unsafe SortItem(high: Self.word(key, 0), low: Self.word(key, 8), index: UInt32(index))
                (first, last) = (min(first, item.group), max(last, item.group))
                items.append(item)
            }
            var shift = 0
            while (last - first) >> shift >= Self.bucketsMax { shift += 1 }
            // Where each bucket begins, then where its next entry goes: at the end, where it ends.
            var ends = PlainBuffer<Int>(repeating: 0, count: ((last - first) >> shift) + 2)
            for index in 0..<count { ends[((items[index].group - first) >> shift) + 1] += 1 }
            for bucket in 1..<ends.count { ends[bucket] += ends[bucket - 1] }
            var sorted = PlainBuffer<SortItem>(repeating: SortItem(high: 0, low: 0, index: 0), count: count)
            for index in 0..<count {
                let bucket = (items[index].group - first) >> shift
                sorted[ends[bucket]] = items[index]
                ends[bucket] += 1
            }
            var start = 0
            for bucket in 0..<(ends.count - 1) {
                unsafe sort(&sorted, start..<ends[bucket], memory)
                start = ends[bucket]
            }
            return (0..<count).map { sorted[$0].index }
        }
    }

    private func sort(
        _ items: inout PlainBuffer<SortItem>, _ range: Range<Int>, _ memory: UnsafeRawBufferPointer
    ) {
        guard range.count <= Self.insertionSortMax else {
            var many = range.map { items[$0] }
            many.sort { unsafe precedes($0, $1, memory) }
            for (offset, item) in many.enumerated() { items[range.lowerBound + offset] = item }
            return
        }
        guard range.count > 1 else { return }
        for position in (range.lowerBound + 1)..<range.upperBound {
            let item = items[position]
            var hole = position
            while hole > range.lowerBound, unsafe precedes(item, items[hole - 1], memory) {
                items[hole] = items[hole - 1]
                hole -= 1
            }
            items[hole] = item
        }
    }

    @inline(__always)
    private func precedes(_ left: SortItem, _ right: SortItem, _ memory: UnsafeRawBufferPointer) -> Bool {
        if left.high != right.high { return left.high < right.high }
        if left.low != right.low { return left.low < right.low }
        let a = entries[Int(left.index)]
        let b = entries[Int(right.index)]
        return unsafe compareBytes(
            Self.slice(memory, a.keyOffset, a.keyCount), Self.slice(memory, b.keyOffset, b.keyCount)) < 0
    }

    /// Makes the batch: sorted, unique, each value as `encode` says.
    package func seal(encode: (Entry, UnsafeRawBufferPointer, inout [UInt8]) -> Void) -> SealedBatch {
        let order = sortedOrder()
        var batch = SealedBatch.Columns()
        batch.keyEnds.reserveCapacity(order.count)
        batch.valueEnds.reserveCapacity(order.count)
        batch.kinds.reserveCapacity(order.count)
        let anyExpires = entries.indices.contains { entries[$0].expiry != .never }
        if anyExpires { batch.expiries.reserveCapacity(order.count) }
        let count = unsafe arena.withUnsafeBytes { memory -> Int in
            for index in order {
                let entry = entries[Int(index)]
                unsafe batch.keys.append(contentsOf: Self.slice(memory, entry.keyOffset, entry.keyCount))
                if entry.kind != .delete {
                    unsafe encode(entry, Self.slice(memory, entry.valueOffset, entry.valueCount), &batch.values)
                }
                batch.keyEnds.append(UInt32(batch.keys.count))
                batch.valueEnds.append(UInt32(batch.values.count))
                batch.kinds.append(entry.kind.rawValue)
                if anyExpires { batch.expiries.append(entry.expiry.rawValue) }
            }
            return order.count
        }
        invariant(count == entries.count, "every entry is in the batch")
        return SealedBatch(batch)
    }

    private static func slice(
        _ memory: UnsafeRawBufferPointer, _ offset: UInt32, _ count: UInt32
    ) -> UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(rebasing: memory[Int(offset)..<Int(offset + count)])
    }

    /// Eight key bytes from `offset` as a number that sorts as they do; zeros behind the end.
    private static func word(_ key: UnsafeRawBufferPointer, _ offset: Int) -> UInt64 {
        if key.count >= offset + 8 {
            return UInt64(bigEndian: unsafe key.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
        var word: UInt64 = 0
        for index in offset..<(offset + 8) {
            word = word << 8 | (index < key.count ? UInt64(unsafe key[index]) : 0)
        }
        return word
    }
}

/// A batch ready to send, as columns. Immutable, so it can be sent again after a lost connection.
package final class SealedBatch: Sendable {
    package struct Columns: Sendable {
        package var keyEnds: [UInt32] = []
        package var keys: [UInt8] = []
        package var valueEnds: [UInt32] = []
        package var values: [UInt8] = []
        package var kinds: [UInt8] = []
        /// Empty when no entry expires.
        package var expiries: [UInt64] = []

        package init() {}
    }

    package let columns: Columns

    init(_ columns: Columns) { self.columns = columns }

    package var count: Int { columns.kinds.count }
    package var byteCount: Int { columns.keys.count + columns.values.count + count * WriteTable.entryOverheadBytes }

    package func key(_ index: Int) -> ArraySlice<UInt8> {
        columns.keys[(index == 0 ? 0 : Int(columns.keyEnds[index - 1]))..<Int(columns.keyEnds[index])]
    }

    package func value(_ index: Int) -> ArraySlice<UInt8> {
        columns.values[(index == 0 ? 0 : Int(columns.valueEnds[index - 1]))..<Int(columns.valueEnds[index])]
    }

    package func kind(_ index: Int) -> EntryKind { EntryKind(rawValue: columns.kinds[index])! }

    package func expiry(_ index: Int) -> Expiry {
        Expiry(rawValue: columns.expiries.isEmpty ? 0 : columns.expiries[index])
    }
}
