// Where entries are. 20 bytes an entry: its id, its segment and offset, its length. Entries of a ledger come nearly in order, so adding one
// is appending to three arrays.

internal import CisternLogProtocol
internal import CisternPrimitives

/// A record's place in the journal.
struct EntryPlace: Equatable, Sendable {
    let segment: UInt64
    let offset: Int
    /// Without padding.
    let length: Int
}

struct EntryIndex {
    private var ledgers: [LedgerID: Entries] = [:]

    private struct Entries {
        var ids: [Int64] = []
        /// Segment in the upper half, offset in units of the record alignment in the lower one.
        var places: [UInt64] = []
        var lengths: [UInt32] = []

        func index(of id: Int64) -> Int {
            guard let last = ids.last, last >= id else { return ids.count }
            var low = 0
            var high = ids.count
            while low < high {
                let middle = (low + high) / 2
                if ids[middle] < id { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }

    /// A later place takes the place of an earlier one.
    mutating func insert(_ ledger: LedgerID, _ entry: EntryID, _ place: EntryPlace) {
        let packed = place.segment << 32 | UInt64(place.offset / JournalFormat.alignment)
        let length = UInt32(place.length)
        var entries = ledgers.removeValue(forKey: ledger) ?? Entries()
        let index = entries.index(of: entry.rawValue)
        if index < entries.ids.count, entries.ids[index] == entry.rawValue {
            entries.places[index] = packed
            entries.lengths[index] = length
        } else {
            entries.ids.insert(entry.rawValue, at: index)
            entries.places.insert(packed, at: index)
            entries.lengths.insert(length, at: index)
        }
        ledgers[ledger] = entries
    }

    func place(of entry: EntryID, in ledger: LedgerID) -> EntryPlace? {
        guard let entries = ledgers[ledger] else { return nil }
        let index = entries.index(of: entry.rawValue)
        guard index < entries.ids.count, entries.ids[index] == entry.rawValue else { return nil }
        return EntryIndex.unpack(entries.places[index], entries.lengths[index])
    }

    private static func unpack(_ place: UInt64, _ length: UInt32) -> EntryPlace {
        EntryPlace(
            segment: place >> 32, offset: Int(place & 0xFFFF_FFFF) * JournalFormat.alignment, length: Int(length))
    }

    mutating func remove(_ ledger: LedgerID) { ledgers[ledger] = nil }

    /// All entries whose place is in one segment, in the order of their places.
    func entries(in segment: UInt64) -> [(ledger: LedgerID, entry: EntryID, place: EntryPlace)] {
        var found: [(ledger: LedgerID, entry: EntryID, place: EntryPlace)] = []
        for (ledger, entries) in ledgers {
            for index in entries.ids.indices where entries.places[index] >> 32 == segment {
                let place = EntryIndex.unpack(entries.places[index], entries.lengths[index])
                found.append((ledger, EntryID(entries.ids[index]), place))
            }
        }
        return found.sorted { $0.place.offset < $1.place.offset }
    }
}
