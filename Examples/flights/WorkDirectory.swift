// Where a run keeps its children's logs, and the server's data unless the user named a directory for it.

internal import Foundation

struct WorkDirectory {
    let data: String
    private let temporary: String

    init(data: String?) throws {
        let name = "cistern-flights-\(UUID().uuidString.prefix(8).lowercased())"
        temporary = FileManager.default.temporaryDirectory.appendingPathComponent(name).path
        self.data = data ?? temporary + "/data"
        try FileManager.default.createDirectory(atPath: temporary, withIntermediateDirectories: true)
    }

    func log(_ name: String) -> String { temporary + "/\(name).log" }

    /// Removes what is temporary.
    func remove() {
        // Nothing depends on it being gone; a directory of the system's temporary files is cleaned anyway.
        try? FileManager.default.removeItem(atPath: temporary)
    }
}
