// What a table of version 4 says about itself beyond version 3: entries and expiries by state, and its longest values. Part of
// the properties block, behind the value files.
//
//    varint n, 0: not told, else 1 + states │ for each: u16 state, varint entries, varint deletes, varint expiring,
//    then by clock, processing first: varint earliest expiry, 0 none, varint latest behind it
//    varint size from which on a value is long │ varint m │ for each: varint-prefixed key, varint size

internal import CisternFileSystem
internal import CisternPrimitives

/// Immutable, and shared by all records of the file.
package final class TableDetails: Sendable, Equatable {
    /// By number; nil when the file has too many to tell.
    package let states: [StateSummary]?
    /// Values of this size and more are listed.
    package let longValueBytes: UInt64
    /// In key order; the first `longValuesMax` of them.
    package let longValues: [LongValue]

    /// A file with more states tells of none; one with more long values tells of the first.
    static let statesMax = 128
    static let longValuesMax = 4096

    init(states: [StateSummary]?, longValueBytes: UInt64, longValues: [LongValue]) {
        self.states = states
        self.longValueBytes = longValueBytes
        self.longValues = longValues
    }

    package static func == (left: TableDetails, right: TableDetails) -> Bool {
        left.states == right.states && left.longValueBytes == right.longValueBytes
            && left.longValues == right.longValues
    }

    func encode(into writer: inout ByteWriter) {
        writer.writeVarint(states.map { UInt64($0.count) + 1 } ?? 0)
        for state in states ?? [] { state.encode(into: &writer) }
        writer.writeVarint(longValueBytes)
        writer.writeVarint(UInt64(longValues.count))
        for value in longValues {
            writer.writeLengthPrefixed(value.key)
            writer.writeVarint(value.byteCount)
        }
    }

    static func decode(_ reader: inout ByteReader) -> TableDetails? {
        guard let count = reader.readVarint(), count <= UInt64(statesMax) + 1 else { return nil }
        var states: [StateSummary] = []
        while UInt64(states.count) + 1 < count {
            guard let state = StateSummary.decode(&reader) else { return nil }
            if let last = states.last, last.state >= state.state { return nil }
            states.append(state)
        }
        guard let longValueBytes = reader.readVarint(), let valueCount = reader.readVarint(),
            valueCount <= UInt64(longValuesMax)
        else { return nil }
        var values: [LongValue] = []
        while UInt64(values.count) < valueCount {
            guard let key = unsafe reader.readLengthPrefixed(), let byteCount = reader.readVarint(),
                byteCount <= UInt64(TableFormat.valueBytesMax)
            else { return nil }
            values.append(LongValue(key: unsafe Array(key), byteCount: byteCount))
        }
        return TableDetails(states: count == 0 ? nil : states, longValueBytes: longValueBytes, longValues: values)
    }
}

package struct LongValue: Equatable, Sendable {
    package let key: [UInt8]
    package let byteCount: UInt64
}

/// A state's part of a table.
package struct StateSummary: Equatable, Sendable {
    package let state: UInt16
    package var entryCount: UInt64 = 0
    package var deleteCount: UInt64 = 0
    /// Puts and appends that expire.
    package var expiringCount: UInt64 = 0
    package var processing = ExpirySpan()
    package var event = ExpirySpan()

    init(state: UInt16) { self.state = state }

    /// Puts and appends that do not expire.
    package var neverExpiringCount: UInt64 { entryCount - deleteCount - expiringCount }

    mutating func countSpecial(_ entry: EntryView) {
        if entry.kind == .delete {
            deleteCount += 1
        } else if entry.expiry != .never {
            expiringCount += 1
            if entry.expiry.isEventTime {
                event.include(entry.expiry.milliseconds)
            } else {
                processing.include(entry.expiry.milliseconds)
            }
        }
    }

    fileprivate func encode(into writer: inout ByteWriter) {
        writer.writeInteger(state)
        writer.writeVarint(entryCount)
        writer.writeVarint(deleteCount)
        writer.writeVarint(expiringCount)
        for span in [processing, event] {
            writer.writeVarint(span.earliest)
            writer.writeVarint(span.latest - span.earliest)
        }
    }

    fileprivate static func decode(_ reader: inout ByteReader) -> StateSummary? {
        guard let state = reader.readInteger(as: UInt16.self), let entries = reader.readVarint(),
            let deletes = reader.readVarint(), deletes <= entries, let expiring = reader.readVarint(),
            expiring <= entries - deletes, let processing = ExpirySpan.decode(&reader),
            let event = ExpirySpan.decode(&reader)
        else { return nil }
        var summary = StateSummary(state: state)
        summary.entryCount = entries
        summary.deleteCount = deletes
        summary.expiringCount = expiring
        summary.processing = processing
        summary.event = event
        return summary
    }
}

