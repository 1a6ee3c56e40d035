// The stores of a directory that no server has open, with their states and dictionaries.

internal import CisternDaemon
package import CisternFileSystem
package import CisternLSM
internal import CisternPrimitives

package struct StateReport: Sendable {
    private let stores: [CatalogStore]

    /// - Throws: `file` with reason `.locked` while a process has the directory open.
    package init(_ directory: String, fileSystem: any FileSystem) throws(EngineError) {
        let lock = try DirectoryReport.lockIfUsed(directory, fileSystem)
        defer { lock?.release() }
        stores = try Catalog.readForTools(directory, fileSystem)?.stores ?? []
    }

    package var text: String {
        var out = ""
        for store in stores {
            out += "\(store.name): \(store.keyGroupCount) key groups, \(store.dictionaries.count) dictionaries\n"
            for state in store.states {
                let life = state.ttlMilliseconds == 0 ? "" : ", TTL \(state.ttlMilliseconds) ms"
                out += "  \(state.id)  \(state.name): \(state.kind)\(life)\n"
            }
        }
        return out.isEmpty ? "no stores\n" : out
    }

    package var json: String {
        let items = stores.map { store in
            let states = store.states.map {
                "{\"id\":\($0.id),\"name\":\(JSONText.quoted($0.name)),\"kind\":\(JSONText.quoted("\($0.kind)")),"
                    + "\"ttl_ms\":\($0.ttlMilliseconds)}"
            }
            return "{\"store\":\(JSONText.quoted(store.name)),\"key_groups\":\(store.keyGroupCount),"
                + "\"dictionaries\":\(store.dictionaries.count),\"states\":\(JSONText.array(states))}"
        }
        return "{\"stores\":\(JSONText.array(items))}\n"
    }
}
