// The memtable's index: an adaptive radix tree over the arena's entries. Look-ups compare at most 16 bytes of a prefix on the
// way and prove the whole key once, at the entry; insertion and seeking compare whole prefixes.

internal import CisternPrimitives

/// What a reference in a node points at.
let radixEntryBit: UInt32 = 1 << 31

@safe struct RadixTree: ~Copyable {
    private(set) var entryCount = 0
    /// Memory of its own for the reference of the root, so that the root is replaced like any child.
    private let rootSlot: UnsafeMutableRawPointer
    /// Nodes that were outgrown, by type; linked through their first word.
    private var freeNodes: InlineArray<4, UInt32> = [0, 0, 0, 0]

    init() {
        unsafe rootSlot = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
        unsafe rootSlot.storeBytes(of: 0, as: UInt32.self)
    }

    deinit { unsafe rootSlot.deallocate() }

    var root: UInt32 { unsafe rootSlot.load(as: UInt32.self) }

    // MARK: Look-up

    func find(_ key: UnsafeRawBufferPointer, in view: ArenaView) -> MemtableEntry? {
        let count = key.count
        var reference = root
        var depth = 0
        while reference != 0 {
            if reference & radixEntryBit != 0 {
                let entry = unsafe MemtableEntry(view.address(reference & ~radixEntryBit))
                return unsafe entry.matches(key) ? entry : nil
            }
            let node = unsafe RadixNode(view.address(reference))
            let prefix = node.prefixCount
            if prefix > 0 {
                if depth &+ prefix > count { return nil }
                let compared = min(prefix, RadixNode.inlinePrefixMax)
                if unsafe !bytesAreEqual(node.inlinePrefix, key.baseAddress! + depth, count: compared) { return nil }
                depth &+= prefix
            }
            if depth == count {
                reference = node.terminal
            } else {
                guard let slot = unsafe node.childSlot(key[depth]) else { return nil }
                reference = unsafe slot.load(as: UInt32.self)
                depth &+= 1
            }
        }
        return nil
    }

    // MARK: Insertion

    /// The slot that refers, or is to refer, to the entry of `key`. When it is empty the caller must fill it at once.
    mutating func slot(for key: UnsafeRawBufferPointer, in arena: inout Arena) -> UnsafeMutableRawPointer {
        var slot = unsafe rootSlot
        var depth = 0
        while true {
            let reference = unsafe slot.load(as: UInt32.self)
            if reference == 0 { return unsafe slot }
            if reference & radixEntryBit != 0 {
                let entry = unsafe MemtableEntry(arena.address(reference & ~radixEntryBit))
                if unsafe entry.matches(key) { return unsafe slot }
                return unsafe splitEntry(at: slot, depth: depth, key: key, in: &arena)
            }
            let node = unsafe RadixNode(arena.address(reference))
            let prefix = node.prefixCount
            if prefix > 0 {
                let matched = unsafe matchedPrefix(of: node, with: key, depth: depth, in: arena.view)
                if matched < prefix {
                    return unsafe splitNode(at: slot, depth: depth, matched: matched, key: key, in: &arena)
                }
                depth += prefix
            }
            if depth == key.count { return unsafe node.terminalSlot }
            guard let child = unsafe node.childSlot(key[depth]) else {
                return unsafe addSlot(key[depth], toNodeAt: slot, in: &arena)
            }
            unsafe slot = unsafe child
            depth += 1
        }
    }

    /// A new entry with room for `valueCapacity` bytes; kind, expiry and value are the caller's to write.
    mutating func makeEntry(
        _ key: UnsafeRawBufferPointer, valueCapacity: Int, in slot: UnsafeMutableRawPointer, of arena: inout Arena
    ) -> MemtableEntry {
        let (reference, entry) = unsafe MemtableEntry.make(key, valueCapacity: valueCapacity, in: &arena)
        if unsafe slot.load(as: UInt32.self) & radixEntryBit == 0 { entryCount += 1 }
        unsafe slot.storeBytes(of: reference | radixEntryBit, as: UInt32.self)
        return entry
    }

    /// How much of the node's prefix `key` repeats from `depth` on.
    private func matchedPrefix(
        of node: RadixNode, with key: UnsafeRawBufferPointer, depth: Int, in view: ArenaView
    ) -> Int {
        let prefix = unsafe wholePrefix(of: node, depth: depth, in: view)
        return unsafe commonPrefixCount(prefix, UnsafeRawBufferPointer(rebasing: key[depth...]))
    }

    /// Two keys meet at an entry: a node with what they share takes its place.
    private mutating func splitEntry(
        at slot: UnsafeMutableRawPointer, depth: Int, key: UnsafeRawBufferPointer, in arena: inout Arena
    ) -> UnsafeMutableRawPointer {
        let reference = unsafe slot.load(as: UInt32.self)
        let old = unsafe MemtableEntry(arena.address(reference & ~radixEntryBit)).key
        let shared = unsafe commonPrefixCount(
            UnsafeRawBufferPointer(rebasing: old[depth...]), UnsafeRawBufferPointer(rebasing: key[depth...]))
        let (nodeReference, node) = makeNode(.node4, in: &arena)
        if shared > 0 {
            unsafe node.setPrefix(old.baseAddress! + depth, count: shared, source: reference & ~radixEntryBit)
        }
        let end = depth + shared
        if old.count == end {
            unsafe node.terminalSlot.storeBytes(of: reference, as: UInt32.self)
        } else {
            unsafe node.addChild(old[end], reference)
        }
        unsafe slot.storeBytes(of: nodeReference, as: UInt32.self)
        return unsafe emptySlot(of: node, for: key, at: end)
    }

