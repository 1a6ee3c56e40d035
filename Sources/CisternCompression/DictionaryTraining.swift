// Dictionaries from live values: a collector on the worker's path that only copies, and a training function that takes
// tens to hundreds of milliseconds and belongs on another thread.

internal import CZstd

/// Collects values of one state until there are enough to train on. Pure; owned by whoever writes the values.
package struct SampleCollector: Sendable {
    /// zstd's guidance: samples of about a hundred times the dictionary's size.
    package static let samplesBytesPerDictionaryByte = 100
    /// Fewer samples than this say nothing about the next value.
    package static let sampleCountMin = 512
    package static let sampleCountMax = 16_384
    /// Longer values are not what a dictionary is for, and would crowd out the rest.
    package static let sampleBytesMax = 4096
    package static let sampleBytesMin = 12

    package private(set) var bytes: [UInt8] = []
    package private(set) var sizes: [Int] = []
    private let bytesWanted: Int

    /// - Parameter dictionaryBytes: the size of the dictionary to be trained.
    package init(dictionaryBytes: Int) {
        bytesWanted = dictionaryBytes * Self.samplesBytesPerDictionaryByte
    }

    package var isFull: Bool {
        sizes.count >= Self.sampleCountMax || (bytes.count >= bytesWanted && sizes.count >= Self.sampleCountMin)
    }

    /// Copies the value unless it is too short, too long, or there are enough.
    package mutating func offer(_ value: UnsafeRawBufferPointer) {
        guard value.count >= Self.sampleBytesMin, value.count <= Self.sampleBytesMax, !isFull else { return }
        unsafe bytes.append(contentsOf: value)
        sizes.append(value.count)
    }
}

package enum DictionaryTraining {
    package static let sizeMin = 1024

    /// Trains a dictionary of at most `capacity` bytes; nil when the samples have nothing in common, which happens with
    /// random or very few values and is no fault. Takes about 0.2 s for 16,384 samples of 150 bytes.
    /// - Precondition: `capacity` is within `sizeMin ... CompressionDictionary.sizeMax`.
    package static func train(_ samples: SampleCollector, capacity: Int) -> [UInt8]? {
        precondition(capacity >= sizeMin && capacity <= CompressionDictionary.sizeMax, "capacity \(capacity)")
        guard !samples.sizes.isEmpty else { return nil }
        var dictionary = [UInt8](repeating: 0, count: capacity)
        let size = unsafe dictionary.withUnsafeMutableBytes { dictionary -> Int in
            unsafe samples.bytes.withUnsafeBytes { bytes -> Int in
                unsafe samples.sizes.withUnsafeBufferPointer { sizes -> Int in
                    unsafe ZDICT_trainFromBuffer(
                        dictionary.baseAddress!, dictionary.count, bytes.baseAddress!, sizes.baseAddress!,
                        UInt32(sizes.count))
                }
            }
        }
        guard ZDICT_isError(size) == 0, size > 0 else { return nil }
        return Array(dictionary[..<size])
    }
}
