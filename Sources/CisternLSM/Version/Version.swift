// An immutable picture of a tree's files by level, with the open files. Reads, scans, flushes, compactions and snapshots each
// hold the version they began with; its files live at least as long.

internal import CisternPrimitives

/// A file as one version refers to it. A class, because a look-up passes several of them: one count each instead of five.
package final class FileReference: Sendable {
    package let record: FileRecord
    package let table: TableFile
    /// Bounds of the visible keys; `largestKey` is inclusive.
    package let smallestKey: [UInt8]
    package let largestKey: [UInt8]

    init(_ record: FileRecord, tables: TableDirectory) {
        self.record = record
        table = tables.table(record.number)
        smallestKey = record.smallestKey
        largestKey = record.largestKey
    }
}

package final class Version: Sendable {
    package let levels: [[FileReference]]
    package let fileCount: Int

    init(_ state: TreeState, tables: TableDirectory) {
        levels = state.levels.map { level in level.map { FileReference($0, tables: tables) } }
        fileCount = levels.reduce(0) { $0 + $1.count }
    }

    package var fileNumbers: [UInt64] { levels.joined().map(\.record.number) }

    /// Index of the one file of a sorted level that may hold the key.
    func fileIndex(level: Int, key: UnsafeRawBufferPointer) -> Int? {
        let files = levels[level]
        var low = 0
        var high = files.count
        while low < high {
            let middle = (low + high) / 2
            if unsafe isBelow(files[middle].largestKey, key) { low = middle + 1 } else { high = middle }
        }
        guard low < files.count, unsafe !isAbove(files[low].smallestKey, key) else { return nil }
        return low
    }
}

func isBelow(_ bound: [UInt8], _ key: UnsafeRawBufferPointer) -> Bool {
    unsafe bound.withUnsafeBytes { unsafe compareBytes($0, key) < 0 }
}

func isAbove(_ bound: [UInt8], _ key: UnsafeRawBufferPointer) -> Bool {
    unsafe bound.withUnsafeBytes { unsafe compareBytes($0, key) > 0 }
}