/// Expiries by one clock, in milliseconds.
package struct ExpirySpan: Equatable, Sendable {
    /// 0 when there is none. An entry that expires at 0 is counted as expiring at 1, which is no later for any clock that runs.
    package private(set) var earliest: UInt64 = 0
    package private(set) var latest: UInt64 = 0

    package init() {}

    package mutating func include(_ milliseconds: UInt64) {
        let milliseconds = max(milliseconds, 1)
        earliest = earliest == 0 ? milliseconds : min(earliest, milliseconds)
        latest = max(latest, milliseconds)
    }

    package var isEmpty: Bool { earliest == 0 }

    fileprivate static func decode(_ reader: inout ByteReader) -> ExpirySpan? {
        guard let earliest = reader.readVarint(), earliest < 1 << 63, let rest = reader.readVarint(), rest < 1 << 63,
            earliest > 0 || rest == 0
        else { return nil }
        var span = ExpirySpan()
        span.earliest = earliest
        span.latest = earliest + rest
        return span
    }
}

/// Collects the details of a table that is written, or verified. Entries come in key order.
struct TableDetailsBuilder {
    private var states: [StateSummary] = []
    /// By state number: the place in `states`.
    private var places: [UInt16: Int] = [:]
    /// Of the entry counted last.
    private var place = -1
    private let longValueBytes: UInt64
    private var longValues: [LongValue] = []

    init(longValueBytes: UInt64) { self.longValueBytes = longValueBytes }

    /// Entries of any kind.
    mutating func count(_ entries: UInt64, of state: UInt16) {
        move(to: state)
        states[place].entryCount += entries
    }

    /// A delete or an entry that expires, which is counted as an entry besides.
    mutating func countSpecial(_ entry: EntryView) {
        unsafe move(to: tableState(of: entry.key))
        states[place].countSpecial(entry)
    }

    mutating func note(_ key: UnsafeRawBufferPointer, valueBytes: Int) {
        guard valueBytes >= longValueBytes, longValues.count < TableDetails.longValuesMax else { return }
        longValues.append(LongValue(key: unsafe Array(key), byteCount: UInt64(valueBytes)))
    }

    @inline(__always)
    private mutating func move(to state: UInt16) {
        if place >= 0 && states[place].state == state { return }
        find(state)
    }

    @inline(never)
    private mutating func find(_ state: UInt16) {
        if let known = places[state] {
            place = known
            return
        }
        place = states.count
        places[state] = place
        states.append(StateSummary(state: state))
    }

    /// All of an entry.
    mutating func count(_ entry: EntryView) {
        unsafe count(1, of: tableState(of: entry.key))
        if entry.kind == .delete || entry.expiry != .never { countSpecial(entry) }
        if entry.kind == .delete { return }
        let pointer = entry.isPointer ? unsafe ValuePointer(entry.value) : nil
        unsafe note(entry.key, valueBytes: pointer.map { Int($0.valueBytes) } ?? entry.value.count)
    }

    func details() -> TableDetails {
        let told = states.count <= TableDetails.statesMax ? states.sorted { $0.state < $1.state } : nil
        return TableDetails(states: told, longValueBytes: longValueBytes, longValues: longValues)
    }
}

/// A key that is too short to name a state counts as one of state 0.
@inline(__always)
func tableState(of key: UnsafeRawBufferPointer) -> UInt16 {
    key.count >= EngineLimits.keyBytesMin ? unsafe stateNumber(of: key) : 0
}
