// Reads bodies back. Entries that lie close to each other come with one read; each record's checksum is checked.

internal import CisternFileSystem
internal import CisternLogProtocol
internal import CisternPrimitives

/// One entry to read: its place as the index has it.
struct WantedEntry: Sendable {
    let ledger: LedgerID
    let entry: EntryID
    /// nil: the index has no place, which is a failure too.
    let place: EntryPlace?
}

struct JournalReadResult: Sendable {
    var reads: [JournalRead] = []
    /// Entries whose bytes are there and wrong, also when they are read once more.
    var damaged: [EntryID] = []
}

/// `@unchecked Sendable`: its variable is the reader lane's.
@safe final class JournalReader: @unchecked Sendable {
    private let directory: String
    private let fileSystem: any FileSystem
    private var files: [UInt64: any RandomReadFile] = [:]

    /// Bytes of one read.
    private static let spanBytesMax = 1 << 20
    /// What lies between two entries is read along up to this.
    private static let gapBytesMax = 4096

    init(directory: String, fileSystem: any FileSystem) {
        self.directory = directory
        self.fileSystem = fileSystem
    }

    /// Reader lane. Stops before the entry with which the bodies exceed `bytesMax`, but not before the first.
    func read(_ wanted: [WantedEntry], bytesMax: Int) -> JournalReadResult {
        var result = JournalReadResult()
        var bytes = 0
        var next = 0
        while next < wanted.count {
            let count = spanCount(wanted[next...])
            let bodies = readSpan(wanted[next..<next + count])
            for (item, body) in zip(wanted[next..<next + count], bodies) {
                bytes += body.body?.count ?? 0
                if bytes > bytesMax && !result.reads.isEmpty { return result }
                if let body = body.body { result.reads.append(.body(body)) } else { result.reads.append(.failed) }
                if body.isDamaged { result.damaged.append(item.entry) }
            }
            next += count
        }
        return result
    }

    /// Segments that are gone; their files are closed.
    func forget(_ segments: [UInt64]) { for segment in segments { files[segment] = nil } }

    private func spanCount(_ wanted: ArraySlice<WantedEntry>) -> Int {
        guard let first = wanted.first?.place else { return 1 }
        var count = 1
        var end = first.offset + first.length
        for item in wanted.dropFirst() {
            guard let place = item.place, place.segment == first.segment, place.offset >= end,
                place.offset - end <= JournalReader.gapBytesMax,
                place.offset + place.length - first.offset <= JournalReader.spanBytesMax
            else { break }
            end = place.offset + place.length
            count += 1
        }
        return count
    }

    private func readSpan(_ wanted: ArraySlice<WantedEntry>) -> [(body: [UInt8]?, isDamaged: Bool)] {
        guard let first = wanted.first?.place, let last = wanted.last?.place else { return [(nil, false)] }
        let count = last.offset + last.length - first.offset
        guard let bytes = bytes(first.segment, first.offset, count) else { return wanted.map { _ in (nil, false) } }
        return wanted.map { item in
            guard let place = item.place else { return (nil, false) }
            let start = place.offset - first.offset
            if let body = body(of: item, bytes[start..<start + place.length], place.segment) { return (body, false) }
            // Once more: the disk's word against the memory's.
            guard let again = self.bytes(place.segment, place.offset, place.length) else { return (nil, false) }
            guard let body = body(of: item, again[...], place.segment) else { return (nil, true) }
            return (body, false)
        }
    }

    private func bytes(_ segment: UInt64, _ offset: Int, _ count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        do {
            let file = try file(segment)
            try unsafe bytes.withUnsafeMutableBytes { raw in try unsafe file.read(at: UInt64(offset), into: raw) }
            return bytes
        } catch {
            files[segment] = nil
            return nil
        }
    }

    private func file(_ segment: UInt64) throws -> any RandomReadFile {
        if let file = files[segment] { return file }
        let file = try fileSystem.openRead(directory + "/" + JournalFiles.segment(segment))
        files[segment] = file
        return file
    }

    private func body(of item: WantedEntry, _ bytes: ArraySlice<UInt8>, _ segment: UInt64) -> [UInt8]? {
        unsafe bytes.withUnsafeBytes { raw in
            guard let found = unsafe RecordDecoder.decode(raw, segment: segment),
                case .record(.add(let ledger, let entry, _, let body)) = found.content,
                ledger == item.ledger, entry == item.entry
            else { return nil }
            return body
        }
    }
}
