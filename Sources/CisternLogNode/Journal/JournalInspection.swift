// What a log node's directory holds, while no node has it open. Every segment is read whole, by its records and not by its index, and
// nothing is changed: what a start would cut off or remove is still there afterwards.

package import CisternFileSystem
package import CisternLogProtocol
package import CisternPrimitives

package struct JournalInspection: Sendable {
    /// What the directory has of a ledger.
    package struct Ledger: Sendable {
        package let ledger: LedgerID
        package internal(set) var entries = EntrySet()
        /// Of bodies.
        package internal(set) var bytes: UInt64 = 0
        package internal(set) var lastAddConfirmed = EntryID.none
        package internal(set) var isFenced = false
        /// "Never stored" means nothing here: the node came back without all it had.
        package internal(set) var isInLimbo = false

        init(_ ledger: LedgerID) { self.ledger = ledger }
    }

    package struct Segment: Sendable {
        package let number: UInt64
        package let fileBytes: UInt64
        package let records: Int
        /// Where it ends.
        package let end: UInt64
        /// Whether it has an index that can be read.
        package let hasIndex: Bool
    }

    package let directory: String
    package fileprivate(set) var cookie: LogNodeCookie?
    package fileprivate(set) var segments: [Segment] = []
    package fileprivate(set) var spareSegments = 0
    /// In the order of their ids.
    package fileprivate(set) var ledgers: [Ledger] = []
    package fileprivate(set) var deletedLedgers: UInt64 = 0
    /// Ledgers up to this one are in limbo unless they were repaired; nil: none is.
    package fileprivate(set) var limboThrough: LedgerID?
    package fileprivate(set) var damage: [CorruptionError] = []

    /// Reads a directory. Blocks for as long as its segments take to read.
    /// - Throws: `locked` when a node has it open.
    package static func run(_ directory: String, fileSystem: any FileSystem) throws(FileError) -> JournalInspection {
        // Not made where nothing is: the lock's file would be the first of a mistyped directory.
        _ = try fileSystem.list(directory)
        guard try fileSystem.exists(directory + "/" + JournalFiles.cookie) else {
            throw FileError(operation: "find a log node's cookie in", path: directory, reason: .errno(2))
        }
        let lock = try fileSystem.lock(directory + "/" + JournalFiles.lock)
        defer { lock.release() }
        var inspector = JournalInspector(directory, fileSystem)
        try inspector.run()
        return inspector.result
    }

    fileprivate init(_ directory: String) { self.directory = directory }
}

private struct JournalInspector {
    var result: JournalInspection
    private let fileSystem: any FileSystem
    private var ledgers: [LedgerID: JournalInspection.Ledger] = [:]
    private var repaired: Set<LedgerID> = []
    private var deletedRuns: [ClosedRange<LedgerID>] = []
    private var headers: [UInt64: SegmentHeader] = [:]

    init(_ directory: String, _ fileSystem: any FileSystem) {
        result = JournalInspection(directory)
        self.fileSystem = fileSystem
    }

    private func path(_ name: String) -> String { result.directory + "/" + name }

    private mutating func damaged(_ name: String, _ offset: UInt64, _ detail: String) {
        result.damage.append(CorruptionError(source: path(name), offset: offset, detail: detail))
    }

    mutating func run() throws(FileError) {
        result.cookie = LogNodeCookie.decode(try fileSystem.readAll(path(JournalFiles.cookie), limit: 1 << 20))
        if result.cookie == nil { damaged(JournalFiles.cookie, 0, "the cookie cannot be read") }
        try readDeleted()
        var segments: [UInt64] = []
        for name in try fileSystem.list(result.directory) {
            if let number = JournalFiles.number(name, prefix: "journal-", suffix: ".seg") {
                segments.append(number)
                headers[number] = try SegmentHeader.read(path(name), fileSystem)
            } else if JournalFiles.number(name, prefix: "spare-", suffix: ".seg") != nil {
                result.spareSegments += 1
            }
        }
        segments.sort()
        for segment in segments { try read(segment, isLast: segment == segments.last) }
        for ledger in ledgers.keys {
            ledgers[ledger]?.isInLimbo =
                result.limboThrough.map { ledger <= $0 } == true && !repaired.contains(ledger)
        }
        // Their records stay in segments that others need.
        for ledger in ledgers.keys where deletedRuns.contains(where: { $0.contains(ledger) }) { ledgers[ledger] = nil }
        result.ledgers = ledgers.values.sorted { $0.ledger < $1.ledger }
    }

