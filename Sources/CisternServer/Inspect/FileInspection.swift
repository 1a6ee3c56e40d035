// Reading a file for people: which format it is, its parts in order, and the first damage.

internal import CisternDaemon
package import CisternFileSystem
package import CisternLSM
package import CisternPrimitives

package struct FileInspection: Sendable {
    package let path: String
    /// What the file is, in a word or two.
    package let format: String
    package let byteCount: UInt64
    package let parts: [InspectedPart]
    package let damage: CorruptionError?

    /// Takes any bytes. A file of an unknown format counts as damaged at its first byte.
    package static func inspect(
        _ path: String, fileSystem: any FileSystem
    ) throws(EngineError) -> FileInspection {
        let size: UInt64
        let first: [UInt8]
        do throws(FileError) {
            size = try fileSystem.size(path)
            first = try firstBytes(path, size, fileSystem)
        } catch {
            throw .file(error)
        }
        let name = path.split(separator: "/").last.map(String.init) ?? path
        var parts: [InspectedPart] = []
        var damage: CorruptionError?
        let format: String
        do throws(EngineError) {
            if name == Catalog.fileName || first == CatalogFormat.magic {
                format = "catalog"
                try inspectCatalog(path, fileSystem) { parts.append($0) }
            } else if let kind = EngineFile(name: name, firstBytes: first) {
                format = kind.title
                try kind.inspect(path, fileSystem: fileSystem) { parts.append($0) }
            } else if name == EngineFile.lockName, size == 0 {
                format = "lock file"
            } else {
                format = "unknown"
                damage = CorruptionError(
                    source: path, offset: 0,
                    detail: "neither name nor first bytes are of a file that this program writes")
            }
        } catch {
            guard case .corruption(let found) = error else { throw error }
            damage = found
        }
        return FileInspection(path: path, format: format, byteCount: size, parts: parts, damage: damage)
    }

    private static func firstBytes(
        _ path: String, _ size: UInt64, _ fileSystem: any FileSystem
    ) throws(FileError) -> [UInt8] {
        let file = try fileSystem.openRead(path)
        let count = Int(min(size, UInt64(CatalogFormat.magic.count)))
        var bytes = [UInt8](repeating: 0, count: count)
        let failure: FileError? = unsafe bytes.withUnsafeMutableBytes { raw in
            do throws(FileError) {
                unsafe try file.read(at: 0, into: raw)
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    private static func inspectCatalog(
        _ path: String, _ fileSystem: any FileSystem, visit: (InspectedPart) -> Void
    ) throws(EngineError) {
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try fileSystem.readAll(path, limit: CatalogLimits.fileBytesMax)
        } catch {
            throw .file(error)
        }
        do throws(CorruptionError) {
            _ = try CatalogFormat.decode(bytes, source: path) {
                visit(
                    InspectedPart(UInt64($0.range.lowerBound)..<UInt64($0.range.upperBound), $0.name, $0.detail))
            }
        } catch {
            throw .corruption(error)
        }
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
            "{\"first\":\($0.range.lowerBound),\"end\":\($0.range.upperBound),\"name\":\(JSONText.quoted($0.name)),"
                + "\"detail\":\(JSONText.quoted($0.detail))}"
        }
        let found =
            damage.map { "{\"offset\":\($0.offset),\"detail\":\(JSONText.quoted($0.detail))}" } ?? "null"
        return "{\"file\":\(JSONText.quoted(path)),\"format\":\(JSONText.quoted(format)),\"bytes\":\(byteCount),"
            + "\"ok\":\(damage == nil),\"damage\":\(found),\"parts\":[\(items.joined(separator: ","))]}\n"
    }

    private func padded(_ number: UInt64, _ width: Int) -> String {
        let text = "\(number)"
        return String(repeating: " ", count: max(0, width - text.count)) + text
    }
}
