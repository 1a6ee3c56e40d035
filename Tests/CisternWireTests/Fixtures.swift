// What the wire tests share: a printed seed, random entries, and owned copies of borrowed views.

import CisternPrimitives
import CisternWire
import CisternWireMessages
import Foundation

/// A generator whose seed is printed and can be set by CISTERN_SEED.
func seeded(_ name: String) -> SeededRandom {
    let seed =
        ProcessInfo.processInfo.environment["CISTERN_SEED"].flatMap(UInt64.init)
        ?? UInt64.random(in: 1...UInt64(UInt32.max))
    print("\(name): CISTERN_SEED=\(seed)")
    return SeededRandom(seed: seed)
}

struct OwnedEntry: Equatable {
    var key: [UInt8]
    var kind: EntryKind
    var expiry: UInt64
    var value: [UInt8]

    init(_ key: [UInt8], _ kind: EntryKind = .put, expiry: UInt64 = 0, _ value: [UInt8] = []) {
        self.key = key
        self.kind = kind
        self.expiry = expiry
        self.value = value
    }

    init(_ view: EntryView) {
        self.init([UInt8](view.key), view.kind, expiry: view.expiry.rawValue, [UInt8](view.value))
    }

    func withView<R>(_ body: (EntryView) -> R) -> R {
        key.withUnsafeBytes { key in
            value.withUnsafeBytes { value in
                body(EntryView(key: key, kind: kind, expiry: Expiry(rawValue: expiry), value: value))
            }
        }
    }
}

extension SeededRandom {
    mutating func bytes(_ range: ClosedRange<Int>) -> [UInt8] {
        let count = Int.random(in: range, using: &self)
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) }
    }

    /// Sorted unique keys with random contents; some batches have expiries, some not.
    mutating func entries(_ range: ClosedRange<Int>) -> [OwnedEntry] {
        let expiring = Bool.random(using: &self)
        var seen = Set<[UInt8]>()
        var entries: [OwnedEntry] = []
        for _ in 0..<Int.random(in: range, using: &self) {
            let key = bytes(1...20)
            guard seen.insert(key).inserted else { continue }
            let kind: EntryKind = [.put, .delete, .append].randomElement(using: &self)!
            let expiry = expiring && Bool.random(using: &self) ? next() : 0
            entries.append(OwnedEntry(key, kind, expiry: expiry, kind == .delete ? [] : bytes(0...40)))
        }
        return entries.sorted { $0.key.lexicographicallyPrecedes($1.key) }
    }
}

func ends(_ slices: [[UInt8]]) -> [UInt32] {
    var end: UInt32 = 0
    return slices.map {
        end += UInt32($0.count)
        return end
    }
}

/// The generated message of the same batch.
func generated(_ entries: [OwnedEntry], epoch: UInt64, sequence: UInt64, watermark: UInt64) -> Cistern_V1_WriteBatch {
    var batch = Cistern_V1_WriteBatch()
    batch.epoch = epoch
    batch.sequence = sequence
    batch.watermark = watermark
    batch.keyEnds = ends(entries.map(\.key))
    batch.valueEnds = ends(entries.map(\.value))
    batch.kinds = Data(entries.map(\.kind.rawValue))
    if entries.contains(where: { $0.expiry != 0 }) { batch.expiries = entries.map(\.expiry) }
    batch.keys = Data(entries.flatMap(\.key))
    batch.values = Data(entries.flatMap(\.value))
    return batch
}

func handEncoded(_ entries: [OwnedEntry], epoch: UInt64, sequence: UInt64, watermark: UInt64) -> [UInt8] {
    var encoder = WriteBatchEncoder()
    for entry in entries { entry.withView { encoder.append($0) } }
    return encoder.encode(epoch: epoch, sequence: sequence, watermark: watermark)
}

/// The error a decoder throws, nil when it throws none.
func wireError(_ body: () throws(WireError) -> Void) -> WireError? {
    do {
        try body()
        return nil
    } catch {
        return error
    }
}
