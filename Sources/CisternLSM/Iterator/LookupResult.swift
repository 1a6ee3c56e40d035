// Folding: what the parts of a key, found newest first, amount to. The rule, everywhere in the engine:
//
//   - the newest put or delete ends the search;
//   - appends newer than it are concatenated behind it, oldest first; over a delete or nothing they are the value themselves;
//   - the newest part's expiry is the whole's; older parts' own expiry is ignored while the newest lives.
//
// Page: proto-spec/entries.md.

package import CisternPrimitives

/// The value of one key under collection. Reuse it: its memory stays. One owner.
package struct LookupResult {
    private let fold: FoldBuffer

    package init() { fold = FoldBuffer() }

    /// Forgets what was collected and ends the validity of what `finish` returned.
    package mutating func reset() { fold.reset() }

    /// Adds a part that is older than all before it. The bytes are copied.
    /// - Returns: true when the search is complete.
    /// - Precondition: it was not complete.
    package mutating func add(_ entry: EntryView) -> Bool { fold.add(entry) }

    /// The same for an entry that points to its value, which is read. It completes the search.
    mutating func add(_ entry: EntryView, hash: UInt64, of table: TableReader) throws(EngineError) {
        try fold.add(entry, hash: hash, of: table)
    }

    /// The same for an entry of a memtable, whose value may be in pieces.
    mutating func add(_ stored: MemtableEntry, in view: ArenaView) -> Bool { fold.add(stored, in: view) }

    /// Moves the expiry to what it means by the rules of the tree that was searched for `key`. Once, when the search is over.
    mutating func apply(_ rules: ExpiryRules, to key: UnsafeRawBufferPointer) {
        unsafe fold.expiry = rules.current(fold.expiry, of: key)
    }

    package var isComplete: Bool { fold.isComplete }
    package var isEmpty: Bool { fold.isEmpty }
    /// Of what was collected so far.
    var byteCount: Int { fold.byteCount }

    /// The value, or nil when the key is absent, deleted or expired. The bytes are valid until `reset` or the next `add`.
    package func finish(_ clock: ExpiryClock) -> (value: UnsafeRawBufferPointer, expiry: Expiry)? {
        guard fold.hasValue, !clock.isExpired(fold.expiry) else { return nil }
        return unsafe (fold.value(), fold.expiry)
    }
}

/// The parts of one key's value, in memory that is kept from key to key.
final class FoldBuffer {
    private enum State {
        case empty
        /// Only appends so far.
        case open
        /// A put or delete below, which the search ends with.
        case onPut
        case onDelete
    }

    private var state = State.empty
    fileprivate(set) var expiry = Expiry.never
    /// The parts, newest first, one behind the other.
    @exclusivity(unchecked) private var parts = GrowingBuffer(capacity: 512)
    /// Where each part ends, an `Int` each.
    @exclusivity(unchecked) private var partEnds = GrowingBuffer()
    private var partCount = 0
    /// The parts turned round, when there is more than one.
    private var assembled = GrowingBuffer()

    var isEmpty: Bool { state == .empty }
    var isComplete: Bool { state == .onPut || state == .onDelete }
    var byteCount: Int { unsafe parts.count }
    var hasValue: Bool { partCount > 0 }
    /// True when the parts are appends and nothing is known about what is below them.
    var isOpen: Bool { state == .open }

    func reset() {
        state = .empty
        expiry = .never
        unsafe parts.reset()
        unsafe partEnds.reset()
        partCount = 0
    }

    func add(_ stored: MemtableEntry, in view: ArenaView) -> Bool {
        if !stored.hasPieces { return add(stored.view) }
        begin(stored.kind, stored.expiry)
        unsafe stored.forEachPart(in: view) { unsafe parts.append($0) }
        endPart()
        return state != .open
    }

    @inline(__always)
    private func begin(_ kind: EntryKind, _ newExpiry: Expiry) {
        invariant(!isComplete, "a part is added below a put or delete")
        if state == .empty { expiry = kind == .delete ? .never : newExpiry }
        switch kind {
        case .delete: state = .onDelete
        case .put: state = .onPut
        case .append: state = .open
        }
    }

    /// A put that points to its value.
    /// - Parameter hash: `Hash64` of its key.
    func add(_ entry: EntryView, hash: UInt64, of table: TableReader) throws(EngineError) {
        begin(entry.kind, entry.expiry)
        unsafe try table.valueFiles().read(entry, hash: hash, of: table.path, into: &parts)
        endPart()
    }

    func add(_ entry: EntryView) -> Bool {
        invariant(!entry.isPointer, "a pointer is taken for a value")
        begin(entry.kind, entry.expiry)
        if entry.kind != .delete {
            unsafe parts.append(entry.value)
            endPart()
        }
        return state != .open
    }

    /// The concatenation, oldest part first; valid until the next `add` or `reset`.
    func value() -> UnsafeRawBufferPointer {
        if partCount <= 1 { return unsafe parts.bytes }
        assembled.reset()
        for index in stride(from: partCount - 1, through: 0, by: -1) {
            let start = index == 0 ? 0 : partEnd(index - 1)
            unsafe assembled.append(UnsafeRawBufferPointer(rebasing: parts.bytes[start..<partEnd(index)]))
        }
        return unsafe assembled.bytes
    }

    @inline(__always)
    private func endPart() {
        unsafe partEnds.appendInteger(parts.count)
        partCount &+= 1
    }

    private func partEnd(_ index: Int) -> Int {
        unsafe partEnds.bytes.load(fromByteOffset: index * MemoryLayout<Int>.stride, as: Int.self)
    }
}
