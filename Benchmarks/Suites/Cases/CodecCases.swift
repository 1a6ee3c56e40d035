// Codecs: what compressing a value takes and gives, and what it does to a store as a whole.

import CisternBenchKit
import CisternCompression
import CisternPrimitives

/// Each codec alone, value by value.
struct CodecTimeCases: CaseGroup {
    let name = "values"
    let sides = [Side.ours]
    var cases: [String] {
        Records.Kind.allCases.flatMap { kind in CodecVariant.all.map { CodecTimeCases.name(kind, $0) } }
    }

    private static func name(_ kind: Records.Kind, _ variant: CodecVariant) -> String {
        "value_\(kind.rawValue)_\(variant.name)"
    }

    func run(_ context: CaseContext) throws {
        let values = context.isQuick ? 20_000 : 100_000
        for kind in Records.Kind.allCases {
            let records = try Records(kind, seed: context.seed)
            for variant in CodecVariant.all where context.wants(CodecTimeCases.name(kind, variant)) {
                try measure(context, records, variant, values)
            }
        }
    }

    private func measure(_ context: CaseContext, _ records: Records, _ variant: CodecVariant, _ count: Int) throws {
        let dictionary = variant.dictionaryBytes > 0 ? try records.dictionary(bytes: variant.dictionaryBytes) : nil
        let encoder = EnvelopeEncoder(variant.compression, dictionary: dictionary)
        let decoder = EnvelopeDecoder()
        if let dictionary { decoder.add(dictionary) }
        var envelopes: [UInt8] = []
        envelopes.reserveCapacity(count * 512)
        var ends: [Int] = []
        ends.reserveCapacity(count)
        let compressing = ProcessMeter()
        for number in 0..<count {
            records.withRecord(number) { encoder.encode($0, into: &envelopes) }
            ends.append(envelopes.count)
        }
        let compressed = compressing.cpu
        var value: [UInt8] = []
        var bytes = 0
        let decompressing = ProcessMeter()
        var start = 0
        for end in ends {
            value.removeAll(keepingCapacity: true)
            try envelopes.withUnsafeBytes {
                try decoder.decode(UnsafeRawBufferPointer(rebasing: $0[start..<end]), into: &value)
            }
            bytes += value.count
            start = end
        }
        let decompressed = decompressing.cpu
        let expected = (0..<count).reduce(0) { sum, number in sum + records.withRecord(number) { $0.count } }
        guard bytes == expected else { throw BenchFailure("\(variant.name) lost bytes: \(bytes) of \(expected)") }
        context.record(
            CodecTimeCases.name(records.kind, variant),
            [
                .compressTime: compressed / Double(count), .decompressTime: decompressed / Double(count),
                .valueBytes: Double(envelopes.count) / Double(count),
            ])
    }
}

/// A store from filling to compaction with ours compressing values in the client and the peer compressing blocks.
struct CodecStoreCases: CaseGroup {
    static let all: [any CaseGroup] = Records.Kind.allCases.flatMap { kind in
        // Level 3 gives a hundredth of level 1's size: it is measured by value and in compaction.
        CodecVariant.all.filter { !$0.name.hasPrefix("zstd3") }.map { CodecStoreCases(kind: kind, variant: $0) }
    }

    let kind: Records.Kind
    let variant: CodecVariant
    var name: String { "store_\(kind.rawValue)_\(variant.name)" }
    var cases: [String] { [name] }

    func run(_ context: CaseContext) throws {
        let records = try Records(kind, seed: context.seed)
        let codec = try ValueCodec(variant, context.side, records)
        let entries = context.isQuick ? 60_000 : 400_000
        let workload = Workload(entries: entries, seed: context.seed)
        var settings = StoreSettings()
        settings.blockCompression = variant.peer
        settings.memtableBytes = 16 << 20
        let store = try context.open("store", settings)
        let meter = ProcessMeter()

        let fill = try cpu {
            try write(store, workload, records, codec, Orders.shuffled(entries, seed: context.seed), 0)
        }
        let keys = Orders.uniform(entries / 2, below: entries, seed: context.seed ^ 6)
        let get = try cpu { try read(store, workload, records, codec, keys) }
        let rmw = try cpu { try readModifyWrite(store, workload, records, codec, keys) }
        let compaction = try cpu { try store.compact() }
        try store.settle()
        let (fillEach, getEach, rmwEach, compactionEach) = (
            fill / Double(entries), get / Double(keys.count), rmw / Double(keys.count), compaction / Double(entries)
        )
        context.record(
            name,
            [
                .cpuPerOp: fillEach + getEach + rmwEach + compactionEach, .fillCPU: fillEach, .getCPU: getEach,
                .rmwCPU: rmwEach, .compactionCPU: compactionEach, .diskBytes: Double(store.bytesOnDisk()),
                .cpuSeconds: meter.cpu / 1e9, .peakRSS: meter.peakBytes, .bytesWritten: meter.bytesWritten,
            ])
        store.close()
    }

