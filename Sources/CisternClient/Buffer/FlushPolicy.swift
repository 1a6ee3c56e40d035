// When the write buffer is sent. Pure: numbers in, a decision out.

/// The bounds of the write buffer.
package struct FlushPolicy: Equatable {
    package var bytesMax: Int
    package var entriesMax: Int
    package var ageMaxNanoseconds: UInt64
    /// Memory the arena may reach through overwritten values before it is sent for that alone.
    package var arenaBytesMax: Int { bytesMax * 4 + 1024 * 1024 }

    package init(bytesMax: Int, entriesMax: Int, ageMaxNanoseconds: UInt64) {
        self.bytesMax = bytesMax
        self.entriesMax = entriesMax
        self.ageMaxNanoseconds = ageMaxNanoseconds
    }

    package enum Reason: Equatable { case bytes, entries, age, memory }

    /// Why a buffer of this size and age must go; nil while it may stay.
    package func reason(bytes: Int, entries: Int, arenaBytes: Int, ageNanoseconds: UInt64) -> Reason? {
        if entries == 0 { return nil }
        if bytes >= bytesMax { return .bytes }
        if entries >= entriesMax { return .entries }
        if arenaBytes >= arenaBytesMax { return .memory }
        return ageNanoseconds >= ageMaxNanoseconds ? .age : nil
    }
}
