// The catalog of a data directory: what `CatalogState` says, made durable before it is seen.
//
// Threading: reads from any thread (one lock, no I/O under it); changes on the server's blocking lane only, one at a time,
// because each writes and syncs a file. The file is replaced by rename, so a crash leaves the old one or the new one.

package import CisternFileSystem
internal import CisternLSM
package import CisternPrimitives
internal import Synchronization

package enum CatalogError: Error, Sendable {
    case refused(CatalogRefusal)
    case file(FileError)
    case corruption(CorruptionError)
}

package final class Catalog: Sendable {
    package static let fileName = "catalog"

    private let directory: String
    private let fileSystem: any FileSystem
    private let fileBytesMax: Int
    /// Replaced as a whole after the file is durable.
    private let state: Mutex<CatalogState>

    /// Reads the catalog, or makes one with the identity `newServerID` in a directory that has none.
    package init(
        directory: String, fileSystem: any FileSystem, newServerID: @autoclosure () -> [UInt8],
        fileBytesMax: Int = CatalogLimits.fileBytesMax
    ) throws(CatalogError) {
        self.directory = directory
        self.fileSystem = fileSystem
        self.fileBytesMax = fileBytesMax
        let path = directory + "/" + Catalog.fileName
        guard try Catalog.exists(path, fileSystem) else {
            state = Mutex(CatalogState(serverID: newServerID()))
            try store(current)
            return
        }
        state = Mutex(try Catalog.read(path, fileSystem, bytesMax: fileBytesMax))
    }

    /// For tools: what a directory's catalog says, nil when it has none.
    static func readIfPresent(_ path: String, _ fileSystem: any FileSystem) throws(CatalogError) -> CatalogState? {
        try exists(path, fileSystem) ? try read(path, fileSystem, bytesMax: CatalogLimits.fileBytesMax) : nil
    }

    /// As `readIfPresent`, with the engine's errors.
    static func readForTools(_ directory: String, _ fileSystem: any FileSystem) throws(EngineError) -> CatalogState? {
        do throws(CatalogError) {
            return try readIfPresent(directory + "/" + fileName, fileSystem)
        } catch {
            switch error {
            case .file(let failure): throw .file(failure)
            case .corruption(let damage): throw .corruption(damage)
            case .refused(let refusal): throw .unsupported(detail: refusal.sentence)
            }
        }
    }

    private static func exists(_ path: String, _ fileSystem: any FileSystem) throws(CatalogError) -> Bool {
        do throws(FileError) {
            return try fileSystem.exists(path)
        } catch {
            throw .file(error)
        }
    }

    private static func read(
        _ path: String, _ fileSystem: any FileSystem, bytesMax: Int
    ) throws(CatalogError) -> CatalogState {
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try fileSystem.readAll(path, limit: bytesMax)
        } catch {
            throw .file(error)
        }
        do throws(CorruptionError) {
            return try CatalogFormat.decode(bytes, source: path)
        } catch {
            throw .corruption(error)
        }
    }

    package var current: CatalogState { state.withLock { $0 } }

    package var serverID: String { hexadecimal(state.withLock { $0.serverID }) }

    package func store(named name: String) -> CatalogStore? { state.withLock { $0.store(name) } }

    /// The result of a change that leaves the catalog as it is; nil when it would change or be refused.
    package func unchanged<Result>(by body: (inout CatalogState) throws(CatalogRefusal) -> Result) -> Result? {
        let before = current
        var next = before
        do throws(CatalogRefusal) {
            let result = try body(&next)
            return next == before ? result : nil
        } catch {
            // `change` meets the same refusal and reports it.
            return nil
        }
    }

    /// Applies a change and returns its result when the change is durable. A change that changes nothing writes nothing.
    /// After an error the catalog is what it was.
    ///
    /// - Precondition: called on the blocking lane, which runs one change at a time.
    package func change<Result>(
        _ body: (inout CatalogState) throws(CatalogRefusal) -> Result
    ) throws(CatalogError) -> Result {
        let before = current
        var next = before
        let result: Result
        do throws(CatalogRefusal) {
            result = try body(&next)
        } catch {
            throw .refused(error)
        }
        if next == before { return result }
        try store(next)
        state.withLock { $0 = next }
        return result
    }

    private func store(_ next: CatalogState) throws(CatalogError) {
        let bytes = CatalogFormat.encode(next)
        // A file that the next start refuses unread must not come to be.
        guard bytes.count <= fileBytesMax else {
            throw .refused(.limit(what: "a catalog of \(bytes.count) bytes", max: fileBytesMax))
        }
        do throws(FileError) {
            try AtomicFile.write(bytes, to: Catalog.fileName, in: directory, fileSystem: fileSystem)
        } catch {
            throw .file(error)
        }
    }
}