    private func cpu(_ body: () throws -> Void) throws -> Double {
        let meter = ProcessMeter()
        try body()
        return meter.cpu
    }

    private func write(
        _ store: any BenchStore, _ workload: Workload, _ records: Records, _ codec: ValueCodec, _ order: [UInt32],
        _ version: Int
    ) throws {
        let batch = WriteBatch(entriesMax: PointCases.batchEntries)
        try withKey { key in
            let name = UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)
            for index in order {
                workload.valueKey(UInt64(index), into: key)
                records.withRecord(Int(index) + version) { record in codec.encode(record) { batch.add(.put, name, $0) }
                }
                if batch.count == PointCases.batchEntries {
                    try store.write(batch)
                    batch.reset()
                }
            }
        }
        if batch.count > 0 { try store.write(batch) }
        try store.settle()
    }

    private func read(
        _ store: any BenchStore, _ workload: Workload, _ records: Records, _ codec: ValueCodec, _ keys: [UInt32]
    ) throws {
        try withKey { key in
            let name = UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)
            for index in keys {
                workload.valueKey(UInt64(index), into: key)
                guard let stored = try store.get(name),
                    try codec.decode(stored) == records.withRecord(Int(index), { $0.count })
                else { throw BenchFailure("entry \(index) is missing or has another's value") }
            }
        }
    }

    private func readModifyWrite(
        _ store: any BenchStore, _ workload: Workload, _ records: Records, _ codec: ValueCodec, _ keys: [UInt32]
    ) throws {
        let batch = WriteBatch(entriesMax: 1)
        try withKey { key in
            let name = UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)
            var version = 0
            for index in keys {
                workload.valueKey(UInt64(index), into: key)
                guard let stored = try store.get(name), try codec.decode(stored) > 0 else {
                    throw BenchFailure("entry \(index) is missing")
                }
                version += 1
                batch.reset()
                records.withRecord(Int(index) + version) { record in codec.encode(record) { batch.add(.put, name, $0) }
                }
                try store.write(batch)
            }
        }
        try store.settle()
    }
}

/// A full compaction of runs of JSON: ours moves values that the client compressed, the peer decompresses and compresses
/// blocks. MB are of values before compression.
struct CodecCompactionCases: CaseGroup {
    static let all: [any CaseGroup] = CodecVariant.all.map { CodecCompactionCases(variant: $0) }

    let variant: CodecVariant
    var name: String { "codec_\(variant.name)" }
    var cases: [String] { [name] }

    func run(_ context: CaseContext) throws {
        let records = try Records(.json, seed: context.seed)
        let codec = try ValueCodec(variant, context.side, records)
        var settings = StoreSettings()
        settings.compacts = false
        settings.blockCompression = variant.peer
        let store = try context.open("store", settings)
        let entries = context.isQuick ? 25_000 : 200_000
        let workload = Workload(entries: entries, seed: context.seed)
        let batch = WriteBatch(entriesMax: PointCases.batchEntries)
        var bytes = 0
        for run in 0..<MergeCases.runs {
            try withKey { key in
                let name = UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)
                for position in Orders.shuffled(entries, seed: context.seed &+ UInt64(run)) {
                    let index = Int(position) * MergeCases.runs + run
                    workload.valueKey(UInt64(index), into: key)
                    records.withRecord(index) { record in
                        bytes += Workload.keyBytes + record.count
                        codec.encode(record) { batch.add(.put, name, $0) }
                    }
                    if batch.count == PointCases.batchEntries {
                        try store.write(batch)
                        batch.reset()
                    }
                }
            }
            if batch.count > 0 { try store.write(batch) }
            batch.reset()
            try store.flush()
        }
        let meter = ProcessMeter()
        try store.compact()
        let (wall, cpu) = (meter.wall, meter.cpu)
        let (peak, written) = (meter.peakBytes, meter.bytesWritten)
        try store.settle()
        context.record(
            name,
            [
                .throughputPerCore: Double(bytes) / 1e6 / (max(wall, cpu) / 1e9),
                .cpuPerGigabyte: cpu / Double(bytes), .diskBytes: Double(store.bytesOnDisk()),
                .cpuSeconds: cpu / 1e9, .peakRSS: peak, .bytesWritten: written,
            ])
        store.close()
    }
}
