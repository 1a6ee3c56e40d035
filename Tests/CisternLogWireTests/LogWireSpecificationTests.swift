// The tables of proto-spec/log-wire.md are the tables of the code.

import CisternLogProtocol
import CisternLogWire
import CisternWire
import Foundation
import Testing

private let page: String = {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    return (try? String(contentsOf: root.appendingPathComponent("proto-spec/log-wire.md"), encoding: .utf8)) ?? ""
}()

private func table(_ heading: String) -> [[String]] {
    guard let start = page.range(of: "\n## \(heading)\n") else { return [] }
    let section = page[start.upperBound...].components(separatedBy: "\n## ")[0]
    let rows = section.split(separator: "\n").filter { $0.hasPrefix("|") }.map { line in
        line.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false)
            .map { $0.trimmingCharacters(in: .whitespaces) }
    }
    return Array(rows.dropFirst(2))
}

private func upper(_ name: String) -> String {
    name.reduce(into: "") { name, letter in
        if letter.isUppercase { name += "_" }
        name += letter.uppercased()
    }
}

@Suite struct LogWireSpecificationTests {
    @Test func messagesAreThoseOfThePage() {
        let rows = table("Messages").map { "\($0[0]) \($0[1])" }
        let code = Opcode.allCases.filter(\.isOfLogNode).map {
            "0x\(String($0.rawValue, radix: 16, uppercase: true)) \(upper("\($0)"))"
        }
        #expect(rows == code)
    }

    @Test func refusalsAreThoseOfThePage() {
        let code = NodeRefusal.allCases.map { ["\($0.rawValue)", upper("\($0)")] }
        #expect(table("Refusals").map { Array($0[..<2]) } == code)
    }

    @Test func limitsAreThoseOfThePage() {
        let code = [
            ["entryBytesMax", "\(LogWireLimits.entryBytesMax)"], ["readBytesMax", "\(LogWireLimits.readBytesMax)"],
            ["readEntriesMax", "\(LogWireLimits.readEntriesMax)"], ["ledgerIDMax", "\(LogWireLimits.ledgerIDMax)"],
            ["entryIDMax", "\(LogWireLimits.entryIDMax)"],
        ]
        #expect(table("Limits").map { Array($0[..<2]) } == code)
    }
}
