// Reading a file for people: which format it is, its parts in order, and the first damage.

package import CisternPrimitives

package struct FileInspection: Sendable {
    package struct Part: Equatable, Sendable {
        package let range: Range<UInt64>
        package let name: String
        package let detail: String
    }

    package let path: String
    /// What the file is, in a word or two.
    package let format: String
    package let byteCount: Int
    package let parts: [Part]
    package let damage: CorruptionError?

    /// Takes any bytes.
    package static func inspect(_ bytes: [UInt8], path: String) -> FileInspection {
        if bytes.starts(with: CatalogFormat.magic) { return inspectCatalog(bytes, path: path) }
        return FileInspection(
            path: path, format: "unknown", byteCount: bytes.count, parts: [],
            damage: CorruptionError(
                source: path, offset: 0, detail: "the first bytes are of no format that this program writes"))
    }

    private static func inspectCatalog(_ bytes: [UInt8], path: String) -> FileInspection {
        var parts: [Part] = []
        var damage: CorruptionError?
        do throws(CorruptionError) {
            _ = try CatalogFormat.decode(bytes, source: path) {
                parts.append(
                    Part(
                        range: UInt64($0.range.lowerBound)..<UInt64($0.range.upperBound), name: $0.name,
                        detail: $0.detail))
            }
        } catch {
            damage = error
        }
        return FileInspection(path: path, format: "catalog", byteCount: bytes.count, parts: parts, damage: damage)
    }
}

extension FileInspection {
    package var text: String {
        var out = "\(path): \(format), \(byteCount) bytes\n"
        let width = "\(byteCount)".count
        for part in parts {
            let first = padded(part.range.lowerBound, width)
            let last = padded(part.range.upperBound, width)
            out += "  \(first) ..< \(last)  \(part.name)\(part.detail.isEmpty ? "" : ": " + part.detail)\n"
        }
        if let damage {
            out += "DAMAGED at byte \(damage.offset): \(damage.detail)\n"
        } else {
            out += "every checksum matches\n"
        }
        return out
    }

    package var json: String {
        let items = parts.map {
            "{\"first\":\($0.range.lowerBound),\"end\":\($0.range.upperBound),\"name\":\(quoted($0.name)),"
                + "\"detail\":\(quoted($0.detail))}"
        }
        let found =
            damage.map { "{\"offset\":\($0.offset),\"detail\":\(quoted($0.detail))}" } ?? "null"
        return "{\"file\":\(quoted(path)),\"format\":\(quoted(format)),\"bytes\":\(byteCount),"
            + "\"ok\":\(damage == nil),\"damage\":\(found),\"parts\":[\(items.joined(separator: ","))]}\n"
    }

    private func padded(_ number: UInt64, _ width: Int) -> String {
        let text = "\(number)"
        return String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            default:
                if scalar.value < 0x20 {
                    let hex = String(scalar.value, radix: 16)
                    out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
                } else {
                    out.unicodeScalars.append(scalar)
                }
            }
        }
        return out + "\""
    }
}
