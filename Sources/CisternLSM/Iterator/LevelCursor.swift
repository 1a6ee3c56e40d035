// Tables of one level, which do not overlap, walked as one run. A table is opened for reading when the walk reaches it.
// Owned by one thread.

package import CisternPrimitives

/// A table, or the part of it that lies in a window of key groups: what a version refers to.
package struct TableWindow: Sendable {
    package let reader: TableReader
    package let keyGroups: KeyGroupRange

    package init(_ reader: TableReader, keyGroups: KeyGroupRange? = nil) {
        self.reader = reader
        self.keyGroups = keyGroups ?? reader.summary.keyGroups
    }

    /// nil when the whole table is shown.
    var clip: KeyGroupRange? { keyGroups.contains(reader.summary.keyGroups) ? nil : keyGroups }
}

package final class LevelCursor {
    private let windows: [TableWindow]
    private let policy: CachePolicy
    private let cacheReader: CacheReader?
    private var number = 0
    private var current: TableCursor?

    /// - Precondition: the windows are in key order and do not overlap.
    /// - Parameter reader: of the thread that owns the cursor; nil: each table's cursor makes its own.
    package init(_ windows: [TableWindow], policy: CachePolicy = .fill, reader: CacheReader? = nil) {
        cacheReader = reader
        self.windows = windows
        self.policy = policy
    }

    package convenience init(tables: [TableReader], policy: CachePolicy = .fill) {
        self.init(tables.map { TableWindow($0) }, policy: policy)
    }

    package var isValid: Bool { current?.isValid ?? false }

    /// Valid until the next move.
    /// - Precondition: the cursor is positioned.
    package var entry: EntryView {
        guard let current else { preconditionFailure("the entry of a cursor that is not positioned") }
        return current.entry
    }

    package func seekToFirst() throws(EngineError) -> Bool {
        try enter(0)
    }

    /// Positions on the first key at or behind `key`.
    package func seek(to key: UnsafeRawBufferPointer) throws(EngineError) -> Bool {
        current = nil
        let first = unsafe firstWindow(endingAtOrBehind: key)
        guard first < windows.count else { return false }
        let cursor = open(first)
        if unsafe try cursor.seek(to: key) {
            current = cursor
            return true
        }
        return try enter(first + 1)
    }

    package func next() throws(EngineError) -> Bool {
        guard let current else { return false }
        if try current.next() { return true }
        return try enter(number + 1)
    }

    private func open(_ window: Int) -> TableCursor {
        number = window
        return windows[window].reader.cursor(window: windows[window].clip, policy: policy, reader: cacheReader)
    }

    /// The first entry at or behind the start of window `first`; a window may be empty.
    private func enter(_ first: Int) throws(EngineError) -> Bool {
        current = nil
        for window in first..<max(first, windows.count) {
            let cursor = open(window)
            if try cursor.seekToFirst() {
                current = cursor
                return true
            }
        }
        return false
    }

    private func firstWindow(endingAtOrBehind key: UnsafeRawBufferPointer) -> Int {
        var low = 0
        var high = windows.count
        while low < high {
            let middle = (low + high) / 2
            if unsafe ends(windows[middle], before: key) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func ends(_ window: TableWindow, before key: UnsafeRawBufferPointer) -> Bool {
        if key.count >= keyGroupBytes, unsafe window.keyGroups.last < keyGroup(of: key) { return true }
        let largest = window.reader.summary.largestKey
        let order = unsafe largest.withUnsafeBytes { unsafe compareBytes($0, key) }
        return order < 0
    }
}
