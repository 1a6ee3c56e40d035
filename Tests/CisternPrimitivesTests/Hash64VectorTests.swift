import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct Hash64VectorTests {
    @Test func theHashOfEveryVectorIsTheRecordedOne() throws {
        var text = """
            # Hash64: key bytes in hex (- is the empty key), then the hash as a 64-bit number in hex. See ../hash64.md.

            """
        for key in Self.keys {
            let digits = key.isEmpty ? "-" : key.map { Self.hex(UInt64($0), width: 2) }.joined()
            text += "\(digits) \(Self.hex(Hash64.hash(key), width: 16))\n"
        }
        let difference = try GoldenFile.difference("hash64.txt", from: text)
        #expect(difference == nil)
    }

    /// Every length through both branches of each step, and the alphabets keys are made of.
    private static let keys: [[UInt8]] =
        (0...48).map { count in (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ count) } }
        + [
            Array("a".utf8), Array("N14228".utf8), Array("abcdefghijklmnopqrstuvwxyz".utf8),
            [UInt8](repeating: 0, count: 64), [UInt8](repeating: 0xFF, count: 100),
            [0, 5, 0, 1, 6] + Array("N14228".utf8) + [0],
        ]

    private static func hex(_ value: UInt64, width: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: width - digits.count) + digits
    }
}
