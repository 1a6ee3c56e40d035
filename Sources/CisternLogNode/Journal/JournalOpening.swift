// Opens a journal: what it holds is told in the order in which it was written, and whether all of it is there.
//
//   deleted ledgers ─► segments in order: by their index where it is whole, by a scan where not ─► a new segment begins
//
// A start always begins a new segment: what a crash left behind the end of the last one is never looked at again.

package import CisternFileSystem
package import CisternLogProtocol
package import CisternPrimitives

/// What was found in a directory.
struct FoundJournal {
    var index = EntryIndex()
    /// Of segments that have no index of their own yet.
    var items: [UInt64: [SegmentIndex.Item]] = [:]
    var held: [UInt64: [LedgerID: Int]] = [:]
    var pinned: Set<UInt64> = []
    var sealed: [UInt64: (bytes: UInt64, checksum: UInt32)] = [:]
    var lastSegment: UInt64 = 0
    var lastBytes: UInt64 = 0
    var lastChecksum: UInt32 = 0
    /// What did not verify; empty when all is there.
    var damage: [CorruptionError] = []
}

extension Journal {
    /// Opens the journal of a directory, which the owner has locked. Blocks.
    /// - Parameters:
    ///   - replay: is given every record that was durable, in order; bodies are empty.
    ///   - ownerLane: where everything of the journal runs from here on, and this does not.
    /// - Returns: the journal, and what does not verify: then entries, fences and deletes may be missing that were durable.
    package static func open(
        _ options: JournalOptions, fileSystem: any FileSystem, lanes: JournalLanes, ownerLane: any BackgroundLane,
        replay: (JournalRecord) -> Void
    ) throws(JournalError) -> (journal: Journal, damage: [CorruptionError]) {
        var opening = JournalOpening(options: options, fileSystem: fileSystem)
        do throws(FileError) {
            try opening.look()
            try opening.readDeleted(replay)
        } catch {
            throw .file(error)
        }
        for segment in opening.segments { try opening.read(segment, replay) }
        do throws(FileError) { try opening.cutLast() } catch { throw .file(error) }
        let stock = SegmentStock(options, fileSystem, spares: opening.spares)
        let journal = Journal(
            options: options, fileSystem: fileSystem, lanes: lanes, ownerLane: ownerLane, stock: stock,
            found: opening.found)
        return (journal, opening.found.damage)
    }
}

private struct JournalOpening {
    let options: JournalOptions
    let fileSystem: any FileSystem
    var found = FoundJournal()
    var segments: [UInt64] = []
    var spares: [UInt64] = []
    private var headers: [UInt64: SegmentHeader] = [:]
    private var indexes: Set<UInt64> = []

    init(options: JournalOptions, fileSystem: any FileSystem) {
        self.options = options
        self.fileSystem = fileSystem
    }

    private func path(_ name: String) -> String { options.directory + "/" + name }

    mutating func look() throws(FileError) {
        for name in try fileSystem.list(options.directory).sorted() {
            if name.hasSuffix(AtomicFile.temporarySuffix) {
                try fileSystem.removeIfPresent(path(name))
            } else if let number = JournalFiles.number(name, prefix: "journal-", suffix: ".seg") {
                segments.append(number)
                headers[number] = try SegmentHeader.read(path(name), fileSystem)
            } else if let number = JournalFiles.number(name, prefix: "journal-", suffix: ".idx") {
                indexes.insert(number)
            } else if let number = JournalFiles.number(name, prefix: "spare-", suffix: ".seg") {
                if try fileSystem.size(path(name)) == UInt64(options.segmentBytes) {
                    spares.append(number)
                } else {
                    try fileSystem.removeIfPresent(path(name))
                }
            }
        }
        segments.sort()
        // A segment whose header never became durable was not begun: nobody was told of anything in it.
        if let last = segments.last, headers[last]?.segment != last {
            if !wasBegun(last) {
                try fileSystem.removeIfPresent(path(JournalFiles.segment(last)))
                segments.removeLast()
            }
        }
    }

    /// Whether anything behind the header of a segment that has none was durable.
    private func wasBegun(_ segment: UInt64) -> Bool {
        guard let bytes = try? fileSystem.readAll(path(JournalFiles.segment(segment)), limit: Int.max) else {
            return true
        }
        return SegmentScan(bytes, segment: segment, header: nil, expecting: .open).damagedAt != nil
    }

