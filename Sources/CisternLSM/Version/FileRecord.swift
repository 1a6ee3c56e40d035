// What a manifest or a snapshot knows about a table file, and the part of the file that is meant.

package import CisternPrimitives

/// A reference to a table file, limited to a window of key groups.
///
/// Immutable. The window is what makes restore, rescale and clip a matter of metadata: two trees may refer to the same file
/// with different windows, and neither rewrites it.
package struct FileRecord: Equatable, Sendable {
    package let number: UInt64
    /// Only entries of these key groups belong to the referring tree.
    package let window: KeyGroupRange
    package let summary: TableSummary

    package init(number: UInt64, window: KeyGroupRange, summary: TableSummary) {
        self.number = number
        self.window = window
        self.summary = summary
    }

    /// The same file, limited further; nil when nothing is left.
    package func clipped(to range: KeyGroupRange) -> FileRecord? {
        guard let window = window.intersection(range), window.overlaps(summary.keyGroups) else { return nil }
        return FileRecord(number: number, window: window, summary: summary)
    }

    package var id: FileRecordID { FileRecordID(number: number, firstGroup: window.first) }

    /// True when the window hides a part of the file.
    package var isPartial: Bool { !window.contains(summary.keyGroups) }

    /// The least key the reference can yield, or a lower bound of it.
    package var smallestKey: [UInt8] {
        summary.keyGroups.first >= window.first ? summary.smallestKey : firstKey(ofGroup: window.first)
    }

    /// An upper bound, inclusive, of the keys the reference can yield. A window that ends before the file does is bounded by
    /// its last group; every key of that group is below the bound by the limit on key length.
    package var largestKey: [UInt8] {
        if summary.keyGroups.last <= window.last { return summary.largestKey }
        return window.last == .max ? summary.largestKey : firstKey(ofGroup: window.last + 1)
    }

    package func overlaps(_ range: KeyBounds) -> Bool {
        compareKeys(smallestKey, range.largest) <= 0 && compareKeys(range.smallest, largestKey) <= 0
    }

    /// Entries that the window stands for, estimated like the bytes.
    package var windowedEntries: UInt64 { windowed(summary.entryCount) }

    /// Bytes of the file that the window stands for, estimated from the share of its key groups.
    package var windowedBytes: UInt64 { windowed(summary.fileBytes) }

    /// The same of the values that the file points to.
    package var windowedValueBytes: UInt64 {
        summary.values.isEmpty ? 0 : windowed(summary.values.reduce(0) { $0.saturatingAdding($1.recordBytes) })
    }

    /// The share of the window in a number that counts for the whole file.
    func windowed(_ whole: UInt64) -> UInt64 {
        guard isPartial, let shown = window.intersection(summary.keyGroups) else { return whole }
        return whole.scaled(by: shown.count, of: summary.keyGroups.count)
    }
}

// Sums of what was read from a disk, which may be anything: too large ones end at the largest number.
extension Sequence<FileRecord> {
    package var windowedBytes: UInt64 { reduce(0) { $0.saturatingAdding($1.windowedBytes) } }
    package var windowedValueBytes: UInt64 { reduce(0) { $0.saturatingAdding($1.windowedValueBytes) } }
    package var windowedEntries: UInt64 { reduce(0) { $0.saturatingAdding($1.windowedEntries) } }
}

extension UInt64 {
    func saturatingAdding(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }

    /// - Precondition: `part` is at most `whole`, which is positive; so the result fits.
    fileprivate func scaled(by part: Int, of whole: Int) -> UInt64 {
        UInt64(whole).dividingFullWidth(multipliedFullWidth(by: UInt64(part))).quotient
    }
}

/// Names a reference inside one tree: windows of one file never overlap there.
package struct FileRecordID: Hashable, Sendable {
    package let number: UInt64
    package let firstGroup: UInt16

    package init(number: UInt64, firstGroup: UInt16) {
        self.number = number
        self.firstGroup = firstGroup
    }
}

/// A closed range of keys.
package struct KeyBounds: Equatable, Sendable {
    package var smallest: [UInt8]
    package var largest: [UInt8]

    /// nil for no files.
    package init?(of files: some Sequence<FileRecord>) {
        var iterator = files.makeIterator()
        guard let first = iterator.next() else { return nil }
        smallest = first.smallestKey
        largest = first.largestKey
        while let file = iterator.next() {
            if compareKeys(file.smallestKey, smallest) < 0 { smallest = file.smallestKey }
            if compareKeys(file.largestKey, largest) > 0 { largest = file.largestKey }
        }
    }

    package init(smallest: [UInt8], largest: [UInt8]) {
        self.smallest = smallest
        self.largest = largest
    }
}

func compareKeys(_ left: [UInt8], _ right: [UInt8]) -> Int {
    unsafe left.withUnsafeBytes { l in unsafe right.withUnsafeBytes { r in unsafe compareBytes(l, r) } }
}
