// A sorted table for people: every block in the order of the file, then the whole of it verified.

internal import CisternFileSystem
internal import CisternPrimitives

/// Expiries of the states that have some.
private func describe(_ details: TableDetails?) -> String {
    (details?.states ?? []).filter { $0.expiringCount > 0 }.map { state in
        let spans = [("", state.processing), (" event time", state.event)].filter { !$0.1.isEmpty }
        return "; state \(state.state): \(state.expiringCount) of \(state.entryCount) expire"
            + spans.map { ", \($0.1.earliest) to \($0.1.latest) ms\($0.0)" }.joined()
    }.joined()
}

func inspectTable(
    _ path: String, fileSystem: any FileSystem, visit: (InspectedPart) -> Void
) throws(EngineError) {
    let file = try asEngineError { () throws(FileError) in try fileSystem.openRead(path) }
    let table = try TableReader.open(file: file, number: 0, cache: BlockCache(capacityBytes: 0))
    let summary = table.summary
    let reader = CacheReader(table.cache)
    visit(InspectedPart(0..<UInt64(TableFormat.headerBytes), "header", "version \(summary.formatVersion)"))
    var last = UInt64(TableFormat.headerBytes)
    for partition in 0..<table.top.count {
        let row = table.top.row(partition)
        let indexHold = try table.holdIndex(partition, .stream, reader)
        defer { indexHold.release() }
        let index = IndexPartition(indexHold.frame)
        for number in 0..<index.count {
            let handle = index.handle(number)
            let block = try table.dataBlock(handle)
            visit(InspectedPart(handle.offset..<handle.end, TableBlockType.data.name, "\(block.columns.count) entries"))
        }
        if row.filter.payloadBytes > 0 {
            try table.holdFilter(partition, reader)?.release()
            visit(
                InspectedPart(row.filter.offset..<row.filter.end, TableBlockType.filter.name, "partition \(partition)"))
        }
        visit(
            InspectedPart(
                row.index.offset..<row.index.end, TableBlockType.index.name,
                "partition \(partition), \(index.count) blocks, \(row.entryCount) entries"))
        last = row.index.end
    }
    try table.verify()
    let footer = file.size - UInt64(TableFormat.footerBytes)
    visit(
        InspectedPart(
            last..<footer, "top index and properties",
            "\(table.top.count) partitions; \(summary.entryCount) entries (\(summary.deleteCount) deletes, "
                + "\(summary.appendCount) appends), key groups \(summary.keyGroups)" + describe(summary.values)
                + describe(summary.details)))
    visit(InspectedPart(footer..<file.size, "footer", "\(file.size) bytes"))
}

/// What a table points into; empty for nothing.
private func describe(_ uses: [ValueFileUse]) -> String {
    if uses.isEmpty { return "" }
    return "; points into "
        + uses.map {
            "\(DataDirectory.valueFileName($0.number)) (\($0.entryCount) values, \($0.recordBytes) of \($0.fileBytes) bytes)"
        }.joined(separator: ", ")
}
