// Which chunks of a file are on the disk. A chunk is what a read of one block brings at least.

struct ChunkSet: Sendable {
    static let chunkBytes: UInt64 = 64 << 10

    let fileBytes: UInt64
    private var words: [UInt64]
    private(set) var presentBytes: UInt64 = 0

    init(fileBytes: UInt64) {
        self.fileBytes = fileBytes
        let chunks = (fileBytes + ChunkSet.chunkBytes - 1) / ChunkSet.chunkBytes
        words = [UInt64](repeating: 0, count: Int((chunks + 63) / 64))
    }

    var isComplete: Bool { presentBytes == fileBytes }

    private func contains(_ chunk: UInt64) -> Bool { words[Int(chunk / 64)] >> (chunk % 64) & 1 == 1 }

    private func bytes(of chunk: UInt64) -> Range<UInt64> {
        let start = chunk * ChunkSet.chunkBytes
        return start..<min(start + ChunkSet.chunkBytes, fileBytes)
    }

    /// The first chunks of a range that are missing and lie side by side, as bytes; nil when none is missing.
    func firstMissing(in range: Range<UInt64>) -> Range<UInt64>? {
        guard !range.isEmpty else { return nil }
        var found: Range<UInt64>?
        for chunk in range.lowerBound / ChunkSet.chunkBytes...(range.upperBound - 1) / ChunkSet.chunkBytes {
            if contains(chunk) {
                if found != nil { break }
            } else {
                found = (found?.lowerBound ?? bytes(of: chunk).lowerBound)..<bytes(of: chunk).upperBound
            }
        }
        return found
    }

    /// The missing ones among whole chunks.
    func missing(in range: Range<UInt64>) -> [Range<UInt64>] {
        var found: [Range<UInt64>] = []
        var rest = range
        while let next = firstMissing(in: rest) {
            found.append(next)
            rest = min(next.upperBound, range.upperBound)..<range.upperBound
        }
        return found
    }

    /// Chunks that lie in the range whole are there.
    mutating func insert(_ range: Range<UInt64>) {
        var chunk = (range.lowerBound + ChunkSet.chunkBytes - 1) / ChunkSet.chunkBytes
        while chunk * ChunkSet.chunkBytes < fileBytes, bytes(of: chunk).upperBound <= range.upperBound {
            if !contains(chunk) {
                words[Int(chunk / 64)] |= 1 << (chunk % 64)
                presentBytes += UInt64(bytes(of: chunk).count)
            }
            chunk += 1
        }
    }
}
