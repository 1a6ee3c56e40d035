// What a worker's client counted. Workers report it with each checkpoint, so that a worker that is killed leaves its count
// up to its last checkpoint behind.

internal import CisternClient
internal import Foundation

package struct WorkerFigures: Codable, Equatable, Sendable {
    package var writeOperations = 0
    package var writeRPCs = 0
    package var writesAbsorbed = 0
    package var readOperations = 0
    package var readRPCs = 0
    package var bufferHits = 0
    package var cacheHits = 0
    package var indexSkips = 0
    package var absentReads = 0
    package var absentReadRPCs = 0
    package var verifyChecks = 0
    package var verifyDisagreements = 0
    package var keyIndexKeys = 0
    package var keyIndexBytes = 0
    package var bytesBeforeCompression = 0
    package var bytesAfterCompression = 0
    package var bytesSent = 0
    package var bytesReceived = 0
    package var reconnects = 0
    package var batchesResent = 0

    package init() {}

    /// What the clients of some sessions counted, together.
    init(_ metrics: [ClientMetrics]) {
        for one in metrics {
            writeOperations += one.writeOperations
            writeRPCs += one.writeRPCs
            writesAbsorbed += one.writesAbsorbed
            readOperations += one.readOperations
            readRPCs += one.readRPCs
            bufferHits += one.bufferHits
            cacheHits += one.cacheHits
            indexSkips += one.indexSkips
            absentReads += one.absentReads
            absentReadRPCs += one.absentReadRPCs
            verifyChecks += one.verifyChecks
            verifyDisagreements += one.verifyDisagreements
            keyIndexKeys += one.keyIndexKeys
            keyIndexBytes += one.keyIndexBytes
            bytesBeforeCompression += Int(one.bytesBeforeCompression)
            bytesAfterCompression += Int(one.bytesAfterCompression)
            bytesSent += Int(one.bytesSent)
            bytesReceived += Int(one.bytesReceived)
            reconnects += one.reconnects
            batchesResent += one.batchesResent
        }
    }

    /// Counters that add up over workers and attempts; the key index is a size, not a count, and is left out of `add`.
    private static let counters: [any WritableKeyPath<WorkerFigures, Int> & Sendable] = [
        \.writeOperations, \.writeRPCs, \.writesAbsorbed, \.readOperations, \.readRPCs, \.bufferHits, \.cacheHits,
        \.indexSkips, \.absentReads, \.absentReadRPCs, \.verifyChecks, \.verifyDisagreements, \.bytesBeforeCompression,
        \.bytesAfterCompression, \.bytesSent, \.bytesReceived, \.reconnects, \.batchesResent,
    ]
    private static let sizes: [any WritableKeyPath<WorkerFigures, Int> & Sendable] = [\.keyIndexKeys, \.keyIndexBytes]

    package mutating func add(_ other: WorkerFigures, isLastAttempt: Bool) {
        for counter in Self.counters { self[keyPath: counter] += other[keyPath: counter] }
        if isLastAttempt {
            for size in Self.sizes { self[keyPath: size] += other[keyPath: size] }
        }
    }

    /// One line.
    var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        // Integers always encode.
        return String(decoding: (try? encoder.encode(self)) ?? Data(), as: UTF8.self)
    }

    init?(json: String) {
        guard let figures = try? JSONDecoder().decode(WorkerFigures.self, from: Data(json.utf8)) else { return nil }
        self = figures
    }
}
