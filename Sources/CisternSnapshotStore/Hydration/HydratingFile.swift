// A file that is read while its bytes come from a snapshot store.
//
//   read ─► chunks that are missing ─► [here] range of an object ─► written to the part file ─┐
//   hydration ─► the next piece, whole and checked ─► written to the part file ────────────────┴─► all there ─► synced, and renamed to
//                                                                                                  where the placeholder is
//
// What a read fetches is checked by whoever reads: blocks, records and footers have their checksums. A piece that hydration brings
// has the manifest's, and takes the place of what reads have fetched of it.
//
// Threading: any thread. `state` is held for no longer than a rename takes; `part` while bytes are written.

package import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

package final class HydratingFile: RandomReadFile {
    private struct State: Sendable {
        var path: String
        var chunks: ChunkSet
        /// Of the part file, and of the file itself when it is whole.
        var local: (any RandomReadFile)?
        /// The piece that hydration brings next.
        var nextPiece = 0
        var isWhole = false
        var isAbandoned = false
        /// Where the last fetch of a read ended, and how long it was: reads one behind the other fetch more and more.
        var fetched: Range<UInt64> = 0..<0
        /// Why the last fetch failed. Whoever fetches for a thread that must not wait cannot tell it.
        var failure: (error: FileError, at: ContinuousClock.Instant)?
    }

    /// For so long a failed fetch is not tried again for those who must not wait.
    private static let failureHolds = Duration.seconds(1)

    package let size: UInt64
    let placeholder: Placeholder
    let partPath: String
    private let store: any SnapshotStore
    private let base: any FileSystem
    private let counters: HydrationCounters
    private let state: Mutex<State>
    private let part: Mutex<any PositionedFile>

    /// Reads one behind the other fetch this much at once in the end.
    static let readAheadBytesMax: UInt64 = 4 << 20

    init(
        _ placeholder: Placeholder, path: String, partPath: String, part: any PositionedFile,
        store: any SnapshotStore, base: any FileSystem, counters: HydrationCounters
    ) {
        self.placeholder = placeholder
        self.partPath = partPath
        self.store = store
        self.base = base
        self.counters = counters
        self.part = Mutex(part)
        size = placeholder.file.bytes
        state = Mutex(State(path: path, chunks: ChunkSet(fileBytes: size)))
    }

    package var path: String { state.withLock { $0.path } }

    /// Bytes that are not here.
    var missingBytes: UInt64 { state.withLock { $0.isWhole ? 0 : size - $0.chunks.presentBytes } }

    // MARK: Reading

    package func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        guard offset <= size, UInt64(buffer.count) <= size - offset else {
            throw FileError(operation: "read", path: path, reason: .endOfFile)
        }
        let range = offset..<offset + UInt64(buffer.count)
        if range.isEmpty { return }
        while let missing = state.withLock({ $0.isWhole ? nil : $0.chunks.firstMissing(in: range) }) {
            if let waits = DiskWaits.ofThread {
                if let failure = recentFailure { throw failure }
                waits.note(DiskRange(file: self, offset: offset, count: buffer.count))
                throw FileError(operation: "read", path: path, reason: .wouldWait)
            }
            do throws(FileError) {
                try fetch(missing)
            } catch {
                // Without room for it the bytes are read all the same.
                if error.isOutOfSpace { return unsafe try readStore(range, into: buffer) }
                state.withLock { $0.failure = (error, .now) }
                throw error
            }
        }
        unsafe try readLocal(at: offset, into: buffer)
    }

    package func startReading(at offset: UInt64, count: Int) {
        guard count > 0, offset <= size, UInt64(count) <= size - offset else { return }
        let end = offset + UInt64(count)
        let local = state.withLock { state -> (any RandomReadFile)? in
            state.isWhole || state.chunks.firstMissing(in: offset..<end) == nil ? state.local : nil
        }
        local?.startReading(at: offset, count: count)
    }

    private var recentFailure: FileError? {
        state.withLock { state in
            guard let failure = state.failure, failure.at.duration(to: .now) < Self.failureHolds else { return nil }
            return failure.error
        }
    }

    private func readLocal(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        while true {
            let local = try state.withLock { state throws(FileError) in
                if let local = state.local { return local }
                let opened = try base.openRead(state.isWhole ? state.path : partPath)
                state.local = opened
                return opened
            }
            do throws(FileError) {
                return unsafe try local.read(at: offset, into: buffer)
            } catch {
                // The part file has become the file meanwhile, and is not there under its name any more.
                guard error.isNotFound, state.withLock({ $0.local !== local }) else { throw error }
            }
        }
    }

    private func fetch(_ missing: Range<UInt64>) throws(FileError) {
        let wanted = state.withLock { state in
            var end = missing.upperBound
            if state.fetched.upperBound == missing.lowerBound {
                let ahead = min(2 * UInt64(state.fetched.count), HydratingFile.readAheadBytesMax)
                end = min(size, max(end, missing.lowerBound + ahead))
            }
            state.fetched = missing.lowerBound..<end
            return state.fetched
        }
        try forEachPart(of: wanted) { (bytes, offset) throws(FileError) in try write(bytes, at: offset) }
        state.withLock { state in
            state.chunks.insert(wanted)
            state.failure = nil
        }
    }

    /// Past the disk.
    private func readStore(
        _ range: Range<UInt64>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(FileError) {
        try forEachPart(of: range) { (bytes, offset) throws(FileError) in
            let start = Int(offset - range.lowerBound)
            let target = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + bytes.count])
            unsafe target.copyBytes(from: bytes)
        }
    }

    /// Gives the bytes of a range, object by object.
    private func forEachPart(
        of wanted: Range<UInt64>, _ body: (_ bytes: [UInt8], _ offset: UInt64) throws(FileError) -> Void
    ) throws(FileError) {
        var start: UInt64 = 0
        for piece in placeholder.file.pieces {
            let whole = start..<start + piece.bytes
            start = whole.upperBound
            let overlap = whole.clamped(to: wanted)
            if overlap.isEmpty { continue }
            let inside = overlap.lowerBound - whole.lowerBound..<overlap.upperBound - whole.lowerBound
            let name = StoreLayout.piece(piece.name, in: placeholder.namespace)
            let bytes: [UInt8]?
            do throws(SnapshotStoreError) {
                bytes = try store.get(name, range: inside)
            } catch {
                throw FileError(operation: "read", path: path, reason: .notFetched(detail: "\(error)"))
            }
            guard let bytes, bytes.count == overlap.count else {
                throw FileError(
                    operation: "read", path: path,
                    reason: .notFetched(
                        detail: "\(name) is missing in \(store.location), or too short; restore from another snapshot"))
            }
            counters.fetched(UInt64(bytes.count))
            try body(bytes, overlap.lowerBound)
        }
    }

    /// Writes what is missing: what is there may have been checked.
    private func write(_ bytes: [UInt8], at offset: UInt64) throws(FileError) {
        let range = offset..<offset + UInt64(bytes.count)
        try part.withLock { part throws(FileError) in
            for target in state.withLock({ $0.isWhole ? [] : $0.chunks.missing(in: range) }) {
                let target = target.clamped(to: range)
                let slice = bytes[Int(target.lowerBound - offset)..<Int(target.upperBound - offset)]
                try HydratingFile.write(slice, to: part, at: target.lowerBound)
            }
        }
    }

    private static func write(
        _ bytes: ArraySlice<UInt8>, to part: any PositionedFile, at offset: UInt64
    ) throws(FileError) {
        // A closure of the standard library's would lose the typed error.
        let result = unsafe bytes.withUnsafeBytes { bytes -> Result<Void, FileError> in
            do throws(FileError) {
                unsafe try part.write(bytes, at: offset)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    // MARK: Hydration. One thread.

    var isHydrated: Bool { state.withLock { $0.nextPiece == placeholder.file.pieces.count } }

    /// Brings a piece, whatever is here of it.
    /// - Returns: its bytes.
    func hydrateNext() throws(HydrationFault) -> UInt64 {
        let number = state.withLock { $0.nextPiece }
        guard number < placeholder.file.pieces.count else { return 0 }
        let piece = placeholder.file.pieces[number]
        let offset = placeholder.file.pieces[..<number].reduce(0) { $0 + $1.bytes }
        let bytes = try store.bytes(of: piece, in: placeholder.namespace)
        do throws(FileError) {
            try part.withLock { part throws(FileError) in
                try HydratingFile.write(bytes[...], to: part, at: offset)
                // Within the lock, so that no read writes over it. A chunk that two pieces share is there when the second one is: they
                // come in order.
                state.withLock { state in
                    let start = offset / ChunkSet.chunkBytes * ChunkSet.chunkBytes
                    state.chunks.insert(start..<offset + piece.bytes)
                    state.nextPiece = number + 1
                }
            }
        } catch {
            throw .file(error)
        }
        return piece.bytes
    }

    /// All pieces are here: the file takes the place of what stands for it.
    func finish() throws(FileError) {
        try part.withLock { part throws(FileError) in
            try part.sync()
        }
        try state.withLock { state throws(FileError) in
            if state.isAbandoned || state.isWhole { return }
            try base.rename(partPath, to: state.path)
            state.isWhole = true
            state.local = nil
        }
        part.withLock { $0.close() }
    }

    func moved(to path: String) { state.withLock { $0.path = path } }

    /// The file is gone. Whoever reads it still finds what is there already.
    func abandon() {
        let hasPart = state.withLock { state in
            defer { state.isAbandoned = true }
            return !state.isWhole && !state.isAbandoned
        }
        guard hasPart else { return }
        do throws(FileError) {
            try base.remove(partPath)
        } catch {
            // The next start removes it.
            return
        }
    }

    var isAbandoned: Bool { state.withLock { $0.isAbandoned } }
}

/// Why a piece did not come.
package enum HydrationFault: Error, Sendable, CustomStringConvertible {
    case store(SnapshotStoreError)
    case file(FileError)
    case damaged(object: String, location: String, detail: String)

    package var description: String {
        switch self {
        case .store(let error): "\(error)"
        case .file(let error): "\(error)"
        case .damaged(let object, let location, let detail): "\(object) in \(location) is damaged: \(detail)"
        }
    }
}

extension SnapshotStore {
    /// A piece, checked. Blocks.
    func bytes(of piece: StoredPiece, in namespace: String) throws(HydrationFault) -> [UInt8] {
        let name = StoreLayout.piece(piece.name, in: namespace)
        let found: [UInt8]?
        do throws(SnapshotStoreError) {
            found = try get(name, limit: Int(StoredPiece.bytesMax))
        } catch {
            throw .store(error)
        }
        guard let found else { throw .damaged(object: name, location: location, detail: "the object is missing") }
        guard found.count == Int(piece.bytes) else {
            throw .damaged(
                object: name, location: location,
                detail: "it has \(found.count) bytes, and the manifest says \(piece.bytes)")
        }
        let sum = CRC32C.checksum(found)
        guard sum == piece.checksum else {
            throw .damaged(
                object: name, location: location,
                detail: "its checksum is \(sum), and the manifest says \(piece.checksum)")
        }
        return found
    }
}
