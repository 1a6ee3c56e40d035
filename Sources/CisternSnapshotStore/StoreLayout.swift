// The names of a snapshot store's objects. Specification: proto-spec/snapshot-store.md.
//
//   snapshots/NAMESPACE/HANDLE   the manifest of a snapshot; it is there if and only if all its pieces are
//   files/NAMESPACE/PIECE        a piece of a file, shared by the snapshots of the namespace
//
// A namespace belongs to one data directory, which has its server's id, or to one export, which has the name that somebody gave it. Nobody
// else writes or deletes there, so what is still needed is decided without asking others.

internal import CisternPrimitives

package enum StoreLayout {
    package static let snapshots = "snapshots/"

    package static func snapshots(of namespace: String) -> String { "snapshots/\(namespace)/" }
    package static func files(of namespace: String) -> String { "files/\(namespace)/" }

    package static func manifest(_ handle: String, in namespace: String) -> String {
        snapshots(of: namespace) + encoded(handle)
    }

    package static func piece(_ name: String, in namespace: String) -> String { files(of: namespace) + name }

    /// The namespace of a manifest's name; nil for any other object.
    package static func namespace(ofManifest name: String) -> String? {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        return parts.count == 3 && parts[0] == "snapshots" ? String(parts[1]) : nil
    }

    /// Names of exports; ids of servers have the same form.
    package static func isNamespace(_ name: String) -> Bool {
        name.utf8.count <= namespaceBytesMax && !name.contains("/") && !name.contains("%") && StoreName.isValid(name)
    }

    package static let namespaceBytesMax = 100

    /// One part of a name for any handle. Long ones end with a hash instead of their end: the manifest has the handle itself.
    static func encoded(_ handle: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        for byte in handle.utf8 {
            if StoreName.isPlain(byte) {
                bytes.append(byte)
            } else {
                bytes += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        if bytes.count <= encodedBytesMax { return String(decoding: bytes, as: UTF8.self) }
        let hash = String(Hash64.hash(Array(handle.utf8)), radix: 16)
        return String(decoding: bytes.prefix(encodedBytesMax - hash.utf8.count - 3), as: UTF8.self) + "%00" + hash
    }

    private static let encodedBytesMax = 240
}
