// Every decoder of bytes from a disk or a peer, each as a function that takes any bytes: it decodes them, uses what came out,
// and must neither trap nor read outside. `make fuzz` runs them under libFuzzer with the address sanitizer; the tests run
// them over their seeds, mutations of these, and everything that was ever found.
//
// Most formats have checksums, which no mutation would pass. Where it helps, an input is resealed first: the checksums are set
// to what the bytes have become, as somebody would who writes a file on purpose.

import CisternPrimitives
import CisternTestKit

package struct FuzzTarget: Sendable {
    package let name: String
    /// Good inputs to begin with, the golden vectors among them.
    package let seeds: @Sendable () throws -> [[UInt8]]
    package let run: @Sendable ([UInt8]) -> Void

    package static let all = files + recovery + wire + log + metadata + client + server + objectStore

    package static func named(_ name: String) -> FuzzTarget? { all.first { $0.name == name } }
}

/// Reads every byte, so that a sanitizer sees whether they may be read.
func touch(_ bytes: UnsafeRawBufferPointer) {
    var sum: UInt8 = 0
    for byte in bytes { sum &+= byte }
    if sum == 1 && bytes.isEmpty { print(sum) }
}

func touch(_ entry: EntryView) {
    touch(entry.key)
    touch(entry.value)
}

func touch(_ columns: EntryColumns) { for index in 0..<columns.count { touch(columns[index]) } }

func number32(_ bytes: [UInt8], at offset: Int) -> Int {
    Int(bytes[offset]) | Int(bytes[offset + 1]) << 8 | Int(bytes[offset + 2]) << 16 | Int(bytes[offset + 3]) << 24
}

func number64(_ bytes: [UInt8], at offset: Int) -> UInt64 {
    UInt64(number32(bytes, at: offset)) | UInt64(number32(bytes, at: offset + 4)) << 32
}

/// For what a decoder must never do.
func broken(_ what: String) -> Never { fatalError(what) }
