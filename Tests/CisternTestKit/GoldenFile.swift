// Golden bytes in proto-spec/vectors: annotated hex that a person can read and a test compares with what the code writes.
//
//   # a comment runs to the end of the line
//   43 49 53 54   magic            the bytes are pairs of hex digits; the first word that is not a pair ends them
//
// `CISTERN_REWRITE=1` writes the files instead of comparing; the difference is then reviewed like code.

import Foundation

package enum GoldenFile {
    package static let directory = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("proto-spec/vectors").path

    package static var isRewriting: Bool { ProcessInfo.processInfo.environment["CISTERN_REWRITE"] == "1" }

    /// The text of a vector file.
    package static func text(_ name: String) throws -> String {
        try String(contentsOfFile: "\(directory)/\(name)", encoding: .utf8)
    }

    /// The bytes of an annotated hex file.
    package static func bytes(_ name: String) throws -> [UInt8] { parse(try text(name)) }

    /// Writes the file when rewriting.
    /// - Returns: nil when the file has this text; otherwise the first line that differs, for the test's message.
    package static func difference(_ name: String, from produced: String) throws -> String? {
        if isRewriting {
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            try produced.write(toFile: "\(directory)/\(name)", atomically: true, encoding: .utf8)
            return nil
        }
        let recorded = try text(name)
        if recorded == produced { return nil }
        let left = recorded.split(separator: "\n", omittingEmptySubsequences: false)
        let right = produced.split(separator: "\n", omittingEmptySubsequences: false)
        for index in 0..<max(left.count, right.count) {
            let old = index < left.count ? left[index] : "(end)"
            let new = index < right.count ? right[index] : "(end)"
            if old != new { return "\(name), line \(index + 1): recorded \"\(old)\", produced \"\(new)\"" }
        }
        return "\(name): differs in line ends"
    }

    package static func parse(_ text: String) -> [UInt8] {
        var bytes: [UInt8] = []
        for line in text.split(separator: "\n") {
            for word in line.split(separator: "#", omittingEmptySubsequences: false)[0].split(separator: " ") {
                guard word.count == 2, let byte = UInt8(word, radix: 16) else { break }
                bytes.append(byte)
            }
        }
        return bytes
    }
}

/// Builds annotated hex: fields in order, each with its note.
package struct AnnotatedHex {
    private static let bytesPerLine = 16
    package private(set) var text: String
    package private(set) var bytes: [UInt8] = []

    package init(title: String) { text = title.split(separator: "\n").map { "# \($0)\n" }.joined() }

    package mutating func section(_ title: String) { text += "\n# \(title), byte \(bytes.count)\n" }

    package mutating func field(_ field: some Sequence<UInt8>, _ note: String) {
        let all = Array(field)
        bytes += all
        var start = 0
        repeat {
            let line = all[start..<min(start + AnnotatedHex.bytesPerLine, all.count)]
            let hex = line.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined(separator: " ")
            let padded = hex + String(repeating: " ", count: AnnotatedHex.bytesPerLine * 3 - hex.count)
            text += start == 0 ? "\(padded) # \(note)\n" : "\(hex)\n"
            start += AnnotatedHex.bytesPerLine
        } while start < all.count
    }
}
