// Nodes of the adaptive radix tree (Leis, Kemper, Neumann: The Adaptive Radix Tree, ICDE 2013).
//
//    0 u8 type │ 2 u16 child count │ 4 u32 prefix size │ 8 u32 terminal │ 12 u32 prefix source │ 16 prefix, first 16 bytes │ 32 …
//    Node4     32 4 key bytes, ascending     │ 36 4 × u32 children
//    Node16    32 16 key bytes, ascending    │ 48 16 × u32 children
//    Node48    32 256 × u8: 1 + child's slot │ 288 48 × u32 children
//    Node256   32 256 × u32 children
//
// A child is a reference into the arena: bit 31 set is an entry, clear is a node, 0 is none. The terminal is the entry whose
// key ends exactly behind the node's prefix: keys may be prefixes of other keys. The prefix source is an entry whose key runs
// through the node: prefixes longer than 16 bytes are read there.

internal import CisternPrimitives

enum RadixNodeType: UInt8 {
    case node4 = 0
    case node16 = 1
    case node48 = 2
    case node256 = 3

    var byteCount: Int {
        switch self {
        case .node4: 56
        case .node16: 112
        case .node48: 480
        case .node256: 1056
        }
    }

    var childrenMax: Int {
        switch self {
        case .node4: 4
        case .node16: 16
        case .node48: 48
        case .node256: 256
        }
    }
}

@safe struct RadixNode {
    static let inlinePrefixMax = 16
    private static let body = 32
    /// Where the children of each type start.
    private static let children4 = 36
    private static let children16 = 48
    private static let children48 = 288

    let base: UnsafeMutableRawPointer

    @inline(__always)
    init(_ base: UnsafeMutableRawPointer) { unsafe self.base = unsafe base }

    @inline(__always) var type: RadixNodeType { unsafe RadixNodeType(rawValue: base.load(as: UInt8.self) & 3)! }

    @inline(__always) var childCount: Int {
        get { unsafe Int(base.load(fromByteOffset: 2, as: UInt16.self)) }
        nonmutating set { unsafe base.storeBytes(of: UInt16(newValue), toByteOffset: 2, as: UInt16.self) }
    }
    @inline(__always) var prefixCount: Int {
        get { unsafe Int(base.load(fromByteOffset: 4, as: UInt32.self)) }
        nonmutating set { unsafe base.storeBytes(of: UInt32(newValue), toByteOffset: 4, as: UInt32.self) }
    }
    @inline(__always) var terminalSlot: UnsafeMutableRawPointer { unsafe base + 8 }
    @inline(__always) var terminal: UInt32 { unsafe terminalSlot.load(as: UInt32.self) }
    @inline(__always) var prefixSource: UInt32 {
        get { unsafe base.load(fromByteOffset: 12, as: UInt32.self) }
        nonmutating set { unsafe base.storeBytes(of: newValue, toByteOffset: 12, as: UInt32.self) }
    }
    @inline(__always) var inlinePrefix: UnsafeMutableRawPointer { unsafe base + 16 }

