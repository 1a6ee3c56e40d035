// Reads a segment from its header on, and tells a torn tail from damage.
//
// A record counts when its checksum holds and it follows on the record before. Where that ends:
//   a sealed segment that ends where its successor says ──► all is there
//   a sealed segment that ends elsewhere                ──► damage
//   the last segment, and a mark behind the place says that it was durable ──► damage
//   the last segment otherwise                          ──► the torn end of a write that nobody was told of
// Behind damage, records are looked for by their checksums alone: they were durable too.

package import CisternLogProtocol
internal import CisternPrimitives

/// A record's place in a segment.
package struct PlacedRecord: Equatable, Sendable {
    package let record: JournalRecord
    package let offset: Int
    /// Without padding.
    package let length: Int
}

package struct SegmentScan {
    package private(set) var records: [PlacedRecord] = []
    /// Where the segment ends: a new one goes on from here.
    package private(set) var end: Int
    /// Of the last record.
    package private(set) var checksum: UInt32
    /// The first place that does not verify and was durable; nil when there is none.
    package private(set) var damagedAt: Int?

    package enum End {
        /// As the next segment's header has it.
        case sealed(bytes: UInt64, checksum: UInt32)
        /// The next segment is gone, this one was written to its end.
        case unknown
        /// Nothing was begun after this segment.
        case open
    }

    /// - Parameter header: nil when it is damaged: then records are found by their checksums alone.
    package init(_ bytes: [UInt8], segment: UInt64, header: SegmentHeader?, expecting: End) {
        end = JournalFormat.headerBytes
        checksum = header?.sealedChecksum ?? 0
        unsafe bytes.withUnsafeBytes { raw in
            var limit = raw.count
            if case .sealed(let bytes, _) = expecting { limit = min(limit, Int(clamping: bytes)) }
            if header != nil { unsafe scan(raw, segment: segment, limit: limit) }
            let gap = end
            let behind = unsafe find(raw, segment: segment, from: gap, limit: limit)
            let isDamaged =
                switch expecting {
                case .sealed(let bytes, let sum): header == nil || UInt64(gap) != bytes || checksum != sum
                case .unknown:
                    unsafe header == nil || !behind.isEmpty || !raw[min(gap, limit)...].allSatisfy { $0 == 0 }
                case .open:
                    behind.contains {
                        if case .mark(let durable) = $0.found.content { durable > UInt64(gap) } else { false }
                    }
                }
            guard isDamaged else { return }
            damagedAt = header == nil ? 0 : gap
            for (offset, found) in behind { take(found, at: offset) }
        }
    }

    private mutating func scan(_ raw: UnsafeRawBufferPointer, segment: UInt64, limit: Int) {
        while end < limit,
            let found = unsafe RecordDecoder.decode(
                UnsafeRawBufferPointer(rebasing: raw[end..<limit]), segment: segment),
            found.previous == checksum
        { take(found, at: end) }
    }

    /// Records behind `start`, each by its own checksum.
    private func find(
        _ raw: UnsafeRawBufferPointer, segment: UInt64, from start: Int, limit: Int
    ) -> [(offset: Int, found: FoundRecord)] {
        var result: [(offset: Int, found: FoundRecord)] = []
        var offset = start
        while offset + JournalFormat.recordHeadBytes <= limit {
            // Most of what is behind the end was never written.
            if unsafe raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self) != 0,
                let found = unsafe RecordDecoder.decode(
                    UnsafeRawBufferPointer(rebasing: raw[offset..<limit]), segment: segment)
            {
                result.append((offset, found))
                offset += JournalFormat.aligned(found.length)
            } else {
                offset += JournalFormat.alignment
            }
        }
        return result
    }

    private mutating func take(_ found: FoundRecord, at offset: Int) {
        if case .record(let record) = found.content {
            records.append(PlacedRecord(record: record, offset: offset, length: found.length))
        }
        end = offset + JournalFormat.aligned(found.length)
        checksum = found.checksum
    }
}
