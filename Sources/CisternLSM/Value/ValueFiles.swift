// Value files as their readers see them: opened at their first use, shared by all sorted files that point into them. Whether
// a file lives is not decided here but where sorted files are owned (`TableDirectory`): who holds a sorted file may read
// what it points to.
//
// Any thread. Values are read around the block cache: see docs/decisions/0090.

package import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

/// An open value file.
package final class ValueFile: Sendable {
    private struct Opened: Sendable {
        let file: any RandomReadFile
        let records: UInt64
    }

    let number: UInt64
    let path: String
    private let fileSystem: any FileSystem
    private let opened = Mutex<Opened?>(nil)

    package init(number: UInt64, path: String, fileSystem: any FileSystem) {
        self.number = number
        self.path = path
        self.fileSystem = fileSystem
    }

    /// Appends a value to `output`.
    /// - Parameter hash: of the key it must be of.
    /// - Throws: `corruption` unless the record is what was written for the key; `file`. Then `output` is as before.
    func read(_ pointer: ValuePointer, hash: UInt64, into output: inout GrowingBuffer) throws(EngineError) {
        let start = output.count
        try read(at: pointer.offset, count: Int(pointer.recordBytes), into: &output)
        if let fault = unsafe ValueFormat.fault(of: output.base + start, pointer, hash: hash) {
            output.truncate(to: start)
            throw tableCorruption(path, pointer.offset, fault)
        }
        output.truncate(to: start + Int(pointer.valueBytes))
    }

    /// Appends bytes of records, which the caller checks.
    /// - Throws: `corruption` when no record of the file can be there; `file`. Then `output` is as before.
    func read(at offset: UInt64, count: Int, into output: inout GrowingBuffer) throws(EngineError) {
        let file = try open().file
        let end = file.size - UInt64(ValueFormat.footerBytes)
        guard offset >= UInt64(ValueFormat.headerBytes), offset <= end, UInt64(count) <= end - offset else {
            throw tableCorruption(path, offset, "a record of \(count) bytes would not end within the file")
        }
        let start = output.count
        let target = unsafe UnsafeMutableRawBufferPointer(start: output.extend(by: count), count: count)
        do { unsafe try file.read(at: offset, into: target) } catch {
            output.truncate(to: start)
            throw .file(error)
        }
    }

    private func open() throws(EngineError) -> Opened {
        if let known = opened.withLock({ $0 }) { return known }
        let file = try asEngineError { () throws(FileError) in try fileSystem.openRead(path) }
        guard file.size >= ValueFormat.frameBytes else {
            throw tableCorruption(path, 0, "\(file.size) bytes are too few for a value file")
        }
        let header = try TableReader.readBytes(file, at: 0, count: ValueFormat.headerBytes)
        let found = unsafe try ValueFormat.decodeHeader(UnsafeRawBufferPointer(header.bytes), path: path)
        guard found == number else {
            throw tableCorruption(path, 16, "the header says file \(found): this file was exchanged")
        }
        let footerStart = file.size - UInt64(ValueFormat.footerBytes)
        let tail = try TableReader.readBytes(file, at: footerStart, count: ValueFormat.footerBytes)
        let records = unsafe try ValueFormat.decodeFooter(
            UnsafeRawBufferPointer(tail.bytes), path: path, fileBytes: file.size)
        let made = Opened(file: file, records: records)
        return opened.withLock { known in
            if let known { return known }
            known = made
            return made
        }
    }

    // MARK: The whole file

    func byteCount() throws(EngineError) -> UInt64 { try open().file.size }

    /// Visits every record, checked, from the last to the first: a record's size stands at its end.
    /// - Throws: `corruption` at the first that is not as it should be.
    package func verify(visit: (ValuePointer) -> Void = { _ in }) throws(EngineError) {
        let opened = try open()
        var end = opened.file.size - UInt64(ValueFormat.footerBytes)
        var records: UInt64 = 0
        var buffer = GrowingBuffer()
        while end > UInt64(ValueFormat.headerBytes) {
            let room = end - UInt64(ValueFormat.headerBytes)
            guard room >= UInt64(ValueFormat.trailerBytes) else {
                throw tableCorruption(path, UInt64(ValueFormat.headerBytes), "\(room) bytes are no record")
            }
            let trailer = try TableReader.readBytes(
                opened.file, at: end - UInt64(ValueFormat.trailerBytes), count: ValueFormat.trailerBytes)
            let size = unsafe UInt32(littleEndian: trailer.bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
            guard UInt64(size) <= room - UInt64(ValueFormat.trailerBytes) else {
                throw tableCorruption(
                    path, end - UInt64(ValueFormat.trailerBytes), "a value of \(size) bytes begins before the first")
            }
            let start = end - UInt64(ValueFormat.trailerBytes) - UInt64(size)
            let pointer = ValuePointer(file: number, offset: start, valueBytes: size)
            buffer.reset()
            let count = Int(pointer.recordBytes)
            let target = unsafe UnsafeMutableRawBufferPointer(start: buffer.extend(by: count), count: count)
            do { unsafe try opened.file.read(at: start, into: target) } catch { throw .file(error) }
            if let fault = unsafe ValueFormat.fault(of: buffer.base, pointer, hash: nil) {
                throw tableCorruption(path, start, fault)
            }
            visit(pointer)
            records += 1
            end = start
        }
        guard records == opened.records else {
            throw tableCorruption(
                path, opened.file.size - UInt64(ValueFormat.footerBytes),
                "the file has \(records) records, the footer says \(opened.records)")
        }
    }
}

/// The value files of a data directory.
package final class ValueFiles: Sendable {
    private let directory: String
    private let fileSystem: any FileSystem
    private let files = Mutex<[UInt64: ValueFile]>([:])

    init(directory: String, fileSystem: any FileSystem) {
        self.directory = directory
        self.fileSystem = fileSystem
    }

    func path(_ number: UInt64) -> String { directory + "/" + DataDirectory.valueFileName(number) }

    func file(_ number: UInt64) -> ValueFile {
        files.withLock { files in
            if let known = files[number] { return known }
            let made = ValueFile(number: number, path: path(number), fileSystem: fileSystem)
            files[number] = made
            return made
        }
    }

    /// Appends the value that the entry points to.
    /// - Parameters:
    ///   - hash: `Hash64` of the entry's key.
    ///   - path: of the sorted file that has the entry.
    func read(
        _ entry: EntryView, hash: UInt64, of path: String, into output: inout GrowingBuffer
    ) throws(EngineError) {
        guard let pointer = unsafe ValuePointer(entry.value) else {
            throw tableCorruption(path, 0, "an entry is said to point to its value, and does not")
        }
        try file(pointer.file).read(pointer, hash: hash, into: &output)
    }

    /// The files are gone, or will be.
    func forget(_ numbers: [UInt64]) {
        files.withLock { files in for number in numbers { files[number] = nil } }
    }
}
