import CisternCompression
import CisternPrimitives
import Foundation
import Testing

/// Values as streams have them: alike, not equal, about 160 bytes.
func jsonLike(_ random: inout SeededRandom) -> [UInt8] {
    let airports = ["EWR", "JFK", "LGA", "ATL", "ORD", "SFO", "LAX", "DEN"]
    let text = """
        {"tail":"N\(UInt32.random(in: 10000...99999, using: &random))","origin":"\(airports.randomElement(using: &random)!)",\
        "destination":"\(airports.randomElement(using: &random)!)","delay":\(Int.random(in: -30...300, using: &random)),\
        "distance":\(Int.random(in: 90...4900, using: &random)),"carrier":"\(["UA", "AA", "B6", "DL"].randomElement(using: &random)!)",\
        "seen":\(UInt64.random(in: 1_356_998_400...1_388_534_400, using: &random))}
        """
    return Array(text.utf8)
}

func testSeed() -> UInt64 {
    let seed = ProcessInfo.processInfo.environment["CISTERN_SEED"].flatMap { UInt64($0) } ?? 20_260_101
    print("CISTERN_SEED=\(seed)")
    return seed
}

func trainedDictionary(id: UInt32 = 7, capacity: Int = 8192) throws -> CompressionDictionary {
    var random = SeededRandom(seed: 1)
    var samples = SampleCollector(dictionaryBytes: capacity)
    while !samples.isFull { jsonLike(&random).withUnsafeBytes { samples.offer($0) } }
    let bytes = try #require(DictionaryTraining.train(samples, capacity: capacity))
    return CompressionDictionary(id: id, bytes: bytes)
}

@Suite struct EnvelopeRoundTripTests {
    static let compressions: [Compression] = [.none, .lz4, .zstd(level: 1), .zstd(level: 3), .zstd(level: -5)]

    @Test(arguments: compressions, [false, true])
    func everyValueComesBack(compression: Compression, withDictionary: Bool) throws {
        var random = SeededRandom(seed: testSeed())
        let dictionary = withDictionary ? try trainedDictionary() : nil
        let encoder = EnvelopeEncoder(compression, dictionary: dictionary)
        let decoder = EnvelopeDecoder()
        if let dictionary { decoder.add(dictionary) }
        for round in 0..<120 {
            let value: [UInt8]
            switch round % 4 {
            case 0: value = jsonLike(&random)
            case 1:
                value = (0..<Int.random(in: 0...300, using: &random)).map { _ in .random(in: 0...255, using: &random) }
            case 2: value = [UInt8](repeating: UInt8(round & 0xFF), count: Int.random(in: 0...20_000, using: &random))
            default: value = (0..<20).flatMap { _ in jsonLike(&random) }
            }
            var envelope: [UInt8] = [0xEE]
            encoder.encode(value, into: &envelope)
            #expect(envelope[0] == 0xEE)
            #expect(envelope.count <= value.count + 2)
            #expect(try decoder.decode(Array(envelope[1...])) == value)
        }
    }

    @Test func shortAndIncompressibleValuesStayRaw() throws {
        var random = SeededRandom(seed: testSeed())
        for compression in Self.compressions {
            let encoder = EnvelopeEncoder(compression)
            let short = [UInt8](repeating: 1, count: EnvelopeEncoder.rawBelowBytes - 1)
            let noise = (0..<500).map { _ in UInt8.random(in: 0...255, using: &random) }
            for value in [short, noise, []] {
                var envelope: [UInt8] = []
                encoder.encode(value, into: &envelope)
                #expect(envelope == [0] + value)
            }
        }
    }

    @Test func aDictionaryHalvesWhatZstdAloneLeaves() throws {
        var random = SeededRandom(seed: testSeed())
        let dictionary = try trainedDictionary()
        let values = (0..<1000).map { _ in jsonLike(&random) }
        func total(_ encoder: EnvelopeEncoder) -> Int {
            var out: [UInt8] = []
            for value in values { encoder.encode(value, into: &out) }
            return out.count
        }
        let alone = total(EnvelopeEncoder(.zstd(level: 1)))
        let trained = total(EnvelopeEncoder(.zstd(level: 1), dictionary: dictionary))
        let lz4 = total(EnvelopeEncoder(.lz4, dictionary: dictionary))
        let raw = values.reduce(0) { $0 + $1.count }
        print(
            "bytes a value: raw \(raw / 1000), zstd \(alone / 1000), zstd + dictionary \(trained / 1000), lz4 + dictionary \(lz4 / 1000)"
        )
        #expect(trained * 2 < alone)
        #expect(lz4 < raw)
    }

