// The files of segments: prepared ahead, taken into use, given back. A file that is prepared has been written with zeros once: a
// write into it then changes no metadata of the file system, which halves the time of a sync.

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

/// Any thread.
final class SegmentStock: Sendable {
    private let options: JournalOptions
    private let fileSystem: any FileSystem
    private let state: Mutex<State>

    private struct State: Sendable {
        var spares: [UInt64]
        var next: UInt64
    }

    init(_ options: JournalOptions, _ fileSystem: any FileSystem, spares: [UInt64]) {
        self.options = options
        self.fileSystem = fileSystem
        state = Mutex(State(spares: spares, next: (spares.max() ?? 0) + 1))
    }

    var count: Int { state.withLock { $0.spares.count } }

    /// Prepares one more; blocks for as long as writing a segment takes.
    func prepare() throws(FileError) {
        let number = state.withLock { state in
            defer { state.next += 1 }
            return state.next
        }
        let path = options.directory + "/" + JournalFiles.spare(number)
        let temporary = path + AtomicFile.temporarySuffix
        try fileSystem.removeIfPresent(temporary)
        do throws(FileError) {
            let file = try fileSystem.createAppend(temporary)
            defer { file.close() }
            let zeros = [UInt8](repeating: 0, count: min(options.segmentBytes, 1 << 20))
            var written = 0
            while written < options.segmentBytes {
                try file.append(Array(zeros[..<min(zeros.count, options.segmentBytes - written)]))
                written += zeros.count
            }
            try file.sync()
            try fileSystem.rename(temporary, to: path)
        } catch {
            // On a full disk every attempt would take a little more of it.
            fileSystem.removeLeftover(temporary)
            throw error
        }
        state.withLock { $0.spares.append(number) }
    }

    /// Makes a prepared file the segment's; its name is durable when this returns.
    func take(for segment: UInt64) throws(FileError) -> any PositionedFile {
        var spare = state.withLock { $0.spares.popLast() }
        if spare == nil {
            try prepare()
            spare = state.withLock { $0.spares.popLast() }
        }
        guard let spare else { preconditionFailure("a segment was prepared and is not there") }
        let path = options.directory + "/" + JournalFiles.segment(segment)
        try fileSystem.rename(options.directory + "/" + JournalFiles.spare(spare), to: path)
        try fileSystem.syncDirectory(options.directory)
        return try fileSystem.openWrite(path)
    }

    /// A segment's file is not needed any more: prepared for the next one, or removed.
    func giveBack(_ segment: UInt64) throws(FileError) {
        let path = options.directory + "/" + JournalFiles.segment(segment)
        try fileSystem.removeIfPresent(options.directory + "/" + JournalFiles.index(segment))
        guard count < max(options.spareSegments, options.keptSegments),
            try fileSystem.size(path) == UInt64(options.segmentBytes)
        else {
            return try fileSystem.removeIfPresent(path)
        }
        let number = state.withLock { state in
            defer { state.next += 1 }
            return state.next
        }
        try fileSystem.rename(path, to: options.directory + "/" + JournalFiles.spare(number))
        // The name is gone before the file is written by another: a reader of the old name finds nothing.
        try fileSystem.syncDirectory(options.directory)
        state.withLock { $0.spares.append(number) }
    }
}
