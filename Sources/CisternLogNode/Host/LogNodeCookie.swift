// Binds a directory to a log node: an empty or foreign directory cannot take the place of a full one and call its entries absent.

package import CisternFileSystem
package import CisternLogProtocol
internal import CisternPrimitives

package struct LogNodeCookie: Equatable, Sendable {
    package var node: LogNodeID
    /// A random number that all nodes of a cluster share.
    package var cluster: UInt64
    /// A random number of this directory: of two that were begun under one id, metadata knows one. nil in cookies of version 1.
    package var directory: UInt64?

    package init(node: LogNodeID, cluster: UInt64, directory: UInt64?) {
        self.node = node
        self.cluster = cluster
        self.directory = directory
    }

    /// Of a directory that is begun.
    package init(newDirectoryOf node: LogNodeID, cluster: UInt64) {
        var random = SystemRandomNumberGenerator()
        self.init(node: node, cluster: cluster, directory: random.next())
    }

    static let magic: UInt64 = 0x4B4F_4F43_4E54_5343  // "CSTNCOOK"
    /// On disk: never renumber.
    static let version: UInt32 = 2
    private static let sizes: [UInt32: Int] = [1: 32, 2: 40]

    /// As metadata keeps it, 16 bytes: u64 cluster ‖ u64 directory, little-endian.
    package var stored: [UInt8] {
        var writer = ByteWriter()
        writer.writeInteger(cluster)
        writer.writeInteger(directory ?? 0)
        return writer.bytes
    }

    package func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.writeInteger(LogNodeCookie.magic)
        writer.writeInteger(directory == nil ? 1 : LogNodeCookie.version)
        writer.writeInteger(node.rawValue)
        writer.writeInteger(cluster)
        if let directory { writer.writeInteger(directory) }
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    /// nil when the bytes are no cookie of a version that is known, or damaged.
    package static func decode(_ encoded: [UInt8]) -> LogNodeCookie? {
        unsafe encoded.withUnsafeBytes { raw in
            var reader = unsafe ByteReader(raw)
            guard reader.readInteger(as: UInt64.self) == magic, let version = reader.readInteger(as: UInt32.self),
                encoded.count == sizes[version], let node = reader.readInteger(as: UInt64.self),
                let cluster = reader.readInteger(as: UInt64.self)
            else { return nil }
            let directory = version == 1 ? nil : reader.readInteger(as: UInt64.self)
            let body = unsafe UnsafeRawBufferPointer(rebasing: raw[..<(encoded.count - 4)])
            guard unsafe reader.readInteger(as: UInt32.self) == CRC32C.checksum(body) else { return nil }
            return LogNodeCookie(node: LogNodeID(node), cluster: cluster, directory: directory)
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

    /// True when a directory may become a node's: it is missing or has no files.
    package static func isUnused(_ directory: String, fileSystem: any FileSystem) throws(JournalError) -> Bool {
        do throws(FileError) {
            guard try fileSystem.exists(directory) else { return true }
            return try fileSystem.list(directory).allSatisfy { $0 == JournalFiles.lock }
        } catch {
            throw .file(error)
        }
    }

    /// Makes an unused directory this cookie's, while nobody else is at it.
    package func begin(_ directory: String, fileSystem: any FileSystem) throws(JournalError) {
        do throws(FileError) {
            try fileSystem.createDirectory(directory)
            let lock = try fileSystem.lock(directory + "/" + JournalFiles.lock)
            defer { lock.release() }
            let names = try fileSystem.list(directory).filter { $0 != JournalFiles.lock }
            guard names.isEmpty else { throw FileError(operation: "begin", path: directory, reason: .errno(17)) }
            try AtomicFile.write(encoded(), to: JournalFiles.cookie, in: directory, fileSystem: fileSystem)
        } catch {
            throw .file(error)
        }
    }

    /// Checks the directory of a node before it is used.
    /// - Parameter isNew: the node is registered for the first time: only then may the directory be empty.
    static func claim(
        _ directory: String, of node: LogNodeID, cluster: UInt64, isNew: Bool, fileSystem: any FileSystem
    ) throws(JournalError) {
        if let found = try LogNodeCookie.read(directory, fileSystem: fileSystem) {
            guard found.node == node, found.cluster == cluster else {
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
            let cookie = LogNodeCookie(newDirectoryOf: node, cluster: cluster)
            try AtomicFile.write(cookie.encoded(), to: JournalFiles.cookie, in: directory, fileSystem: fileSystem)
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