    @Test func anUnknownDictionaryIsNamed() throws {
        let dictionary = try trainedDictionary(id: 0xDEAD_0001)
        var random = SeededRandom(seed: 3)
        for compression in [Compression.lz4, .zstd(level: 1)] {
            var envelope: [UInt8] = []
            EnvelopeEncoder(compression, dictionary: dictionary).encode(jsonLike(&random), into: &envelope)
            #expect(throws: EnvelopeError.unknownDictionary(id: 0xDEAD_0001)) {
                _ = try EnvelopeDecoder().decode(envelope)
            }
        }
    }
}

@Suite struct EnvelopeAnyBytesTests {
    @Test func anyBytesAreRefusedOrDecodedButNeverTrap() throws {
        var random = SeededRandom(seed: testSeed())
        let dictionary = try trainedDictionary(id: 7, capacity: 2048)
        let decoder = EnvelopeDecoder()
        decoder.add(dictionary)
        var refused = 0
        for _ in 0..<20_000 {
            var bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            if !bytes.isEmpty { bytes[0] = UInt8.random(in: 0...8, using: &random) }
            do { _ = try decoder.decode(bytes) } catch { refused += 1 }
        }
        #expect(refused > 1000)
    }

    @Test func everyFlippedBitOfAnEnvelopeIsRefusedOrBoundedInSize() throws {
        var random = SeededRandom(seed: testSeed())
        let dictionary = try trainedDictionary(id: 7, capacity: 2048)
        let decoder = EnvelopeDecoder()
        decoder.add(dictionary)
        for compression in [Compression.lz4, .zstd(level: 1)] {
            for trained in [nil, dictionary] {
                var envelope: [UInt8] = []
                let value = jsonLike(&random) + jsonLike(&random)
                EnvelopeEncoder(compression, dictionary: trained).encode(value, into: &envelope)
                for bit in 0..<envelope.count * 8 {
                    var damaged = envelope
                    damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                    if let decoded = try? decoder.decode(damaged) {
                        #expect(decoded.count <= ValueEnvelope.rawSizeMax)
                    }
                }
                for cut in 0..<envelope.count {
                    if let decoded = try? decoder.decode(Array(envelope[..<cut])) { #expect(decoded != value) }
                }
            }
        }
    }

    @Test func aDictionaryWhoseIdIsBeyondItsBitsIsDamage() {
        // Raw size 5, then 2³² as a varint.
        for codec in [5, 6] as [UInt8] {
            let bytes: [UInt8] = [codec, 5, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 2, 3, 4, 5, 6]
            let error = #expect(throws: EnvelopeError.self) { _ = try EnvelopeDecoder().decode(bytes) }
            guard case .damaged = error else {
                Issue.record("\(String(describing: error)) for codec \(codec)")
                continue
            }
            #expect(throws: EnvelopeError.truncated(size: 3)) { _ = try EnvelopeDecoder().decode([codec, 5, 0x80]) }
        }
    }

    @Test func theIdOfADictionaryTakesOneByteMostly() throws {
        var random = SeededRandom(seed: testSeed())
        // Several, so that it is smaller compressed whatever the seed: one that is not is stored without an id.
        let value = (0..<8).flatMap { _ in jsonLike(&random) }
        let trained = try trainedDictionary().bytes.map { $0 }
        let sizes = ([1, 127, 128, 1 << 20] as [UInt32]).map { id -> Int in
            var envelope: [UInt8] = []
            let dictionary = CompressionDictionary(id: id, bytes: trained)
            EnvelopeEncoder(.zstd(level: 1), dictionary: dictionary).encode(value, into: &envelope)
            return envelope.count
        }
        #expect(sizes.map { $0 - sizes[0] } == [0, 0, 1, 2])
    }

    @Test func aForgedSizeTakesNoMemory() {
        let decoder = EnvelopeDecoder()
        // 16 MiB announced by a payload of two bytes.
        #expect(throws: EnvelopeError.self) { _ = try decoder.decode([1, 0x80, 0x80, 0x80, 0x08, 0, 0]) }
        #expect(throws: EnvelopeError.tooLarge(rawSize: 1 << 34)) {
            _ = try decoder.decode([2, 0x80, 0x80, 0x80, 0x80, 0x40, 0, 0])
        }
        #expect(throws: EnvelopeError.truncated(size: 0)) { _ = try decoder.decode([]) }
        #expect(throws: EnvelopeError.unknownCodec(9)) { _ = try decoder.decode([9, 1, 2]) }
    }
}

@Suite struct DictionaryTrainingTests {
    @Test func noiseAndNothingTrainNoDictionaryOrAHarmlessOne() {
        #expect(DictionaryTraining.train(SampleCollector(dictionaryBytes: 1024), capacity: 1024) == nil)
        var few = SampleCollector(dictionaryBytes: 1024)
        [UInt8](repeating: 5, count: 40).withUnsafeBytes { few.offer($0) }
        #expect(DictionaryTraining.train(few, capacity: 1024) == nil)
    }