    func initialize(_ type: RadixNodeType) {
        unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: type.byteCount)
        unsafe base.storeBytes(of: type.rawValue, as: UInt8.self)
    }

    /// - Precondition: `bytes` starts where the node's prefix starts inside the key of `source`.
    func setPrefix(_ bytes: UnsafeRawPointer, count: Int, source: UInt32) {
        prefixCount = count
        prefixSource = source
        let kept = min(count, RadixNode.inlinePrefixMax)
        if kept > 0 { unsafe inlinePrefix.copyMemory(from: bytes, byteCount: kept) }
    }

    // MARK: Children

    /// The slot that holds the child of `byte`, or nil.
    @inline(__always)
    func childSlot(_ byte: UInt8) -> UnsafeMutableRawPointer? {
        switch type {
        case .node4:
            let count = childCount
            var index = 0
            while index < count {
                if unsafe base.load(fromByteOffset: RadixNode.body &+ index, as: UInt8.self) == byte {
                    return unsafe base + (RadixNode.children4 &+ index &* 4)
                }
                index &+= 1
            }
            return nil
        case .node16:
            let low = matches(byte, at: RadixNode.body)
            let index =
                low != 0
                ? low.trailingZeroBitCount / 8 : 8 &+ matches(byte, at: RadixNode.body + 8).trailingZeroBitCount / 8
            return unsafe index < childCount ? base + (RadixNode.children16 &+ index &* 4) : nil
        case .node48:
            let slot = unsafe base.load(fromByteOffset: RadixNode.body &+ Int(byte), as: UInt8.self)
            return unsafe slot == 0 ? nil : base + (RadixNode.children48 &+ (Int(slot) &- 1) &* 4)
        case .node256:
            let slot = unsafe directSlot(byte)
            return unsafe slot.load(as: UInt32.self) == 0 ? nil : slot
        }
    }

    /// The slot of `byte` in a Node256, empty or not.
    @inline(__always)
    func directSlot(_ byte: UInt8) -> UnsafeMutableRawPointer { unsafe base + (RadixNode.body &+ Int(byte) &* 4) }

    /// The high bit of each of eight key bytes that equals `byte`; exact up to the lowest one, which is all that is used.
    @inline(__always)
    private func matches(_ byte: UInt8, at offset: Int) -> UInt64 {
        let word = unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        let difference = word ^ (UInt64(byte) &* 0x0101_0101_0101_0101)
        return (difference &- 0x0101_0101_0101_0101) & ~difference & 0x8080_8080_8080_8080
    }

    /// - Precondition: the node is not full and has no child of `byte`.
    func addChild(_ byte: UInt8, _ child: UInt32) {
        let count = childCount
        invariant(count < type.childrenMax, "a child is added to a full node")
        switch type {
        case .node4: insertSorted(byte, child, count: count, children: RadixNode.children4)
        case .node16: insertSorted(byte, child, count: count, children: RadixNode.children16)
        case .node48:
            unsafe base.storeBytes(of: UInt8(count + 1), toByteOffset: RadixNode.body + Int(byte), as: UInt8.self)
            unsafe base.storeBytes(of: child, toByteOffset: RadixNode.children48 + count * 4, as: UInt32.self)
        case .node256:
            unsafe base.storeBytes(of: child, toByteOffset: RadixNode.body + Int(byte) * 4, as: UInt32.self)
        }
        childCount = count + 1
    }

    private func insertSorted(_ byte: UInt8, _ child: UInt32, count: Int, children: Int) {
        var index = count
        while index > 0, unsafe base.load(fromByteOffset: RadixNode.body + index - 1, as: UInt8.self) > byte {
            let moved = unsafe base.load(fromByteOffset: RadixNode.body + index - 1, as: UInt8.self)
            unsafe base.storeBytes(of: moved, toByteOffset: RadixNode.body + index, as: UInt8.self)
            let movedChild = unsafe base.load(fromByteOffset: children + (index - 1) * 4, as: UInt32.self)
            unsafe base.storeBytes(of: movedChild, toByteOffset: children + index * 4, as: UInt32.self)
            index -= 1
        }
        unsafe base.storeBytes(of: byte, toByteOffset: RadixNode.body + index, as: UInt8.self)
        unsafe base.storeBytes(of: child, toByteOffset: children + index * 4, as: UInt32.self)
    }

    /// Takes prefix, terminal and children of a smaller node.
    /// - Precondition: this node is freshly initialized and of the next larger type.
    func adopt(_ smaller: RadixNode) {
        unsafe terminalSlot.storeBytes(of: smaller.terminal, as: UInt32.self)
        prefixCount = smaller.prefixCount
        prefixSource = smaller.prefixSource
        unsafe inlinePrefix.copyMemory(from: smaller.inlinePrefix, byteCount: RadixNode.inlinePrefixMax)
        var position = 0
        while let (byte, child) = smaller.nextChild(&position) { addChild(byte, child) }
    }

    // MARK: Order

    /// The child at or behind `position`, ascending by byte; moves the position behind it. A position is a slot in the two
    /// small types and a byte in the others.
    @inline(__always)
    func nextChild(_ position: inout Int) -> (byte: UInt8, child: UInt32)? {
        switch type {
        case .node4: sortedChild(&position, children: RadixNode.children4)
        case .node16: sortedChild(&position, children: RadixNode.children16)
        case .node48: indexedChild(&position)
        case .node256: directChild(&position)
        }
    }

    @inline(__always)
    private func sortedChild(_ position: inout Int, children: Int) -> (byte: UInt8, child: UInt32)? {
        guard position < childCount else { return nil }
        defer { position &+= 1 }
        return unsafe (
            base.load(fromByteOffset: RadixNode.body &+ position, as: UInt8.self),
            base.load(fromByteOffset: children &+ position &* 4, as: UInt32.self)
        )
    }

    private func indexedChild(_ position: inout Int) -> (byte: UInt8, child: UInt32)? {
        while position < 256 {
            let slot = unsafe base.load(fromByteOffset: RadixNode.body &+ position, as: UInt8.self)
            position &+= 1
            if slot != 0 {
                let child = unsafe base.load(
                    fromByteOffset: RadixNode.children48 &+ (Int(slot) &- 1) &* 4, as: UInt32.self)
                return (UInt8(position &- 1), child)
            }
        }
        return nil
    }

    private func directChild(_ position: inout Int) -> (byte: UInt8, child: UInt32)? {
        while position < 256 {
            let child = unsafe base.load(fromByteOffset: RadixNode.body &+ position &* 4, as: UInt32.self)
            position &+= 1
            if child != 0 { return (UInt8(position &- 1), child) }
        }
        return nil
    }

    /// The position of the first child whose byte is at least `byte`.
    func position(atLeast byte: UInt8) -> Int {
        switch type {
        case .node4, .node16:
            var index = 0
            while index < childCount, unsafe base.load(fromByteOffset: RadixNode.body + index, as: UInt8.self) < byte {
                index += 1
            }
            return index
        case .node48, .node256: return Int(byte)
        }
    }
}