    /// A key leaves a node's prefix in its middle: a node with the part that is shared goes above.
    private mutating func splitNode(
        at slot: UnsafeMutableRawPointer, depth: Int, matched: Int, key: UnsafeRawBufferPointer, in arena: inout Arena
    ) -> UnsafeMutableRawPointer {
        let reference = unsafe slot.load(as: UInt32.self)
        let node = unsafe RadixNode(arena.address(reference))
        let prefix = unsafe wholePrefix(of: node, depth: depth, in: arena.view)
        let (upperReference, upper) = makeNode(.node4, in: &arena)
        let source = node.prefixSource
        if matched > 0 { unsafe upper.setPrefix(prefix.baseAddress!, count: matched, source: source) }
        unsafe upper.addChild(prefix[matched], reference)
        // The prefix lies inside an entry's key or inside the node itself: `setPrefix` moves it to the front last.
        let rest = prefix.count - matched - 1
        shiftPrefix(of: node, by: matched + 1, to: rest, depth: depth, in: arena.view)
        unsafe slot.storeBytes(of: upperReference, as: UInt32.self)
        return unsafe emptySlot(of: upper, for: key, at: depth + matched)
    }

    private func shiftPrefix(of node: RadixNode, by skipped: Int, to count: Int, depth: Int, in view: ArenaView) {
        let source = unsafe MemtableEntry(view.address(node.prefixSource)).keyBase
        unsafe node.setPrefix(source + (depth + skipped), count: count, source: node.prefixSource)
    }

    /// - Precondition: `node` has room and neither a terminal nor a child in the place of `key`.
    private func emptySlot(of node: RadixNode, for key: UnsafeRawBufferPointer, at depth: Int)
        -> UnsafeMutableRawPointer
    {
        if key.count == depth { return unsafe node.terminalSlot }
        unsafe node.addChild(key[depth], 0)
        return unsafe slotJustAdded(to: node, byte: key[depth])
    }

    private mutating func addSlot(
        _ byte: UInt8, toNodeAt slot: UnsafeMutableRawPointer, in arena: inout Arena
    ) -> UnsafeMutableRawPointer {
        let node = unsafe RadixNode(arena.address(slot.load(as: UInt32.self)))
        let roomy = unsafe node.childCount < node.type.childrenMax ? node : grow(at: slot, in: &arena)
        roomy.addChild(byte, 0)
        return unsafe slotJustAdded(to: roomy, byte: byte)
    }

    /// A full node is replaced by the next larger type.
    private mutating func grow(at slot: UnsafeMutableRawPointer, in arena: inout Arena) -> RadixNode {
        let reference = unsafe slot.load(as: UInt32.self)
        let node = unsafe RadixNode(arena.address(reference))
        let type = node.type
        let (largerReference, larger) = makeNode(RadixNodeType(rawValue: type.rawValue + 1)!, in: &arena)
        larger.adopt(node)
        unsafe slot.storeBytes(of: largerReference, as: UInt32.self)
        unsafe node.base.storeBytes(of: freeNodes[Int(type.rawValue)], as: UInt32.self)
        freeNodes[Int(type.rawValue)] = reference
        return larger
    }

    private mutating func makeNode(_ type: RadixNodeType, in arena: inout Arena) -> (UInt32, RadixNode) {
        var reference = freeNodes[Int(type.rawValue)]
        if reference != 0 {
            freeNodes[Int(type.rawValue)] = unsafe arena.address(reference).load(as: UInt32.self)
        } else {
            reference = unsafe arena.allocate(type.byteCount).reference
        }
        let node = unsafe RadixNode(arena.address(reference))
        node.initialize(type)
        return (reference, node)
    }
}

/// The whole prefix of a node whose prefix starts at `depth` of every key below it.
@inline(__always)
func wholePrefix(of node: RadixNode, depth: Int, in view: ArenaView) -> UnsafeRawBufferPointer {
    let count = node.prefixCount
    if count <= RadixNode.inlinePrefixMax {
        return unsafe UnsafeRawBufferPointer(start: node.inlinePrefix, count: count)
    }
    let source = unsafe MemtableEntry(view.address(node.prefixSource)).keyBase
    return unsafe UnsafeRawBufferPointer(start: source + depth, count: count)
}

/// The slot of a child that is still 0, which `childSlot` takes for absent in a Node256.
private func slotJustAdded(to node: RadixNode, byte: UInt8) -> UnsafeMutableRawPointer {
    if node.type == .node256 { return unsafe node.directSlot(byte) }
    return unsafe node.childSlot(byte)!
}
