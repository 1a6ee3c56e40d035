// A value file for people: every record in the order of the file.

internal import CisternFileSystem
internal import CisternPrimitives

func inspectValueFile(
    _ path: String, fileSystem: any FileSystem, visit: (InspectedPart) -> Void
) throws(EngineError) {
    let opened = try asEngineError { () throws(FileError) in try fileSystem.openRead(path) }
    guard opened.size >= ValueFormat.frameBytes else {
        throw tableCorruption(path, 0, "\(opened.size) bytes are too few for a value file")
    }
    let header = try TableReader.readBytes(opened, at: 0, count: ValueFormat.headerBytes)
    // Whatever the file is called by now: its number is in the checksums.
    let number = unsafe try ValueFormat.decodeHeader(UnsafeRawBufferPointer(header.bytes), path: path)
    let file = ValueFile(number: number, path: path, fileSystem: fileSystem)
    visit(
        InspectedPart(0..<UInt64(ValueFormat.headerBytes), "header", "version \(ValueFormat.version), file \(number)"))
    var records: [ValuePointer] = []
    try file.verify { records.append($0) }
    for record in records.reversed() {
        visit(
            InspectedPart(
                record.offset..<(record.offset + record.recordBytes), "value", "\(record.valueBytes) bytes"))
    }
    let footer = opened.size - UInt64(ValueFormat.footerBytes)
    visit(InspectedPart(footer..<opened.size, "footer", "\(records.count) values, \(opened.size) bytes"))
}
