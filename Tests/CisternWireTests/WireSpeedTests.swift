// What an entry of a batch costs, against generated code. Looked at, not gated:
//   CISTERN_SPEED=1 swift test -c release --filter WireSpeedTests

import CisternPrimitives
import CisternWire
import CisternWireMessages
import Foundation
import SwiftProtobuf
import Testing

private let isAsked = ProcessInfo.processInfo.environment["CISTERN_SPEED"] != nil

/// Best of several rounds, in nanoseconds an entry.
private func measure(_ name: String, entries: Int, rounds: Int = 9, iterations: Int = 200, _ body: () -> Int) {
    var best = Double.infinity
    var sink = 0
    for _ in 0..<rounds {
        let start = SystemTime().monotonicNanoseconds
        for _ in 0..<iterations { sink &+= body() }
        let spent = Double(SystemTime().monotonicNanoseconds - start)
        best = min(best, spent / Double(iterations * entries))
    }
    print("\(name): \(String(format: "%.2f", best)) ns/entry (\(sink & 1))")
}

@Suite(.serialized) struct WireSpeedTests {
    @Test(.enabled(if: isAsked)) func aThousandEntries() throws {
        let count = 1000
        var random = SeededRandom(seed: 1)
        let keys = (0..<count).map { _ in random.bytes(24...24) }.sorted { $0.lexicographicallyPrecedes($1) }
        let keyBlob = keys.flatMap { $0 }
        let valueBlob = random.bytes((count * 100)...(count * 100))
        keyBlob.withUnsafeBytes { keyBytes in
            valueBlob.withUnsafeBytes { valueBytes in
                var encoder = WriteBatchEncoder()
                @inline(never) func append() {
                    encoder.reset()
                    for index in 0..<count {
                        let key = UnsafeRawBufferPointer(rebasing: keyBytes[(index * 24)..<(index * 24 + 24)])
                        let value = UnsafeRawBufferPointer(rebasing: valueBytes[(index * 100)..<(index * 100 + 100)])
                        encoder.append(EntryView(key: key, kind: .put, expiry: .never, value: value))
                    }
                }
                append()
                let size = encoder.encodedSize(epoch: 1, sequence: 2, watermark: 3)
                let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 16)
                defer { memory.deallocate() }
                measure("hand: append only", entries: count) {
                    append()
                    return encoder.count
                }
                measure("hand: encode columns into memory", entries: count) {
                    encoder.encode(epoch: 1, sequence: 2, watermark: 3, into: memory)
                    return size
                }
                measure("hand: append + encode to memory", entries: count) {
                    append()
                    encoder.encode(epoch: 1, sequence: 2, watermark: 3, into: memory)
                    return size
                }
                measure("hand: append + encode to array", entries: count) {
                    append()
                    return encoder.encode(epoch: 1, sequence: 2, watermark: 3).count
                }
                let body = UnsafeRawBufferPointer(memory)
                measure("hand: decode (all checks)", entries: count) {
                    (try? WriteBatchMessage.decode(body))?.columns.count ?? 0
                }
                measure("hand: decode + walk every entry", entries: count) {
                    guard let batch = try? WriteBatchMessage.decode(body) else { return 0 }
                    var sum = 0
                    for index in 0..<batch.columns.count {
                        let entry = batch.columns[index]
                        sum &+= Int(entry.key[0]) &+ entry.value.count
                    }
                    return sum
                }
                let bytes = [UInt8](body)
                measure("generated columns: build + serialize", entries: count) {
                    var batch = Cistern_V1_WriteBatch()
                    batch.epoch = 1
                    batch.sequence = 2
                    batch.watermark = 3
                    var keyEnd: UInt32 = 0
                    var valueEnd: UInt32 = 0
                    for index in 0..<count {
                        keyEnd += 24
                        valueEnd += 100
                        batch.keyEnds.append(keyEnd)
                        batch.valueEnds.append(valueEnd)
                        batch.kinds.append(1)
                        batch.keys.append(
                            contentsOf: UnsafeRawBufferPointer(rebasing: keyBytes[(index * 24)..<(index * 24 + 24)]))
                        batch.values.append(
                            contentsOf: UnsafeRawBufferPointer(
                                rebasing: valueBytes[(index * 100)..<(index * 100 + 100)]))
                    }
                    let serialized: [UInt8]? = try? batch.serializedBytes()
                    return serialized?.count ?? 0
                }
                var prepared = Cistern_V1_WriteBatch()
                prepared = (try? Cistern_V1_WriteBatch(serializedBytes: bytes)) ?? prepared
                measure("generated columns: serialize only", entries: count) {
                    let serialized: [UInt8]? = try? prepared.serializedBytes()
                    return serialized?.count ?? 0
                }
                measure("generated columns: decode", entries: count) {
                    (try? Cistern_V1_WriteBatch(serializedBytes: bytes))?.keyEnds.count ?? 0
                }
                let frame = FrameHeader.request(.writeBatch, id: 1, bodySize: bytes.count).frame(body: bytes)
                frame.withUnsafeBytes { input in
                    measure("frame: parse and checksum", entries: count) {
                        var parser = FrameParser(frameBytesMax: 1 << 20, checksumRequired: true)
                        var offset = 0
                        return (try? parser.next(in: input, from: &offset))?.body.count ?? 0
                    }
                }
            }
        }
    }
}
