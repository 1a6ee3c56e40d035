// Which pieces of files a namespace of the snapshot store has, and who needs them. Pure: values in, names of what nobody needs out.
//
// A piece is held by every manifest that names it and by the upload that puts it. A file's known pieces are a front of it, so a log
// segment that grew since the last snapshot is continued, and nothing is put twice.

internal import CisternLSM
internal import CisternSnapshotStore

struct UploadLedger: Sendable {
    /// A file of the data directory: its numbers are used once in a process, and not at all by another file as long as a snapshot of
    /// the directory refers to it.
    struct FileKey: Hashable {
        let kind: UInt8
        let tree: UInt64
        let number: UInt64

        init(_ file: SnapshotFile) {
            kind = file.kind.rawValue
            tree = file.tree
            number = file.number
        }

        init(_ file: StoredFile) {
            kind = file.kind
            tree = file.tree
            number = file.number
        }
    }

    private struct Held {
        var count: Int
        /// nil for pieces that new uploads must not use.
        let file: FileKey?
    }

    private var known: [FileKey: [StoredPiece]] = [:]
    private var held: [String: Held] = [:]
    private var stored: [String: [StoredFile]] = [:]

    var handles: some Collection<String> { stored.keys }
    var pieceNames: some Collection<String> { held.keys }

    func isStored(_ handle: String) -> Bool { stored[handle] != nil }

    /// The pieces that a front of the file is made of: as many as are known and end within what is meant.
    func front(of file: SnapshotFile) -> [StoredPiece] {
        var pieces: [StoredPiece] = []
        var bytes: UInt64 = 0
        for piece in known[FileKey(file)] ?? [] {
            bytes += piece.bytes
            if bytes > file.bytes { break }
            pieces.append(piece)
        }
        return pieces
    }

    /// Holds pieces of a file, one behind the other from its first byte on. New ones become known where they continue what is known.
    /// - Parameter isShared: false: uploads do not use them, because the file is not one of the directory.
    mutating func hold(_ pieces: [StoredPiece], of key: FileKey, isShared: Bool = true) {
        let front = known[key] ?? []
        if isShared, pieces.count > front.count, Array(pieces.prefix(front.count)) == front { known[key] = pieces }
        for piece in pieces { held[piece.name, default: Held(count: 0, file: isShared ? key : nil)].count += 1 }
    }

    /// Holds one more piece, behind those that are held for the file already.
    mutating func hold(_ piece: StoredPiece, behind pieces: [StoredPiece], of key: FileKey) {
        if known[key] ?? [] == pieces { known[key] = pieces + [piece] }
        held[piece.name, default: Held(count: 0, file: key)].count += 1
    }

    /// - Returns: pieces that nobody holds any more.
    mutating func release(_ pieces: some Sequence<StoredPiece>) -> [String] {
        var dead: [String] = []
        for piece in pieces {
            guard var entry = held[piece.name] else { continue }
            entry.count -= 1
            held[piece.name] = entry.count == 0 ? nil : entry
            guard entry.count == 0 else { continue }
            dead.append(piece.name)
            // What is behind it cannot be used without it.
            if let file = entry.file, let index = known[file]?.firstIndex(of: piece) {
                known[file]?.removeSubrange(index...)
                if known[file]?.isEmpty == true { known[file] = nil }
            }
        }
        return dead
    }

    /// The manifest is in the store. What it names is held already.
    mutating func add(_ handle: String, _ files: [StoredFile]) { stored[handle] = files }

    /// The manifest is on its way out.
    /// - Returns: pieces that nobody holds any more; nil when there is no such manifest.
    mutating func remove(_ handle: String) -> [String]? {
        guard let files = stored.removeValue(forKey: handle) else { return nil }
        return release(files.flatMap(\.pieces))
    }
}
