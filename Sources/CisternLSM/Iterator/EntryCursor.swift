// A cursor over any one source, as an enum: the merge calls it for each entry, and an existential there costs several times
// the work. The cases are objects; a copy is the same cursor.

package import CisternPrimitives

package enum EntryCursor {
    case memtable(MemtableCursor)
    case table(TableCursor)
    case level(LevelCursor)

    /// Positions on the first entry; false when there is none.
    @inline(__always)
    package func seekToFirst() throws(EngineError) -> Bool {
        switch self {
        case .memtable(let cursor): cursor.seekToFirst()
        case .table(let cursor): try cursor.seekToFirst()
        case .level(let cursor): try cursor.seekToFirst()
        }
    }

    /// Positions on the first key at or behind `key`; false when there is none.
    @inline(__always)
    package func seek(to key: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        switch self {
        case .memtable(let cursor): unsafe cursor.seek(to: key)
        case .table(let cursor): unsafe try cursor.seek(to: key)
        case .level(let cursor): unsafe try cursor.seek(to: key)
        }
    }

    @inline(__always)
    package func next() throws(EngineError) -> Bool {
        switch self {
        case .memtable(let cursor): cursor.next()
        case .table(let cursor): try cursor.next()
        case .level(let cursor): try cursor.next()
        }
    }

    /// The current entry, unfolded and with its expiry not judged; valid until the next move.
    /// - Precondition: the last move returned true.
    @inline(__always)
    package var entry: EntryView {
        switch self {
        case .memtable(let cursor): cursor.entry
        case .table(let cursor): cursor.entry
        case .level(let cursor): cursor.entry
        }
    }
}
