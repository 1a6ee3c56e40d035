// Log segments as somebody else than their tree refers to them: a snapshot that was taken without a flush, and a tree that was
// made from one and has not flushed it yet. Specification: proto-spec/snapshot.md.
//
//   logs = varint count, then for each
//          varint tree · u16 first · u16 last key group of the window
//          u64 epoch · u64 sequence: records up to here are in table files
//          u64 epoch · u64 sequence: records up to here are meant
//          varint count of segments, for each varint number · u64 durable bytes
//
// Values, any thread.

package import CisternPrimitives

/// A segment file of one data directory.
package struct SegmentID: Hashable, Sendable {
    package let tree: TreeID
    package let number: UInt64

    package init(tree: TreeID, number: UInt64) {
        self.tree = tree
        self.number = number
    }
}

/// A place in a tree's log: after the batch of this epoch and sequence.
package struct LogPosition: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let epoch: UInt64
    package let sequence: UInt64

    package init(epoch: UInt64, sequence: UInt64) {
        self.epoch = epoch
        self.sequence = sequence
    }

    package var description: String { "\(epoch)/\(sequence)" }

    package static func < (left: LogPosition, right: LogPosition) -> Bool {
        (left.epoch, left.sequence) < (right.epoch, right.sequence)
    }
}

extension WriteProgress {
    package var position: LogPosition { LogPosition(epoch: epoch, sequence: sequence) }
}

/// How much of a segment is meant: so many bytes were durable when the reference was made.
package struct LogSegmentPart: Hashable, Sendable {
    package let number: UInt64
    package let bytes: UInt64

    package init(number: UInt64, bytes: UInt64) {
        self.number = number
        self.bytes = bytes
    }
}

/// The records of one tree behind one position and up to another, as far as their key groups are in a window. Immutable.
package struct LogReference: Hashable, Sendable {
    package let tree: TreeID
    package let window: KeyGroupRange
    package let after: LogPosition
    package let through: LogPosition
    /// In the order of their numbers. Their ends may hold later records, which are not meant.
    package let segments: [LogSegmentPart]

    package init(
        tree: TreeID, window: KeyGroupRange, after: LogPosition, through: LogPosition, segments: [LogSegmentPart]
    ) {
        self.tree = tree
        self.window = window
        self.after = after
        self.through = through
        self.segments = segments
    }

    package func clipped(to range: KeyGroupRange) -> LogReference? {
        window.intersection(range).map {
            LogReference(tree: tree, window: $0, after: after, through: through, segments: segments)
        }
    }

    /// The same records of the other's key groups too; nil when the two are not windows of one part side by side.
    private func joined(with next: LogReference) -> LogReference? {
        guard tree == next.tree, after == next.after, through == next.through, segments == next.segments,
            UInt32(window.last) + 1 == UInt32(next.window.first)
        else { return nil }
        let whole = KeyGroupRange(first: window.first, last: next.window.last)
        return LogReference(tree: tree, window: whole, after: after, through: through, segments: segments)
    }

    /// In the order of replay, with the windows that a split has made put together again.
    ///
    /// A tree's number is higher than those of all trees whose records it was made from, so for each key group the order of
    /// the numbers is the order of the writes.
    package static func arranged(_ logs: [LogReference]) -> [LogReference] {
        let sorted = logs.sorted {
            ($0.tree.number, $0.window.first, $0.after) < ($1.tree.number, $1.window.first, $1.after)
        }
        var result: [LogReference] = []
        for log in sorted {
            if let last = result.last, let whole = last.joined(with: log) {
                result[result.count - 1] = whole
            } else {
                result.append(log)
            }
        }
        return result
    }
}

extension Sequence<LogReference> {
    package var segmentIDs: [SegmentID] {
        flatMap { log in log.segments.map { SegmentID(tree: log.tree, number: $0.number) } }
    }

    /// Bytes a replay reads.
    package var logBytes: UInt64 {
        reduce(0) { sum, log in log.segments.reduce(sum) { $0.saturatingAdding($1.bytes) } }
    }
}

extension LogReference {
    package static func encode(_ logs: [LogReference], into writer: inout ByteWriter) {
        writer.writeVarint(UInt64(logs.count))
        for log in logs {
            writer.writeVarint(log.tree.number)
            writer.writeInteger(log.window.first)
            writer.writeInteger(log.window.last)
            for position in [log.after, log.through] {
                writer.writeInteger(position.epoch)
                writer.writeInteger(position.sequence)
            }
            writer.writeVarint(UInt64(log.segments.count))
            for part in log.segments {
                writer.writeVarint(part.number)
                writer.writeInteger(part.bytes)
            }
        }
    }

    /// Takes any bytes; nil when they are not references.
    package static func decodeAll(_ reader: inout ByteReader) -> [LogReference]? {
        guard let count = reader.readVarint(), count <= UInt64(reader.remaining) else { return nil }
        var logs: [LogReference] = []
        for _ in 0..<count {
            guard let log = decode(&reader) else { return nil }
            logs.append(log)
        }
        return logs
    }

    private static func decode(_ reader: inout ByteReader) -> LogReference? {
        guard let tree = reader.readVarint(), tree <= EngineLimits.numberMax,
            let first = reader.readInteger(as: UInt16.self), let last = reader.readInteger(as: UInt16.self),
            first <= last, let after = decodePosition(&reader), let through = decodePosition(&reader),
            let count = reader.readVarint(), count <= UInt64(reader.remaining)
        else { return nil }
        var segments: [LogSegmentPart] = []
        for _ in 0..<count {
            guard let number = reader.readVarint(), number <= EngineLimits.numberMax,
                number > segments.last?.number ?? 0, let bytes = reader.readInteger(as: UInt64.self),
                bytes <= UInt64(LogFormat.segmentBytesMax)
            else { return nil }
            segments.append(LogSegmentPart(number: number, bytes: bytes))
        }
        return LogReference(
            tree: TreeID(tree), window: KeyGroupRange(first: first, last: last), after: after, through: through,
            segments: segments)
    }

    private static func decodePosition(_ reader: inout ByteReader) -> LogPosition? {
        guard let epoch = reader.readInteger(as: UInt64.self), let sequence = reader.readNumber() else { return nil }
        return LogPosition(epoch: epoch, sequence: sequence)
    }
}
