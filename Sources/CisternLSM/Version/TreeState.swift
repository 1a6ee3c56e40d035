// What is durable about one tree: who it is, who writes it, how far its flushed data reaches, and its files by level.
// A manifest is a `TreeState` and the edits that followed it; folding them is the whole of recovery except the log.

internal import CisternFileSystem
package import CisternPrimitives

/// Which keyed state a tree holds.
package struct TreeIdentity: Hashable, Sendable {
    package let store: String
    package let keyGroups: KeyGroupRange
    /// Key groups of the whole store (the engine's maximum parallelism).
    package let keyGroupCount: Int

    package init(store: String, keyGroups: KeyGroupRange, keyGroupCount: Int) {
        self.store = store
        self.keyGroups = keyGroups
        self.keyGroupCount = keyGroupCount
    }
}

/// How far writes have come.
package struct WriteProgress: Equatable, Sendable {
    package var epoch: UInt64
    package var sequence: UInt64
    package var watermark: UInt64

    package init(epoch: UInt64, sequence: UInt64, watermark: UInt64) {
        self.epoch = epoch
        self.sequence = sequence
        self.watermark = watermark
    }
}

package struct TreeState: Equatable, Sendable {
    package var identity: TreeIdentity
    /// Trees that this one was made in place of; where one still exists, a crash interrupted the exchange.
    package var replaces: [TreeID] = []
    package var epoch: UInt64
    package var writer: String
    /// Everything up to here is in table files.
    package var flushed: WriteProgress
    /// Segments below this number are not needed.
    package var firstSegment: UInt64 = 1
    /// Level 0: newest first, key ranges overlap. Deeper levels: in key order, ranges apart.
    package var levels = [[FileRecord]](repeating: [], count: TreeState.levelCount)

    /// What other trees wrote that this one was made from and that is in no table file yet, in the order of replay.
    package var logs: [LogReference] = []

    /// What stored expiries mean.
    package var expiryRules = ExpiryRules()

    package static let levelCount = 7

    package init(identity: TreeIdentity, epoch: UInt64, writer: String, watermark: UInt64 = 0) {
        self.identity = identity
        self.epoch = epoch
        self.writer = writer
        flushed = WriteProgress(epoch: epoch, sequence: 0, watermark: watermark)
    }

    package var files: some Sequence<FileRecord> { levels.joined() }

    /// Applies one edit; the error sentence when it does not fit, which for an edit read from disk means damage.
    package mutating func apply(_ edit: VersionEdit) -> String? {
        if let session = edit.session {
            if session.epoch < epoch { return "an edit sets epoch \(session.epoch) after epoch \(epoch)" }
            epoch = session.epoch
            writer = session.writer
        }
        if let progress = edit.flushed { flushed = progress }
        if let segment = edit.firstSegment {
            if segment < firstSegment { return "an edit sets first segment \(segment) after \(firstSegment)" }
            firstSegment = segment
        }
        if edit.dropsLogs {
            if logs.isEmpty { return "an edit drops logs of other trees, and the tree refers to none" }
            logs = []
        }
        if let rules = edit.expiryRules { expiryRules = rules }
        for removal in edit.removed {
            guard removal.level < levels.count,
                let index = levels[removal.level].firstIndex(where: { $0.id == removal.file })
            else {
                return "an edit removes file \(removal.file.number) from level \(removal.level), which has no such file"
            }
            levels[removal.level].remove(at: index)
        }
        for addition in edit.added {
            guard addition.level < levels.count else { return "an edit adds a file to level \(addition.level)" }
            if let problem = insert(addition.file, level: addition.level) { return problem }
        }
        return nil
    }

    private mutating func insert(_ file: FileRecord, level: Int) -> String? {
        if level == 0 {
            levels[0].insert(file, at: 0)
            return nil
        }
        let index = insertionIndex(of: file.smallestKey, level: level)
        let bounds = KeyBounds(smallest: file.smallestKey, largest: file.largestKey)
        if index > 0, levels[level][index - 1].overlaps(bounds) {
            return "an edit adds file \(file.number) over a file of level \(level)"
        }
        if index < levels[level].count, levels[level][index].overlaps(bounds) {
            return "an edit adds file \(file.number) over a file of level \(level)"
        }
        levels[level].insert(file, at: index)
        return nil
    }
}

extension TreeState {
    /// Where a file with this smallest key belongs in a sorted level.
    fileprivate func insertionIndex(of smallestKey: [UInt8], level: Int) -> Int {
        var low = 0
        var high = levels[level].count
        while low < high {
            let middle = (low + high) / 2
            if compareKeys(levels[level][middle].smallestKey, smallestKey) > 0 {
                high = middle
            } else {
                low = middle + 1
            }
        }
        return low
    }
}

/// One atomic change of a tree.
package struct VersionEdit: Equatable, Sendable {
    package struct Session: Equatable, Sendable {
        package var epoch: UInt64
        package var writer: String

        package init(epoch: UInt64, writer: String) {
            self.epoch = epoch
            self.writer = writer
        }
    }
    package struct Removal: Equatable, Sendable {
        package var level: Int
        package var file: FileRecordID

        package init(level: Int, file: FileRecordID) {
            self.level = level
            self.file = file
        }
    }
    package struct Addition: Equatable, Sendable {
        package var level: Int
        package var file: FileRecord

        package init(level: Int, file: FileRecord) {
            self.level = level
            self.file = file
        }
    }

    package var session: Session?
    package var flushed: WriteProgress?
    package var firstSegment: UInt64?
    /// What was in logs of other trees is in table files.
    package var dropsLogs = false
    /// All of them, when one has changed.
    package var expiryRules: ExpiryRules?
    package var removed: [Removal] = []
    /// Several additions to level 0 are listed oldest first.
    package var added: [Addition] = []

    package init(session: Session? = nil) { self.session = session }
}
