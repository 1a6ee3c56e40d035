// What a journal is made with, and how it fails.

package import CisternFileSystem
package import CisternLogProtocol
package import CisternPrimitives

package struct JournalOptions: Sendable {
    package var directory: String
    package var node: LogNodeID
    /// Of the cluster's cookie.
    package var cluster: UInt64
    /// Size of a segment's file, a multiple of 4,096, at least 16 KiB. A body is smaller than half of it.
    package var segmentBytes = 64 << 20
    /// Segments that are prepared ahead; one of them is the reserve: with fewer than two that can be prepared, writers are refused.
    package var spareSegments = 2
    /// Of the disk, what stays free of prepared segments: when it is less, writers are refused, and what is prepared serves recovery,
    /// fences and deletes.
    package var reserveBytes: UInt64 = 0
    /// Segments that are prepared when a journal is opened, should these be more.
    package var preparedAtStart = 0
    /// Files of segments that went are kept for later ones up to this many: to write them anew would cost as much as what they will hold.
    package var keptSegments = 16
    /// Records that are written and synced together at most, but for one that is larger.
    package var batchBytesMax = 4 << 20
    /// A sealed segment of which less than this part is still needed has that copied to the end, and goes.
    package var rewriteBelow = 0.2
    /// Until a failed preparation or removal is tried again.
    package var retryMilliseconds: UInt64 = 1000

    package init(directory: String, node: LogNodeID, cluster: UInt64) {
        self.directory = directory
        self.node = node
        self.cluster = cluster
    }

    var bodyBytesMax: Int { min(JournalFormat.bodyBytesMax, segmentBytes / 2 - 256) }
}

package enum JournalError: Error, Equatable, Sendable, CustomStringConvertible {
    case file(FileError)
    case corruption(CorruptionError)
    /// The directory is another node's, or not what the cookie says.
    case foreign(directory: String, detail: String)

    package var description: String {
        switch self {
        case .file(let error): "the journal: \(error)"
        case .corruption(let error): "\(error)"
        case .foreign(let directory, let detail): "\(directory) is not this log node's directory: \(detail)"
        }
    }
}

/// The threads of a journal: each its own queue.
package struct JournalLanes: Sendable {
    /// Writes and syncs.
    package var writer: any BackgroundLane
    package var reader: any BackgroundLane
    /// Prepares segments, writes indexes, removes what is not needed, looks for damage.
    package var keeper: any BackgroundLane

    package init(writer: any BackgroundLane, reader: any BackgroundLane, keeper: any BackgroundLane) {
        self.writer = writer
        self.reader = reader
        self.keeper = keeper
    }

    package static func threads() -> JournalLanes {
        JournalLanes(
            writer: SerialThread(name: "log-journal"), reader: SerialThread(name: "log-reader"),
            keeper: SerialThread(name: "log-keeper"))
    }

    func stop() {
        writer.stop()
        reader.stop()
        keeper.stop()
    }
}

/// Names of a journal's files.
enum JournalFiles {
    static let cookie = "cookie"
    static let lock = "lock"
    static let deleted = "deleted"

    static func segment(_ number: UInt64) -> String { "journal-\(hex(number)).seg" }
    static func index(_ number: UInt64) -> String { "journal-\(hex(number)).idx" }
    static func spare(_ number: UInt64) -> String { "spare-\(hex(number)).seg" }

    static func number(_ name: String, prefix: String, suffix: String) -> UInt64? {
        guard name.hasPrefix(prefix), name.hasSuffix(suffix) else { return nil }
        let digits = name.dropFirst(prefix.count).dropLast(suffix.count)
        return digits.count == 16 ? UInt64(digits, radix: 16) : nil
    }

    private static func hex(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