    @Test func theCollectorStopsAtItsBound() {
        var random = SeededRandom(seed: 5)
        var samples = SampleCollector(dictionaryBytes: 1024)
        for _ in 0..<50_000 { jsonLike(&random).withUnsafeBytes { samples.offer($0) } }
        #expect(samples.isFull)
        #expect(samples.bytes.count < 1024 * 100 + SampleCollector.sampleBytesMax)
        #expect(samples.sizes.reduce(0, +) == samples.bytes.count)
    }
}

@Suite struct EnvelopeVectorTests {
    struct Vector {
        let name: String
        let envelope: [UInt8]
        let raw: [UInt8]
    }

    static func bytes(_ hex: Substring) -> [UInt8] {
        hex == "-"
            ? []
            : stride(from: 0, to: hex.utf8.count, by: 2).map { offset in
                let start = hex.index(hex.startIndex, offsetBy: offset)
                return UInt8(hex[start..<hex.index(start, offsetBy: 2)], radix: 16)!
            }
    }

    /// Lines: `dictionary ID HEX` or `NAME ENVELOPE RAW`, in hexadecimal, `-` for no bytes.
    static func load() throws -> (dictionaries: [CompressionDictionary], vectors: [Vector]) {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("proto-spec/vectors/value-envelope.txt")
        var dictionaries: [CompressionDictionary] = []
        var vectors: [Vector] = []
        for line in try String(contentsOf: path, encoding: .utf8).split(separator: "\n") where !line.hasPrefix("#") {
            let parts = line.split(separator: " ")
            if parts[0] == "dictionary" {
                dictionaries.append(CompressionDictionary(id: UInt32(parts[1])!, bytes: bytes(parts[2])))
            } else {
                vectors.append(Vector(name: String(parts[0]), envelope: bytes(parts[1]), raw: bytes(parts[2])))
            }
        }
        return (dictionaries, vectors)
    }

    @Test func everyVectorDecodesAndRawOnesEncode() throws {
        let (dictionaries, vectors) = try Self.load()
        let decoder = EnvelopeDecoder()
        for dictionary in dictionaries { decoder.add(dictionary) }
        var codecs: Set<UInt8> = []
        for vector in vectors {
            codecs.insert(vector.envelope[0])
            #expect(try decoder.decode(vector.envelope) == vector.raw, "\(vector.name)")
            if vector.envelope[0] == 0 {
                var encoded: [UInt8] = []
                EnvelopeEncoder(.none).encode(vector.raw, into: &encoded)
                #expect(encoded == vector.envelope, "\(vector.name)")
            }
        }
        #expect(codecs == [0, 1, 2, 3, 4, 5, 6])
    }

    /// Prints the file of vectors; run with CISTERN_WRITE_VECTORS=1 when the format gets a version.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["CISTERN_WRITE_VECTORS"] != nil))
    func writeVectors() throws {
        func hex(_ bytes: [UInt8]) -> String {
            bytes.isEmpty ? "-" : bytes.map { String(UInt16($0) + 256, radix: 16).dropFirst() }.joined()
        }
        let dictionary = try trainedDictionary(id: 42, capacity: 1024)
        var random = SeededRandom(seed: 9)
        let value = jsonLike(&random)
        var lines = [
            "# Value envelopes: NAME ENVELOPE RAW. See proto-spec/value-envelope.md.",
            "dictionary 42 \(hex(dictionary.bytes.map { $0 }))",
        ]
        for raw in [[], [0], Array("cistern".utf8)] as [[UInt8]] {
            lines.append("raw-\(raw.count) \(hex([0] + raw)) \(hex(raw))")
        }
        for (name, compression, trained) in [
            ("lz4", Compression.lz4, nil), ("zstd", .zstd(level: 1), nil), ("lz4-dictionary", .lz4, dictionary),
            ("zstd-dictionary", .zstd(level: 1), dictionary),
        ] {
            for raw in [value, value + value + value, [UInt8](repeating: 0x61, count: 300)] {
                var envelope: [UInt8] = []
                EnvelopeEncoder(compression, dictionary: trained).encode(raw, into: &envelope)
                if envelope[0] == 0 { continue }
                lines.append("\(name)-\(raw.count) \(hex(envelope)) \(hex(raw))")
                guard trained != nil, let id = envelope.firstIndex(of: 42) else { continue }
                // As codecs 3 and 4 were written.
                let fixed = [envelope[0] - 2] + envelope[1..<id] + [42, 0, 0, 0] + envelope[(id + 1)...]
                lines.append("\(name)-fixed-id-\(raw.count) \(hex(fixed)) \(hex(raw))")
            }
        }
        print(lines.map { "VECTOR " + $0 }.joined(separator: "\n"))
    }
}