    private mutating func readDeleted() throws(FileError) {
        guard try fileSystem.exists(path(JournalFiles.deleted)) else { return }
        guard let deleted = DeletedLedgers.decode(try fileSystem.readAll(path(JournalFiles.deleted), limit: 1 << 30))
        else { return damaged(JournalFiles.deleted, 0, "the list of deleted ledgers has a wrong checksum") }
        deletedRuns = deleted.runs
        for run in deleted.runs { result.deletedLedgers += run.upperBound.rawValue - run.lowerBound.rawValue + 1 }
    }

    private mutating func read(_ segment: UInt64, isLast: Bool) throws(FileError) {
        let name = JournalFiles.segment(segment)
        let header = headers[segment].flatMap { $0.segment == segment ? $0 : nil }
        if let cookie = result.cookie, let header, header.node != cookie.node || header.cluster != cookie.cluster {
            damaged(
                name, 0, "it is of node \(header.node.rawValue) in cluster \(header.cluster), and the cookie is not")
        }
        let bytes = try fileSystem.readAll(path(name), limit: Int(UInt32.max))
        let expecting: SegmentScan.End =
            if isLast {
                .open
            } else if let next = headers[segment + 1], next.segment == segment + 1 {
                .sealed(bytes: next.sealedBytes, checksum: next.sealedChecksum)
            } else {
                .unknown
            }
        let scan = SegmentScan(bytes, segment: segment, header: header, expecting: expecting)
        if let place = scan.damagedAt {
            damaged(name, UInt64(place), "what was durable does not verify; \(scan.records.count) records are there")
        }
        let index = try? fileSystem.readAll(path(JournalFiles.index(segment)), limit: 1 << 30)
        result.segments.append(
            JournalInspection.Segment(
                number: segment, fileBytes: UInt64(bytes.count), records: scan.records.count, end: UInt64(scan.end),
                hasIndex: index.flatMap(SegmentIndex.decode)?.segment == segment))
        for placed in scan.records { take(placed.record) }
    }

    private mutating func take(_ record: JournalRecord) {
        switch record {
        case .add(let ledger, let entry, let lac, let body):
            var known = ledgers[ledger] ?? JournalInspection.Ledger(ledger)
            // Copies of nearly empty segments are the same entry once more.
            if known.entries.insert(entry) { known.bytes += UInt64(body.count) }
            known.lastAddConfirmed = max(known.lastAddConfirmed, lac)
            ledgers[ledger] = known
        case .fence(let ledger): ledgers[ledger, default: JournalInspection.Ledger(ledger)].isFenced = true
        case .lac(let ledger, let lac):
            let known = ledgers[ledger]?.lastAddConfirmed ?? .none
            ledgers[ledger, default: JournalInspection.Ledger(ledger)].lastAddConfirmed = max(known, lac)
        case .delete(let ledger):
            if ledgers.removeValue(forKey: ledger) != nil { result.deletedLedgers += 1 }
            repaired.remove(ledger)
        case .limbo(let through):
            result.limboThrough = max(result.limboThrough ?? through, through)
            repaired = []
        case .repaired(let ledger):
            repaired.insert(ledger)
            ledgers[ledger, default: JournalInspection.Ledger(ledger)].isFenced = true
        }
    }
}
