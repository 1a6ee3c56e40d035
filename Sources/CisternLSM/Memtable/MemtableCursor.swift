// Walks a memtable in key order: a stack of (node, next position) from the root down.
// Owned by one thread. On an active memtable it must be positioned anew after each `apply`.

package import CisternPrimitives

package final class MemtableCursor {
    /// A node on the way down and where to go on in it.
    private struct Frame {
        let node: UInt32
        /// `beforeTerminal`, or a position of `RadixNode.nextChild`.
        var position: Int32
    }
    private static let beforeTerminal: Int32 = -1

    private let memtable: Memtable
    private var view: ArenaView
    private var stack: [Frame] = []
    private var current: UInt32 = 0

    init(_ memtable: Memtable) {
        self.memtable = memtable
        view = memtable.arenaView
        stack.reserveCapacity(32)
    }

    package var isValid: Bool { current != 0 }

    /// - Precondition: the cursor is positioned.
    package var entry: EntryView {
        invariant(current != 0, "the entry of a cursor that is not positioned")
        return unsafe MemtableEntry(view.address(current)).view
    }

    package func seekToFirst() -> Bool {
        restart()
        return descend(memtable.root)
    }

    /// Positions on the first key at or behind `key`.
    package func seek(to key: UnsafeRawBufferPointer) -> Bool {
        restart()
        var reference = memtable.root
        var depth = 0
        while reference != 0 {
            if reference & radixEntryBit != 0 {
                let entry = unsafe MemtableEntry(view.address(reference & ~radixEntryBit))
                if unsafe compareBytes(entry.key, key) < 0 { return next() }
                current = reference & ~radixEntryBit
                return true
            }
            let node = unsafe RadixNode(view.address(reference))
            let prefix = unsafe wholePrefix(of: node, depth: depth, in: view)
            let rest = unsafe UnsafeRawBufferPointer(rebasing: key[depth...])
            let shared = unsafe commonPrefixCount(prefix, rest)
            // The key ends inside the prefix or right behind it: everything below is at or behind the key.
            if shared == rest.count { return descend(reference) }
            if shared < prefix.count { return unsafe prefix[shared] > rest[shared] ? descend(reference) : next() }
            depth += prefix.count
            var position = unsafe node.position(atLeast: key[depth])
            guard let (byte, child) = node.nextChild(&position) else { return next() }
            stack.append(Frame(node: reference, position: Int32(position)))
            if unsafe byte > key[depth] { return descend(child) }
            depth += 1
            reference = child
        }
        return false
    }

    package func next() -> Bool {
        current = 0
        while let top = stack.last {
            let node = unsafe RadixNode(view.address(top.node))
            if top.position == MemtableCursor.beforeTerminal {
                stack[stack.count - 1].position = 0
                if node.terminal != 0 { return descend(node.terminal) }
            }
            var position = Int(stack[stack.count - 1].position)
            if let (_, child) = node.nextChild(&position) {
                stack[stack.count - 1].position = Int32(position)
                return descend(child)
            }
            stack.removeLast()
        }
        return false
    }

    /// Positions on the first entry at or below `reference`.
    private func descend(_ reference: UInt32) -> Bool {
        var reference = reference
        while reference != 0 {
            if reference & radixEntryBit != 0 {
                current = reference & ~radixEntryBit
                return true
            }
            let node = unsafe RadixNode(view.address(reference))
            if node.terminal != 0 {
                stack.append(Frame(node: reference, position: 0))
                reference = node.terminal
            } else {
                var position = 0
                // A node without a terminal has two children or more.
                guard let (_, child) = node.nextChild(&position) else { return false }
                stack.append(Frame(node: reference, position: Int32(position)))
                reference = child
            }
        }
        return false
    }

    private func restart() {
        stack.removeAll(keepingCapacity: true)
        current = 0
        view = memtable.arenaView
    }
}
