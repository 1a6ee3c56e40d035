// The tables of proto-spec/wire.md are the tables of the code.

import CisternWire
import Foundation
import Testing

private let page: String = {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    return (try? String(contentsOf: root.appendingPathComponent("proto-spec/wire.md"), encoding: .utf8)) ?? ""
}()

/// Rows of the table under a heading, without its head.
private func table(_ heading: String) -> [[String]] {
    guard let start = page.range(of: "\n## \(heading)\n") else { return [] }
    let section = page[start.upperBound...].components(separatedBy: "\n## ")[0]
    let rows = section.split(separator: "\n").filter { $0.hasPrefix("|") }.map { line in
        line.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false)
            .map { $0.trimmingCharacters(in: .whitespaces) }
    }
    return Array(rows.dropFirst(2))
}

private func name(_ opcode: Opcode) -> String {
    "\(opcode)".reduce(into: "") { name, letter in
        if letter.isUppercase { name += "_" }
        name += letter.uppercased()
    }
}

@Suite struct SpecificationTests {
    @Test func opcodesAreThoseOfThePage() {
        let rows = table("Opcodes").map { "\($0[0]) \($0[1])" }
        let code = Opcode.allCases.map { opcode in
            let digits = String(opcode.rawValue, radix: 16, uppercase: true)
            return "0x\(digits.count == 1 ? "0" : "")\(digits) \(name(opcode))"
        }
        #expect(rows == code)
    }

    @Test func errorsAreThoseOfThePage() {
        let code = ErrorCode.allCases.map { code -> [String] in
            let kind = "\(code.errorClass)".uppercased()
            return ["\(code.rawValue)", code.name, kind, "\(code.retryMilliseconds)", code.advice]
        }
        #expect(table("Errors") == code)
    }

    @Test func limitsAreThoseOfThePage() {
        let code = [
            ("keyBytesMax", WireLimits.keyBytesMax), ("valueBytesMax", WireLimits.valueBytesMax),
            ("batchBytesMax", WireLimits.batchBytesMax), ("batchEntriesMax", WireLimits.batchEntriesMax),
            ("multiGetKeysMax", WireLimits.multiGetKeysMax),
            ("frameBytesMaxDefault", WireLimits.frameBytesMaxDefault),
            ("frameBytesMaxHard", WireLimits.frameBytesMaxHard),
            ("helloFrameBytesMax", WireLimits.helloFrameBytesMax),
            ("controlBodyBytesMax", WireLimits.controlBodyBytesMax),
            ("pingBodyBytesMax", WireLimits.pingBodyBytesMax), ("requestsMaxDefault", WireLimits.requestsMaxDefault),
            ("bytesMaxDefault", WireLimits.bytesMaxDefault),
        ]
        #expect(table("Limits").map { Array($0[..<2]) } == code.map { [$0.0, "\($0.1)"] })
    }

    @Test func theVersionsOfThePageAreSpoken() {
        #expect(table("Versions").map { $0[0] } == (WireVersion.min...WireVersion.max).map { "\($0)" })
    }
}
