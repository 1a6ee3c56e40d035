// A zstd file read as a stream: the compressed file is read a piece at a time and never held whole.
//
// One reader, one thread. The frame's checksum is checked by libzstd when the frame ends, so a flipped bit anywhere in the
// file becomes `FlightSourceError.damaged`, and a file that was cut becomes `.truncated`.

internal import CZstd
internal import Foundation

@safe package struct ZstdFile: ~Copyable {
    /// Compressed bytes read from the file at a time.
    private static let pieceBytes = 256 << 10

    let path: String
    private let file: FileHandle
    private let stream: OpaquePointer
    private var piece: [UInt8] = []
    private var pieceUsed = 0
    private var bytesRead: UInt64 = 0
    /// What `ZSTD_decompressStream` said last: 0 when a frame is complete, else a hint that more is to come.
    private var pending = 0

    package init(path: String) throws(FlightSourceError) {
        guard let file = FileHandle(forReadingAtPath: path) else {
            throw .cannotOpen(path: path, reason: unsafe String(cString: strerror(errno)))
        }
        guard let stream = unsafe ZSTD_createDStream() else {
            throw .cannotOpen(path: path, reason: "libzstd has no memory for a decompressor")
        }
        self.path = path
        self.file = file
        unsafe self.stream = unsafe stream
    }

    deinit {
        _ = unsafe ZSTD_freeDStream(stream)
    }

    /// Appends the next decompressed bytes to `output`, at most `count`. False at the end of the file.
    package mutating func read(upTo count: Int, into output: inout [UInt8]) throws(FlightSourceError) -> Bool {
        let start = output.count
        output.append(contentsOf: repeatElement(0, count: count))
        var written = 0
        while written == 0 {
            if pieceUsed == piece.count, try !refill() {
                output.removeLast(count)
                guard pending == 0 else { throw .truncated(path: path, offset: bytesRead) }
                return false
            }
            written = try decompress(into: &output, from: start)
        }
        output.removeLast(count - written)
        return true
    }

    private mutating func decompress(into output: inout [UInt8], from start: Int) throws(FlightSourceError) -> Int {
        var written = 0
        pending = unsafe piece.withUnsafeBytes { source in
            unsafe output.withUnsafeMutableBytes { target in
                var input = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: pieceUsed)
                var result = unsafe ZSTD_outBuffer(
                    dst: target.baseAddress! + start, size: target.count - start, pos: 0)
                let pending = unsafe ZSTD_decompressStream(stream, &result, &input)
                pieceUsed = unsafe input.pos
                written = unsafe result.pos
                return pending
            }
        }
        if ZSTD_isError(pending) != 0 {
            throw .damaged(path: path, offset: bytesRead, reason: unsafe String(cString: ZSTD_getErrorName(pending)))
        }
        return written
    }

    /// Reads the next piece. False at the end of the file.
    private mutating func refill() throws(FlightSourceError) -> Bool {
        do {
            guard let data = try file.read(upToCount: Self.pieceBytes), !data.isEmpty else { return false }
            piece = [UInt8](data)
        } catch {
            throw .cannotOpen(path: path, reason: "reading at byte \(bytesRead): \(error)")
        }
        pieceUsed = 0
        bytesRead += UInt64(piece.count)
        return true
    }
}
