// Records as jobs keep them, for what depends on their content: JSON, a serialized Java object, rows of real flights. Some
// are set apart for training a dictionary and are never stored.

import CZstd
import CisternCompression
import CisternPrimitives
import Foundation

package struct Records: Sendable {
    package enum Kind: String, CaseIterable, Sendable { case json, pojo, flights }

    package static let flightsFile = "Examples/flights/flights.csv.zst"
    private static let made = 50_000
    private static let samples = 10_000

    package let kind: Kind
    @usableFromInline let bytes: [UInt8]
    @usableFromInline let ends: [Int]
    /// The first records train; the others are stored.
    @usableFromInline let firstStored: Int

    package init(_ kind: Kind, seed: UInt64) throws {
        self.kind = kind
        var bytes: [UInt8] = []
        var ends: [Int] = []
        switch kind {
        case .json, .pojo:
            var random = SeededRandom(seed: seed ^ 0x7265_636F)
            for number in 0..<Records.made + Records.samples {
                if kind == .json {
                    bytes += Records.json(number, &random).utf8
                } else {
                    bytes += Records.pojo(number, &random)
                }
                ends.append(bytes.count)
            }
        case .flights:
            for line in try Records.flights().split(separator: UInt8(ascii: "\n")).dropFirst() {
                bytes += line
                ends.append(bytes.count)
            }
        }
        self.bytes = bytes
        self.ends = ends
        firstStored = Records.samples
    }

    @inlinable package var count: Int { ends.count - firstStored }

    package var averageBytes: Double { Double(bytes.count - ends[firstStored - 1]) / Double(count) }

    /// Any number stands for a record.
    @inlinable
    package func withRecord<Value>(_ number: Int, _ body: (UnsafeRawBufferPointer) throws -> Value) rethrows -> Value {
        let index = firstStored + number % count
        return try bytes.withUnsafeBytes {
            try body(UnsafeRawBufferPointer(rebasing: $0[ends[index - 1]..<ends[index]]))
        }
    }

    /// Trained on records that are not stored.
    package func dictionary(bytes capacity: Int) throws -> CompressionDictionary {
        var collector = SampleCollector(dictionaryBytes: capacity)
        for index in 0..<firstStored {
            bytes.withUnsafeBytes { all in
                collector.offer(UnsafeRawBufferPointer(rebasing: all[(index == 0 ? 0 : ends[index - 1])..<ends[index]]))
            }
        }
        guard let trained = DictionaryTraining.train(collector, capacity: capacity) else {
            throw BenchFailure("\(kind) records gave no dictionary")
        }
        return CompressionDictionary(id: 1, bytes: trained)
    }

    private static let cities = ["Berlin", "New York", "Tokyo", "São Paulo", "Nairobi", "Sydney", "Oslo", "Lima"]
    private static let events = ["page_view", "add_to_cart", "checkout", "search", "login", "logout"]

    private static func json(_ number: Int, _ random: inout SeededRandom) -> String {
        let user = 1_000_000 + Int(random.next() % 900_000)
        let amount = Double(random.next() % 100_000) / 100
        return "{\"user_id\":\"u-\(user)\",\"event\":\"\(events[Int(random.next() % 6)])\","
            + "\"timestamp\":\(1_700_000_000_000 + number * 37 + Int(random.next() % 37)),"
            + "\"city\":\"\(cities[Int(random.next() % 8)])\",\"amount\":\(amount),\"items\":\(random.next() % 9),"
            + "\"session\":\"\(String(random.next(), radix: 16))\",\"mobile\":\(random.next() % 2 == 0)}"
    }

    /// As Flink's serializer of plain objects writes it: flags and fields, strings with a length.
    private static func pojo(_ number: Int, _ random: inout SeededRandom) -> [UInt8] {
        var bytes: [UInt8] = [0]
        func integer<I: FixedWidthInteger>(_ value: I) {
            bytes.append(0)
            withUnsafeBytes(of: value.bigEndian) { bytes += $0 }
        }
        func string(_ value: String) {
            bytes.append(0)
            bytes.append(UInt8(value.utf8.count + 1))
            bytes += value.utf8
        }
        integer(Int64(1_700_000_000_000 + number * 37))
        integer(Int32(random.next() % 50))
        string("sensor-\(10_000 + random.next() % 5000)")
        integer((Double(random.next() % 4000) / 100).bitPattern)
        integer((Double(random.next() % 9000) / 100).bitPattern)
        integer(Int64(random.next() % 1_000_000))
        string(cities[Int(random.next() % 8)])
        string("com.example.measurements.\(events[Int(random.next() % 6)])")
        return bytes
    }

    private static func flights() throws -> [UInt8] {
        let packed = [UInt8](try Data(contentsOf: URL(fileURLWithPath: flightsFile)))
        let size = ZSTD_getFrameContentSize(packed, packed.count)
        guard size < 1 << 30 else { throw BenchFailure("\(flightsFile) does not say how long it is") }
        var text = [UInt8](repeating: 0, count: Int(size))
        let written = ZSTD_decompress(&text, text.count, packed, packed.count)
        guard ZSTD_isError(written) == 0, written == text.count else {
            throw BenchFailure("\(flightsFile) does not decompress")
        }
        return text
    }
}
