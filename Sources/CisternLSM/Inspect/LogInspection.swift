// A log segment and a manifest for people. Both are a header and records; both may end in a torn record, which a crash leaves
// and which was never acknowledged.

internal import CisternPrimitives

func inspectLog(_ bytes: [UInt8], path: String, visit: (InspectedPart) -> Void) throws(EngineError) {
    let header: LogSegmentHeader
    switch unsafe bytes.withUnsafeBytes({ unsafe LogFormat.decodeHeader($0) }) {
    case .header(let found): header = found
    case .unknownVersion(let version):
        throw .unsupported(
            detail: "\(path) is a log of version \(version), and this program reads version \(LogFormat.version)")
    case .damaged(let detail): throw corruption(path, 0, detail)
    }
    visit(
        InspectedPart(
            0..<UInt64(LogFormat.headerBytes), "header",
            "tree \(header.tree), segment \(header.segment), after segment \(header.previousSegment)"))
    let reader = LogSegmentReader(path: path, tree: header.tree, segment: header.segment)
    var pending: InspectedPart?
    let end = try reader.read(SegmentWindow(copying: bytes), durableBytes: 0) { record, offset throws(EngineError) in
        if let pending { visit(InspectedPart(pending.range.lowerBound..<offset, pending.name, pending.detail)) }
        let expiring = unsafe record.columns.expiries.isEmpty ? "" : ", with expiries"
        pending = InspectedPart(
            offset..<offset, "batch",
            "epoch \(record.epoch) sequence \(record.sequence), \(record.columns.count) entries\(expiring)")
    }
    if let pending {
        visit(InspectedPart(pending.range.lowerBound..<end.validBytes, pending.name, pending.detail))
    }
    try judgeTail(bytes, from: end.validBytes, path: path, visit: visit)
}

func inspectManifest(_ bytes: [UInt8], path: String, visit: (InspectedPart) -> Void) throws(EngineError) {
    let headerEnd = ManifestFormat.headerBytes
    guard bytes.count >= headerEnd else { throw corruption(path, 0, "the header is cut short") }
    let tree = TreeID(number(bytes, at: 8))
    let manifest = number(bytes, at: 16)
    // Decoding proves everything that is shown below; its error names the damage. Parts before it are shown first.
    let outcome: Result<TreeState, EngineError>
    do throws(EngineError) {
        outcome = .success(try ManifestFormat.decode(bytes, path: path, tree: tree, number: manifest))
    } catch {
        outcome = .failure(error)
    }
    var offset = headerEnd
    if isIntactHeader(bytes) {
        visit(InspectedPart(0..<UInt64(headerEnd), "header", "\(tree), manifest \(manifest)"))
        let version = UInt16(truncatingIfNeeded: number(bytes, at: 4) & 0xFFFF)
        while let (size, detail) = manifestRecord(bytes, at: offset, version: version) {
            visit(InspectedPart(UInt64(offset)..<UInt64(offset + size), detail.name, detail.text))
            offset += size
        }
    }
    _ = try outcome.get()
    try judgeTail(bytes, from: UInt64(offset), path: path, visit: visit)
}

/// What follows the last intact record. One that is cut short is what a crash leaves; one that is there in full and does not
/// match its checksum is damage, or a tail whose bytes did not all reach the disk: it is reported, to be on the safe side.
private func judgeTail(
    _ bytes: [UInt8], from start: UInt64, path: String, visit: (InspectedPart) -> Void
) throws(EngineError) {
    let rest = bytes.count - Int(start)
    if rest == 0 { return }
    let announced = rest >= 8 ? Int(truncatingIfNeeded: number(bytes, at: Int(start)) & 0xFFFF_FFFF) + 8 : Int.max
    guard announced > rest else {
        throw corruption(
            path, start,
            "the checksum of a whole record does not match; if the server was stopped by a power cut it may be a torn tail, "
                + "which opening the tree cuts off")
    }
    visit(InspectedPart(start..<UInt64(bytes.count), "torn tail", "\(rest) bytes that were never acknowledged"))
}

private func isIntactHeader(_ bytes: [UInt8]) -> Bool {
    CRC32C.checksum(Array(bytes[..<28])) == UInt32(truncatingIfNeeded: number(bytes, at: 28) & 0xFFFF_FFFF)
}

/// Size and description of the record at `offset`, nil when no intact one starts there.
private func manifestRecord(
    _ bytes: [UInt8], at offset: Int, version: UInt16
) -> (size: Int, detail: (name: String, text: String))? {
    guard bytes.count - offset >= 17 else { return nil }
    let length = Int(number(bytes, at: offset) & 0xFFFF_FFFF)
    let sum = UInt32(number(bytes, at: offset + 4) & 0xFFFF_FFFF)
    guard length >= 9, length <= bytes.count - offset - 8 else { return nil }
    let body = Array(bytes[(offset + 8)..<(offset + 8 + length)])
    guard CRC32C.checksum(body, seed: CRC32C.checksum(Array(bytes[offset..<(offset + 4)]))) == sum else { return nil }
    return (length + 8, unsafe body.withUnsafeBytes { unsafe describeRecord($0, version) })
}

private func describeRecord(_ body: UnsafeRawBufferPointer, _ version: UInt16) -> (name: String, text: String) {
    var reader = unsafe ByteReader(body)
    guard reader.skip(8), let kind = reader.readUInt8() else { return ("record", "short") }
    if kind == ManifestFormat.stateKind, let state = TreeState.decode(&reader, version: version) {
        return (
            "state",
            "store \"\(state.identity.store)\" key groups \(state.identity.keyGroups) of \(state.identity.keyGroupCount), "
                + "epoch \(state.epoch) writer \"\(state.writer)\", flushed to sequence \(state.flushed.sequence), "
                + describe(state.levels) + describe(state.logs) + describe(state.expiryRules)
        )
    }
    if kind == ManifestFormat.editKind, let edit = VersionEdit.decode(&reader) {
        var parts: [String] = []
        if let session = edit.session { parts.append("epoch \(session.epoch) writer \"\(session.writer)\"") }
        if let flushed = edit.flushed { parts.append("flushed to epoch \(flushed.epoch) sequence \(flushed.sequence)") }
        if let segment = edit.firstSegment { parts.append("log from segment \(segment)") }
        if edit.dropsLogs { parts.append("logs of other trees flushed") }
        if let rules = edit.expiryRules { parts.append("times to live" + describe(rules)) }
        parts += edit.removed.map { "- \($0.file.number) of level \($0.level)" }
        parts += edit.added.map { "+ \($0.file.number) [\($0.file.window)] to level \($0.level)" }
        return ("edit", parts.joined(separator: ", "))
    }
    return ("record", "of kind \(kind), which cannot be read")
}

/// Up to eight little-endian bytes at `offset`; what is beyond the end counts as zero.
private func number(_ bytes: [UInt8], at offset: Int) -> UInt64 {
    bytes[min(offset, bytes.count)...].prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
}
