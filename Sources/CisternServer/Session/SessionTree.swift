// A tree as one session uses it, by the handle in its frames. Owned by the session's event loop.

package import CisternLSM
package import CisternPrimitives

package final class SessionTree: @unchecked Sendable {
    // Sendable: made off the loop, and from `ServerSession.install` on used on the session's loop only.
    package let tree: Tree
    package let id: UInt64
    package let store: String
    package let range: KeyGroupRange
    package let epoch: UInt64
    package let attachment: Attachment
    /// nil: its log is local.
    let ownership: TreeOwnership?
    /// First bytes a key of the range may have, and the first that are behind it: key groups are big-endian in front of keys.
    package let lowest: [UInt8]
    package let end: [UInt8]
    /// Answers to writes that are held back.
    package let pace = WritePace()

    init(
        tree: Tree, id: UInt64, store: String, range: KeyGroupRange, epoch: UInt64, attachment: Attachment,
        ownership: TreeOwnership?
    ) {
        self.ownership = ownership
        self.tree = tree
        self.id = id
        self.store = store
        self.range = range
        self.epoch = epoch
        self.attachment = attachment
        lowest = bigEndian(range.first)
        // Key groups are below 32,768, so the successor always fits.
        end = bigEndian(range.last + 1)
    }

    package var name: String { "store \"\(store)\" key groups \(range)" }

    /// True when the key's group is in the tree's range.
    @inline(__always)
    package func owns(_ key: UnsafeRawBufferPointer) -> Bool {
        guard key.count >= 2 else { return false }
        return unsafe range.contains(UInt16(key[0]) << 8 | UInt16(key[1]))
    }
}

private func bigEndian(_ group: UInt16) -> [UInt8] { [UInt8(group >> 8), UInt8(group & 0xFF)] }