    mutating func readDeleted(_ replay: (JournalRecord) -> Void) throws(FileError) {
        let path = path(JournalFiles.deleted)
        guard try fileSystem.exists(path) else { return }
        let bytes = try fileSystem.readAll(path, limit: 1 << 30)
        guard let deleted = DeletedLedgers.decode(bytes) else {
            found.damage.append(
                CorruptionError(source: path, offset: 0, detail: "the list of deleted ledgers has a wrong checksum"))
            return
        }
        for run in deleted.runs {
            for ledger in run.lowerBound.rawValue...run.upperBound.rawValue { replay(.delete(LedgerID(ledger))) }
        }
    }

    mutating func read(_ segment: UInt64, _ replay: (JournalRecord) -> Void) throws(JournalError) {
        let name = path(JournalFiles.segment(segment))
        let header = headers[segment].flatMap { $0.segment == segment ? $0 : nil }
        if let header, header.node != options.node || header.cluster != options.cluster {
            throw .foreign(
                directory: options.directory,
                detail: "\(name) is of \(header.node) in cluster \(header.cluster), expected was \(options.node) in "
                    + "\(options.cluster)")
        }
        let isLast = segment == segments.last
        let summary: SegmentIndex
        if !isLast, let stored = index(segment) {
            summary = stored
        } else {
            summary = try scan(segment, name, header, isLast: isLast)
            found.items[segment] = summary.items
        }
        found.sealed[segment] = (summary.bytes, summary.checksum)
        found.lastSegment = segment
        found.lastBytes = summary.bytes
        found.lastChecksum = summary.checksum
        var held: [LedgerID: Int] = [:]
        for item in summary.items {
            replay(item.record)
            switch item.record {
            case .add(let ledger, let entry, _, _):
                let place = EntryPlace(segment: segment, offset: Int(item.offset), length: Int(item.length))
                found.index.insert(ledger, entry, place)
            case .delete(let ledger):
                found.index.remove(ledger)
                held[ledger] = nil
                for earlier in found.held.keys { found.held[earlier]?[ledger] = nil }
            case .limbo: found.pinned.insert(segment)
            case .fence, .lac, .repaired: break
            }
            if let ledger = item.record.contents { held[ledger, default: 0] += Int(item.length) }
        }
        found.held[segment] = held
    }

    private func index(_ segment: UInt64) -> SegmentIndex? {
        guard indexes.contains(segment),
            let bytes = try? fileSystem.readAll(path(JournalFiles.index(segment)), limit: 1 << 30),
            let index = SegmentIndex.decode(bytes), index.segment == segment
        else { return nil }
        return index
    }

    private mutating func scan(
        _ segment: UInt64, _ name: String, _ header: SegmentHeader?, isLast: Bool
    ) throws(JournalError) -> SegmentIndex {
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try fileSystem.readAll(name, limit: Int(UInt32.max))
        } catch {
            throw .file(error)
        }
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
            found.damage.append(
                CorruptionError(
                    source: name, offset: UInt64(place),
                    detail: "what was durable does not verify; \(scan.records.count) records are there"))
        }
        let items = scan.records.map { placed -> SegmentIndex.Item in
            var record = placed.record
            if case .add(let ledger, let entry, let lac, _) = record {
                record = .add(ledger, entry, lac: lac, body: [])
            }
            return SegmentIndex.Item(record: record, offset: UInt32(placed.offset), length: UInt32(placed.length))
        }
        return SegmentIndex(segment: segment, bytes: UInt64(scan.end), checksum: scan.checksum, items: items)
    }

    /// Gives back what the last segment did not use. The next segment's header says where it ends.
    func cutLast() throws(FileError) {
        guard let last = segments.last, found.lastSegment == last else { return }
        let name = path(JournalFiles.segment(last))
        if try fileSystem.size(name) > found.lastBytes { try fileSystem.truncate(name, to: found.lastBytes) }
    }
}

extension SegmentHeader {
    /// That of a segment's file; nil when it is damaged or was never whole.
    static func read(_ path: String, _ fileSystem: any FileSystem) throws(FileError) -> SegmentHeader? {
        let file = try fileSystem.openRead(path)
        guard file.size >= UInt64(JournalFormat.headerBytes) else { return nil }
        var bytes = [UInt8](repeating: 0, count: JournalFormat.headerBytes)
        let outcome: Result<Void, FileError> = unsafe bytes.withUnsafeMutableBytes { raw in
            do throws(FileError) {
                unsafe try file.read(at: 0, into: raw)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try outcome.get()
        return SegmentHeader.decode(bytes)
    }
}
