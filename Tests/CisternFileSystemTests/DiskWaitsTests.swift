import CisternFileSystem
import Glibc
import Testing

private func read(_ file: any RandomReadFile, at offset: UInt64, count: Int) throws(FileError) -> [UInt8] {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
    defer { buffer.deallocate() }
    try file.read(at: offset, into: buffer)
    return Array(buffer)
}

private func append(_ bytes: [UInt8], to file: any AppendFile) throws(FileError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
    defer { buffer.deallocate() }
    buffer.copyBytes(from: bytes)
    try file.append(UnsafeRawBufferPointer(buffer))
}

@Suite struct DiskWaitsTests {
    @Test func whatIsOnTheDiskOnlyIsToldAndIsThereWhenItWasLoaded() throws {
        // Beside the test's program, where the file system is one of a disk more likely than in a folder for temporary files.
        let path = (CommandLine.arguments.first ?? ".") + ".\(getpid()).waits"
        let fileSystem = PosixFileSystem()
        let content = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 4) }
        let written = try fileSystem.createAppend(path)
        try append(content, to: written)
        try written.sync()
        written.close()
        defer { try? fileSystem.remove(path) }
        let descriptor = open(path, O_RDONLY)
        #expect(posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0)
        close(descriptor)

        let file = try fileSystem.openRead(path)
        let waits = DiskWaits()
        var found: [UInt8]?
        do throws(FileError) {
            try waits.collect { () throws(FileError) in found = try read(file, at: 500_000, count: 20_000) }
        } catch {
            #expect(error.wouldWait)
            #expect(error.description.contains(path))
        }
        // Where the file system cannot tell, the read waited.
        if found == nil {
            let ranges = waits.take()
            #expect(ranges.count == 1)
            #expect(ranges.allSatisfy { $0.offset >= 500_000 && $0.offset + UInt64($0.count) == 520_000 })
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: DiskRange.loadBytes, alignment: 16)
            defer { buffer.deallocate() }
            for range in ranges { range.load(ahead: 1 << 30, buffer: buffer) }
            try waits.collect { () throws(FileError) in found = try read(file, at: 500_000, count: 20_000) }
        }
        #expect(found == Array(content[500_000..<520_000]))
        #expect(waits.ranges.isEmpty)
    }

    @Test func theEndOfAFileIsToldWithoutWaiting() throws {
        let path = (CommandLine.arguments.first ?? ".") + ".\(getpid()).end"
        let fileSystem = PosixFileSystem()
        let written = try fileSystem.createAppend(path)
        try append([UInt8](repeating: 7, count: 100), to: written)
        written.close()
        defer { try? fileSystem.remove(path) }
        let file = try fileSystem.openRead(path)
        #expect(throws: FileError(operation: "read", path: path, reason: .endOfFile)) {
            try DiskWaits().collect { () throws(FileError) in _ = try read(file, at: 90, count: 20) }
        }
    }

    @Test func onlyTheReadsWithinACollectionDoNotWait() throws {
        let outer = DiskWaits()
        let inner = DiskWaits()
        #expect(DiskWaits.ofThread == nil)
        outer.collect {
            inner.collect { #expect(DiskWaits.ofThread === inner) }
            #expect(DiskWaits.ofThread === outer)
        }
        #expect(DiskWaits.ofThread == nil)
    }
}
