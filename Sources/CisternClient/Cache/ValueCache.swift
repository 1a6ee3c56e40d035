// Values read or written before, as the serializer made them, so that a hit costs no decompression. It holds what the tree
// holds once every acknowledged batch is applied; newer writes are in the write tables and are looked at first. It also
// remembers that a key is absent, when no key index does. Owned by the session's task.
//
// Eviction is SIEVE (Zhang et al., NSDI '24): a queue in order of insertion, a bit set by each hit, and a hand that moves
// from the oldest to the newest, clearing bits and evicting the first entry without one. A hit moves nothing, which makes it
// cheaper than LRU, and one-time keys of a scan leave first.

package import CisternPrimitives

package struct ValueCache {
    package enum Hit {
        /// Keeping the slice makes the next change of the entry copy it.
        case value(ArraySlice<UInt8>, Expiry)
        case absent
    }

    /// What a node costs beside its key and value: the node, slots, an array header.
    package static let nodeOverheadBytes = 112
    private static let none: Int32 = -1

    private struct Node {
        var hash: UInt64
        var expiry: Expiry
        /// The key and behind it the value: an entry is one allocation.
        var bytes: [UInt8]
        var keyCount: UInt32
        /// Towards newer entries; in the free list, the next free node.
        var newer: Int32
        var older: Int32
        var isVisited: Bool
        /// Read ahead and not used yet: kept for one round of the hand, and its first hit counts for nothing more.
        var isAwaited: Bool
        var isAbsent: Bool

        var value: ArraySlice<UInt8> { bytes[Int(keyCount)...] }
        var byteCount: Int { bytes.count + ValueCache.nodeOverheadBytes }
    }

    package let capacityBytes: Int
    package private(set) var byteCount = 0
    package private(set) var count = 0
    private var nodes: [Node] = []
    /// Upper half of the key's hash, node index + 1, or 0; linear probing, deletion by shifting back. The hash is there so that a
    /// search looks at no node but the key's own: each is a miss of the processor's cache.
    private var slots: [UInt64] = [UInt64](repeating: 0, count: 64)
    private var freeHead: Int32 = none
    private var newest: Int32 = none
    private var oldest: Int32 = none
    private var hand: Int32 = none

    package init(capacityBytes: Int) { self.capacityBytes = capacityBytes }

    package mutating func get(_ key: [UInt8], hash: UInt64) -> Hit? {
        guard let node = find(key, hash: hash) else { return nil }
        if nodes[node].isAwaited { nodes[node].isAwaited = false } else { nodes[node].isVisited = true }
        return nodes[node].isAbsent ? .absent : .value(nodes[node].value, nodes[node].expiry)
    }

    package mutating func set(
        _ key: ArraySlice<UInt8>, hash: UInt64, value: ArraySlice<UInt8>, expiry: Expiry, isAwaited: Bool = false
    ) {
        unsafe key.withUnsafeBytes { key in
            unsafe value.withUnsafeBytes { value in
                unsafe store(key, hash: hash, value: value, expiry: expiry, isAbsent: false, isAwaited: isAwaited)
            }
        }
    }

    /// Remembers that the key does not exist.
    package mutating func setAbsent(_ key: [UInt8], hash: UInt64) {
        unsafe key.withUnsafeBytes { key in
            unsafe store(
                key, hash: hash, value: UnsafeRawBufferPointer(start: nil, count: 0), expiry: .never, isAbsent: true,
                isAwaited: false)
        }
    }

    /// Extends a value that is here; a key known to be absent becomes the operand; an unknown key stays unknown.
    package mutating func append(_ key: [UInt8], hash: UInt64, operand: ArraySlice<UInt8>, expiry: Expiry) {
        guard let node = find(key, hash: hash) else { return }
        byteCount += operand.count
        nodes[node].bytes.append(contentsOf: operand)
        nodes[node].expiry = expiry
        nodes[node].isAbsent = false
        // A list that outgrew the cache goes at once instead of pushing everything else out first.
        if nodes[node].byteCount > capacityBytes / 4 { removeNode(Int32(node)) }
        evict()
    }

    package mutating func remove(_ key: [UInt8], hash: UInt64) {
        guard let node = find(key, hash: hash) else { return }
        removeNode(Int32(node))
    }

    private mutating func store(
        _ key: UnsafeRawBufferPointer, hash: UInt64, value: UnsafeRawBufferPointer, expiry: Expiry, isAbsent: Bool,
        isAwaited: Bool
    ) {
        let bytes = key.count + value.count + Self.nodeOverheadBytes
        if let node = unsafe find(key, hash: hash) {
            // The budget also covers the entry itself: one that is too large is not kept, and neither is its old value.
            if bytes > capacityBytes / 4 { return removeNode(Int32(node)) }
            byteCount += bytes - nodes[node].byteCount
            unsafe replaceValue(node, with: value)
            nodes[node].expiry = expiry
            nodes[node].isAbsent = isAbsent
            return evict()
        }
        if bytes > capacityBytes / 4 { return }
        if (count + 1) * 3 > slots.count * 2 { growSlots() }
        let index = unsafe allocateNode(
            Node(
                hash: hash, expiry: expiry, bytes: Self.joined(key, value), keyCount: UInt32(key.count),
                newer: Self.none, older: newest, isVisited: false, isAwaited: isAwaited, isAbsent: isAbsent))
        if newest >= 0 { nodes[Int(newest)].newer = index }
        newest = index
        if oldest < 0 { oldest = index }
        insertSlot(hash: hash, node: index)
        count += 1
        byteCount += bytes
        evict()
    }

    private static func joined(_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(key.count + value.count)
        unsafe bytes.append(contentsOf: key)
        unsafe bytes.append(contentsOf: value)
        return bytes
    }

    private mutating func replaceValue(_ node: Int, with value: UnsafeRawBufferPointer) {
        let keyCount = Int(nodes[node].keyCount)
        // Counters and the like keep their size, and so their memory.
        if nodes[node].bytes.count == keyCount + value.count {
            unsafe nodes[node].bytes.withUnsafeMutableBytes {
                unsafe UnsafeMutableRawBufferPointer(rebasing: $0[keyCount...]).copyMemory(from: value)
            }
        } else {
            nodes[node].bytes = unsafe nodes[node].bytes.withUnsafeBytes {
                unsafe Self.joined(UnsafeRawBufferPointer(rebasing: $0[..<keyCount]), value)
            }
        }
    }

    private mutating func evict() {
        while byteCount > capacityBytes, count > 0 {
            var candidate = hand >= 0 ? hand : oldest
            // Ends: each step clears a bit, and a node without one is taken.
            while nodes[Int(candidate)].isVisited || nodes[Int(candidate)].isAwaited {
                nodes[Int(candidate)].isVisited = false
                nodes[Int(candidate)].isAwaited = false
                candidate = nodes[Int(candidate)].newer >= 0 ? nodes[Int(candidate)].newer : oldest
            }
            hand = candidate
            removeNode(candidate)
        }
    }

    private mutating func removeNode(_ index: Int32) {
        let node = Int(index)
        removeSlot(node: index)
        let newer = nodes[node].newer
        let older = nodes[node].older
        if newer >= 0 { nodes[Int(newer)].older = older } else { newest = older }
        if older >= 0 { nodes[Int(older)].newer = newer } else { oldest = newer }
        if hand == index { hand = newer }
        count -= 1
        byteCount -= nodes[node].byteCount
        nodes[node].bytes = []
        nodes[node].newer = freeHead
        freeHead = index
    }

    private mutating func allocateNode(_ node: Node) -> Int32 {
        if freeHead >= 0 {
            let index = freeHead
            freeHead = nodes[Int(index)].newer
            nodes[Int(index)] = node
            return index
        }
        nodes.append(node)
        return Int32(nodes.count - 1)
    }

    private func home(_ slot: UInt64) -> Int { Int(truncatingIfNeeded: slot >> 32) & (slots.count - 1) }

    private static func node(_ slot: UInt64) -> Int { Int(slot & 0xFFFF_FFFF) - 1 }

    private func find(_ key: [UInt8], hash: UInt64) -> Int? {
        unsafe key.withUnsafeBytes { unsafe find($0, hash: hash) }
    }

    private func find(_ key: UnsafeRawBufferPointer, hash: UInt64) -> Int? {
        guard count > 0 else { return nil }
        let mask = slots.count - 1
        let tag = hash >> 32
        var position = Int(truncatingIfNeeded: tag) & mask
        while slots[position] != 0 {
            let slot = slots[position]
            if slot >> 32 == tag {
                let node = Self.node(slot)
                if nodes[node].hash == hash, unsafe hasKey(node, key) { return node }
            }
            position = (position + 1) & mask
        }
        return nil
    }

    private func hasKey(_ node: Int, _ key: UnsafeRawBufferPointer) -> Bool {
        guard Int(nodes[node].keyCount) == key.count else { return false }
        return unsafe nodes[node].bytes.withUnsafeBytes {
            unsafe compareBytes(UnsafeRawBufferPointer(rebasing: $0[..<key.count]), key) == 0
        }
    }

    private mutating func insertSlot(hash: UInt64, node: Int32) {
        let mask = slots.count - 1
        var position = Int(truncatingIfNeeded: hash >> 32) & mask
        while slots[position] != 0 { position = (position + 1) & mask }
        slots[position] = (hash & ~0xFFFF_FFFF) | UInt64(node + 1)
    }

    private mutating func removeSlot(node: Int32) {
        let mask = slots.count - 1
        let removed = (nodes[Int(node)].hash & ~0xFFFF_FFFF) | UInt64(node + 1)
        var hole = home(removed)
        while slots[hole] != removed { hole = (hole + 1) & mask }
        var next = (hole + 1) & mask
        while slots[next] != 0 {
            // An entry may fill the hole unless its home lies behind the hole, cyclically.
            if (next - home(slots[next])) & mask >= (next - hole) & mask {
                slots[hole] = slots[next]
                hole = next
            }
            next = (next + 1) & mask
        }
        slots[hole] = 0
    }

    private mutating func growSlots() {
        slots = [UInt64](repeating: 0, count: slots.count * 2)
        var index = oldest
        while index >= 0 {
            insertSlot(hash: nodes[Int(index)].hash, node: index)
            index = nodes[Int(index)].newer
        }
    }
}
