// Writes a value file: values are gathered and appended in large pieces. After an error the writer and its file are useless.
// Owned by the job that writes the sorted file.

package import CisternFileSystem
internal import CisternPrimitives

package final class ValueWriter {
    private static let appendBytes = 256 << 10
    private static let writebackBytes: UInt64 = 4 << 20

    private let file: any AppendFile
    private var use: ValueFileUse
    private var output = GrowingBuffer()
    /// Offset in the file of the first byte of `output`.
    private var outputStart: UInt64 = 0
    private var writebackStart: UInt64 = 0

    package init(_ file: any AppendFile, number: UInt64) {
        self.file = file
        use = ValueFileUse(number: number, fileBytes: 0)
        output.append(ValueFormat.header(number: number))
    }

    /// Of what was added so far.
    var fileBytes: UInt64 { outputStart + UInt64(output.count) }

    package func add(_ value: UnsafeRawBufferPointer, hash: UInt64) throws(EngineError) -> ValuePointer {
        let pointer = ValuePointer(file: use.number, offset: fileBytes, valueBytes: UInt32(value.count))
        unsafe ValueFormat.append(value, hash: hash, at: pointer.offset, file: use.number, to: &output)
        use.count(pointer)
        if output.count >= ValueWriter.appendBytes { try flush() }
        return pointer
    }

    private func flush() throws(EngineError) {
        do { unsafe try file.append(output.bytes) } catch { throw .file(error) }
        outputStart += UInt64(output.count)
        output.reset()
        if outputStart - writebackStart >= ValueWriter.writebackBytes {
            file.startWriteback()
            writebackStart = outputStart
        }
    }

    /// Syncs and closes the file.
    package func finish() throws(EngineError) -> ValueFileUse {
        defer { file.close() }
        let size = fileBytes + UInt64(ValueFormat.footerBytes)
        output.append(ValueFormat.footer(records: use.entryCount, fileBytes: size))
        try flush()
        do { try file.sync() } catch { throw .file(error) }
        return ValueFileUse(
            number: use.number, fileBytes: size, entryCount: use.entryCount, recordBytes: use.recordBytes)
    }

    func abandon() { file.close() }
}
