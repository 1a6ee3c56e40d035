// Writes batches: the lane that waits for the disk. While it syncs, the next batch is built elsewhere, so batches grow with the load and no
// timer is needed.

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

/// Bytes for one place of one segment.
struct JournalChunk: Sendable {
    let segment: UInt64
    let offset: Int
    var bytes: [UInt8]
}

/// `@unchecked Sendable`: its variables are the writer lane's.
@safe final class JournalWriter: @unchecked Sendable {
    private let stock: SegmentStock
    private var file: (any PositionedFile)?
    private var segment: UInt64

    /// - Parameter segment: the one before the first that is written.
    init(stock: SegmentStock, after segment: UInt64) {
        self.stock = stock
        self.segment = segment
    }

    /// Writer lane. What a chunk's segment follows on is durable before its header is written.
    func write(_ chunks: [JournalChunk], sync: Bool) throws(FileError) {
        for chunk in chunks {
            if chunk.segment != segment {
                try file?.sync()
                file?.close()
                file = try stock.take(for: chunk.segment)
                segment = chunk.segment
            }
            try write(chunk)
        }
        if sync { try file?.sync() }
    }

    private func write(_ chunk: JournalChunk) throws(FileError) {
        guard let file else { preconditionFailure("segment \(chunk.segment) is written and not open") }
        // A closure of the standard library's `with…` functions would lose the typed error, hence the result value.
        let outcome: Result<Void, FileError> = unsafe chunk.bytes.withUnsafeBytes { raw in
            do throws(FileError) {
                unsafe try file.write(raw, at: UInt64(chunk.offset))
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try outcome.get()
    }

    func close() { file?.close() }
}
