import CisternPrimitives
import Testing

@Suite struct ByteReaderTests {
    @Test func everyCutOfARecordIsRefusedWithoutReadingPastTheEnd() {
        var writer = ByteWriter()
        writer.writeUInt8(7)
        writer.writeInteger(UInt32(0xDEAD_BEEF))
        writer.writeVarint(300)
        writer.writeLengthPrefixed([1, 2, 3])
        for cut in 0...writer.count {
            writer.bytes[..<cut].withUnsafeBytes { bytes in
                var reader = ByteReader(bytes)
                let whole =
                    reader.readUInt8() == 7 && reader.readInteger(as: UInt32.self) == 0xDEAD_BEEF
                    && reader.readVarint() == 300 && reader.readLengthPrefixed().map { Array($0) } == [1, 2, 3]
                #expect(whole == (cut == writer.count))
            }
        }
    }

    @Test func varintsOfAllLengthsComeBack() {
        for shift in 0..<64 {
            for value in [UInt64(1) << UInt64(shift), (UInt64(1) << UInt64(shift)) &- 1] {
                var writer = ByteWriter()
                writer.writeVarint(value)
                writer.bytes.withUnsafeBytes {
                    var reader = ByteReader($0)
                    #expect(reader.readVarint() == value)
                    #expect(reader.isAtEnd)
                }
            }
        }
    }

    @Test func varintsBeyond64BitsAreRefused() {
        let tooLong = [UInt8](repeating: 0xFF, count: 9) + [0x02]
        tooLong.withUnsafeBytes {
            var reader = ByteReader($0)
            #expect(reader.readVarint() == nil)
            #expect(reader.offset == 0)
        }
    }
}

@Suite struct ChecksumTests {
    @Test func crc32cMatchesThePublishedVectors() {
        // RFC 3720, appendix B.4.
        #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(CRC32C.checksum([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(CRC32C.checksum((0..<32).map { UInt8($0) }) == 0x46DD_794E)
        #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xE306_9283)
    }

    @Test func crc32cContinues() {
        let bytes = Array("the quick brown fox".utf8)
        for cut in 0...bytes.count {
            let first = CRC32C.checksum(Array(bytes[..<cut]))
            #expect(CRC32C.checksum(Array(bytes[cut...]), seed: first) == CRC32C.checksum(bytes))
        }
    }

    /// Long inputs run as several streams; pieces below the shortest stream do not.
    @Test func crc32cOfLongInputsEqualsTheChainOfShortPieces() {
        var random = SeededRandom(seed: 7)
        for count in [767, 768, 769, 1_000, 6_143, 6_144, 6_145, 13_200, 70_001] {
            let bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            var chained: UInt32 = 0
            for start in stride(from: 0, to: count, by: 100) {
                chained = CRC32C.checksum(Array(bytes[start..<min(start + 100, count)]), seed: chained)
            }
            #expect(CRC32C.checksum(bytes) == chained, "\(count) bytes")
        }
    }

    @Test func hash64DependsOnEveryByteAndOnTheLength() {
        for count in 1...40 {
            let base = [UInt8](repeating: 0xA5, count: count)
            var seen: Set<UInt64> = [Hash64.hash(base), Hash64.hash(base + [0])]
            for index in 0..<count {
                var changed = base
                changed[index] ^= 1
                seen.insert(Hash64.hash(changed))
            }
            #expect(seen.count == count + 2)
        }
    }
}

@Suite struct KeyGroupTests {
    @Test(arguments: [1, 2, 3, 5, 7, 128, 32_768])
    func rangesOfAllWorkersCoverEveryGroupOnce(count: Int) {
        for parallelism in [1, 2, 3, 5, 7, 100, 128] where parallelism <= count {
            var next = 0
            for index in 0..<parallelism {
                let range = KeyGroup.range(ofWorker: index, parallelism: parallelism, count: count)
                #expect(Int(range.first) == next)
                next = Int(range.last) + 1
                for group in [range.first, range.last] {
                    #expect(KeyGroup.worker(of: group, parallelism: parallelism, count: count) == index)
                }
            }
            #expect(next == count)
        }
    }
}
