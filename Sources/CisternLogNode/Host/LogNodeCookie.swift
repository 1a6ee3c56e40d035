// Binds a directory to a log node: an empty or foreign directory cannot take the place of a full one and call its entries absent.

package import CisternFileSystem
package import CisternLogProtocol
internal import CisternPrimitives

package struct LogNodeCookie: Equatable, Sendable {
    package var node: LogNodeID
    /// A random number that all nodes of a cluster share.
    package var cluster: UInt64

    package init(node: LogNodeID, cluster: UInt64) {
        self.node = node
        self.cluster = cluster
    }

    static let magic: UInt64 = 0x4B4F_4F43_4E54_5343  // "CSTNCOOK"

    package func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.writeInteger(LogNodeCookie.magic)
        writer.writeInteger(JournalFormat.version)
        writer.writeInteger(node.rawValue)
        writer.writeInteger(cluster)
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    /// nil when the bytes are no cookie of this version, or damaged.
    package static func decode(_ encoded: [UInt8]) -> LogNodeCookie? {
        guard encoded.count == 32 else { return nil }
        return unsafe encoded.withUnsafeBytes { raw in
            let body = unsafe UnsafeRawBufferPointer(rebasing: raw[..<28])
            var reader = unsafe ByteReader(raw)
            guard reader.readInteger(as: UInt64.self) == magic,
                reader.readInteger(as: UInt32.self) == JournalFormat.version,
                let node = reader.readInteger(as: UInt64.self), let cluster = reader.readInteger(as: UInt64.self),
                unsafe reader.readInteger(as: UInt32.self) == CRC32C.checksum(body)
            else { return nil }
            return LogNodeCookie(node: LogNodeID(node), cluster: cluster)
        }
    }

    /// The cookie of a directory, nil when there is none.
    package static func read(
        _ directory: String, fileSystem: any FileSystem
    ) throws(JournalError) -> LogNodeCookie? {
        let path = directory + "/" + JournalFiles.cookie
        let bytes: [UInt8]
        do throws(FileError) {
            guard try fileSystem.exists(path) else { return nil }
            bytes = try fileSystem.readAll(path, limit: 4096)
        } catch {
            throw .file(error)
        }
        guard let cookie = decode(bytes) else {
            throw .foreign(
                directory: directory,
                detail: "\(path) is damaged; put back a copy of it, or let the node's ledgers be "
                    + "repaired from the others and start it in an empty directory under a new id")
        }
        return cookie
    }

    /// Checks a directory before it is used.
    /// - Parameter isNew: the node is registered for the first time: only then may the directory be empty.
    func claim(_ directory: String, isNew: Bool, fileSystem: any FileSystem) throws(JournalError) {
        if let found = try LogNodeCookie.read(directory, fileSystem: fileSystem) {
            guard found == self else {
                throw .foreign(
                    directory: directory,
                    detail:
                        "its cookie says \(found.node) in cluster \(found.cluster), expected was \(node) in \(cluster)")
            }
            return
        }
        do throws(FileError) {
            let names = try fileSystem.list(directory).filter { $0 != JournalFiles.lock }
            guard isNew, names.isEmpty else {
                throw FileError(operation: "find", path: directory + "/" + JournalFiles.cookie, reason: .errno(2))
            }
            try AtomicFile.write(encoded(), to: JournalFiles.cookie, in: directory, fileSystem: fileSystem)
        } catch {
            guard isNew else {
                throw .foreign(
                    directory: directory,
                    detail:
                        "\(node) is registered and its directory has no cookie: with another disk it must come back under a "
                        + "new id, so that what it held is copied from its peers")
            }
            throw .file(error)
        }
    }
}
