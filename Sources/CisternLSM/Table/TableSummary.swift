// What a table says about itself: the properties block, read at open.
//
//    u64 entries │ u64 deletes │ u64 appends │ u64 never-expiring │ u64 latest processing-time expiry │ u64 latest event-time
//    expiry │ u64 key bytes │ u64 value bytes │ u64 data blocks │ u32 block size │ u32 filter bits a key
//    u16 first key group │ u16 last key group │ varint-prefixed smallest key │ varint-prefixed largest key
//    from version 2 on: u64 earliest processing-time expiry │ u64 earliest event-time expiry
//    from version 3 on: varint count, then for each value file varints number │ size │ entries │ bytes of their records
//    from version 4 on: `TableDetails`

internal import CisternFileSystem
package import CisternPrimitives

package struct TableSummary: Equatable, Sendable {
    package var entryCount: UInt64 = 0
    package var deleteCount: UInt64 = 0
    package var appendCount: UInt64 = 0
    /// Puts and appends that do not expire. A file without them and without deletes is dead as a whole once both latest
    /// expiries have passed.
    package var neverExpiringCount: UInt64 = 0
    /// Latest expiry by each clock, in milliseconds, of puts and appends; 0 when none has one.
    package var maxExpiryProcessing: UInt64 = 0
    package var maxExpiryEvent: UInt64 = 0
    /// Earliest expiry by each clock, in milliseconds, of puts and appends; 0 when none has one. From version 2 on.
    package var minExpiryProcessing: UInt64 = 0
    package var minExpiryEvent: UInt64 = 0
    package var rawKeyBytes: UInt64 = 0
    /// Of values and pointers, as they are in the file.
    package var rawValueBytes: UInt64 = 0
    package var dataBlockCount: UInt64 = 0
    package var blockSizeBytes: UInt32 = 0
    package var filterBitsPerKey: UInt32 = 0
    package var keyGroups = KeyGroupRange(first: 0, last: 0)
    package var smallestKey: [UInt8] = []
    package var largestKey: [UInt8] = []
    package var fileBytes: UInt64 = 0
    /// The value files that entries point into, by number. From version 3 on.
    package var values: [ValueFileUse] = []
    /// From version 4 on.
    package var details: TableDetails?
    /// Of the file. Told by what the properties end with.
    package var formatVersion = TableFormat.versions.lowerBound

    package init() {}

    mutating func count(_ entry: EntryView) {
        entryCount += 1
        unsafe rawKeyBytes += UInt64(entry.key.count)
        unsafe rawValueBytes += UInt64(entry.value.count)
        if entry.kind != .delete && entry.expiry == .never { neverExpiringCount += 1 }
        countSpecial(entry)
    }

    /// What a put without expiry does not change.
    mutating func countSpecial(_ entry: EntryView) {
        if entry.kind == .delete {
            deleteCount += 1
            return
        }
        if entry.kind == .append { appendCount += 1 }
        let expiry = entry.expiry
        if expiry == .never { return }
        if expiry.isEventTime {
            minExpiryEvent = earliest(minExpiryEvent, expiry.milliseconds)
            maxExpiryEvent = max(maxExpiryEvent, expiry.milliseconds)
        } else {
            minExpiryProcessing = earliest(minExpiryProcessing, expiry.milliseconds)
            maxExpiryProcessing = max(maxExpiryProcessing, expiry.milliseconds)
        }
    }

    func encode() -> [UInt8] {
        var writer = ByteWriter(capacity: 128)
        for number in [
            entryCount, deleteCount, appendCount, neverExpiringCount, maxExpiryProcessing, maxExpiryEvent, rawKeyBytes,
            rawValueBytes, dataBlockCount,
        ] { writer.writeInteger(number) }
        writer.writeInteger(blockSizeBytes)
        writer.writeInteger(filterBitsPerKey)
        writer.writeInteger(keyGroups.first)
        writer.writeInteger(keyGroups.last)
        writer.writeLengthPrefixed(smallestKey)
        writer.writeLengthPrefixed(largestKey)
        if formatVersion >= TableFormat.versionWithPrefixes {
            writer.writeInteger(minExpiryProcessing)
            writer.writeInteger(minExpiryEvent)
        }
        if formatVersion >= TableFormat.versionWithValueFiles { values.encode(into: &writer) }
        if formatVersion >= TableFormat.versionWithDetails { details?.encode(into: &writer) }
        return writer.bytes
    }

    /// nil when the bytes are not a summary.
    static func decode(_ bytes: UnsafeRawBufferPointer, fileBytes: UInt64) -> TableSummary? {
        var reader = unsafe ByteReader(bytes)
        var numbers: [UInt64] = []
        for _ in 0..<9 {
            guard let number: UInt64 = reader.readInteger() else { return nil }
            numbers.append(number)
        }
        guard let blockSize: UInt32 = reader.readInteger(), let filterBits: UInt32 = reader.readInteger(),
            let first: UInt16 = reader.readInteger(), let last: UInt16 = reader.readInteger(), first <= last,
            let smallest = unsafe reader.readLengthPrefixed(), let largest = unsafe reader.readLengthPrefixed()
        else { return nil }
        var summary = TableSummary()
        if !reader.isAtEnd {
            guard let processing: UInt64 = reader.readInteger(), let event: UInt64 = reader.readInteger() else {
                return nil
            }
            summary.formatVersion = TableFormat.versionWithPrefixes
            summary.minExpiryProcessing = processing
            summary.minExpiryEvent = event
        }
        if !reader.isAtEnd {
            guard let values = [ValueFileUse].decode(&reader) else { return nil }
            summary.formatVersion = TableFormat.versionWithValueFiles
            summary.values = values
        }
        if !reader.isAtEnd {
            guard let details = TableDetails.decode(&reader), reader.isAtEnd else { return nil }
            summary.formatVersion = TableFormat.versionWithDetails
            summary.details = details
        }
        summary.entryCount = numbers[0]
        summary.deleteCount = numbers[1]
        summary.appendCount = numbers[2]
        summary.neverExpiringCount = numbers[3]
        summary.maxExpiryProcessing = numbers[4]
        summary.maxExpiryEvent = numbers[5]
        summary.rawKeyBytes = numbers[6]
        summary.rawValueBytes = numbers[7]
        summary.dataBlockCount = numbers[8]
        summary.blockSizeBytes = blockSize
        summary.filterBitsPerKey = filterBits
        summary.keyGroups = KeyGroupRange(first: first, last: last)
        summary.smallestKey = unsafe Array(smallest)
        summary.largestKey = unsafe Array(largest)
        summary.fileBytes = fileBytes
        return summary
    }
}

/// Of expiries, where 0 stands for none so far.
private func earliest(_ soFar: UInt64, _ new: UInt64) -> UInt64 { soFar == 0 ? new : min(soFar, new) }
