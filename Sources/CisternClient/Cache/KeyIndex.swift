// Every key that exists in the session's key groups: the reason a read of an absent key costs no request. A false "absent"
// would be silent data loss, so the index keeps whole keys, not fingerprints, and forgets one only when the session itself
// deleted it or its expiry has passed. It may say "present" for a key that is gone; that costs one request. Owned by the
// session's task. Until the bulk load is complete it answers "unknown".
//
//   slots   [ hash bits u32 │ record offset + 1 u32 ]   open addressing, linear probing, deletion by shifting back
//   arena   chunks of 1 MiB of records:
//           ┌──────────────────────────────┬───────────────────────────┬─────┐
//           │ u16 key size, bit 15: expiry │ u64 expiry, if bit 15     │ key │
//           └──────────────────────────────┴───────────────────────────┴─────┘

package import CisternPrimitives

package struct KeyIndex {
    private static let chunkBits = 20
    private static let chunkBytes = 1 << chunkBits
    private static let expiryFlag: UInt16 = 1 << 15
    /// Slots looked at by each insertion in search of expired keys: enough to go round once while the table doubles.
    private static let sweepSlotsPerInsertion = 2
    /// Deletions remembered during a load. Beyond it a deleted key may come back from the stream: one request too many.
    private static let removedWhileLoadingMax = 1_000_000

    package private(set) var count = 0
    private var slots: [UInt64] = [UInt64](repeating: 0, count: 64)
    private var chunks: [[UInt8]] = []
    private var arenaBytes = 0
    private var garbageBytes = 0
    private var sweepCursor = 0
    /// Keys deleted since the load began: the stream may still bring them.
    private var removedWhileLoading: Set<[UInt8]>? = []

    /// True once the stream has brought every key: from then on a key that is not here does not exist.
    package private(set) var isComplete = false

    package init() {}

    package var byteCount: Int { chunks.count * Self.chunkBytes + slots.count * 8 }

    package mutating func finishLoading() {
        isComplete = true
        removedWhileLoading = nil
    }

    /// The key's expiry; nil when it does not exist. Whether it has expired is for the caller to judge.
    package func lookUp(_ key: [UInt8], hash: UInt64) -> Expiry? {
        guard let slot = find(key, hash: hash) else { return nil }
        return expiry(of: slots[slot])
    }

    /// The session wrote the key.
    package mutating func insert(_ key: [UInt8], hash: UInt64, expiry: Expiry, clock: ExpiryClock) {
        if let slot = find(key, hash: hash) {
            if setExpiry(expiry, of: slots[slot]) { return }
            garbageBytes += recordSize(of: slots[slot])
            slots[slot] = append(key, hash: hash, expiry: expiry)
            return
        }
        add(key, hash: hash, expiry: expiry)
        sweep(clock)
    }

    /// The server says the key existed when its page was read. What the session wrote or deleted since then is newer.
    package mutating func insertFromServer(_ key: [UInt8], hash: UInt64, expiry: Expiry) {
        if let removed = removedWhileLoading, !removed.isEmpty, removed.contains(key) { return }
        if find(key, hash: hash) == nil { add(key, hash: hash, expiry: expiry) }
    }

    /// The session deleted the key.
    package mutating func remove(_ key: [UInt8], hash: UInt64) {
        if !isComplete, let removed = removedWhileLoading, removed.count < Self.removedWhileLoadingMax {
            removedWhileLoading?.insert(key)
        }
        guard let slot = find(key, hash: hash) else { return }
        removeSlot(slot)
    }

    private mutating func add(_ key: [UInt8], hash: UInt64, expiry: Expiry) {
        if (count + 1) * 4 > slots.count * 3 { growSlots() }
        insertSlot(append(key, hash: hash, expiry: expiry))
        count += 1
    }

    private mutating func removeSlot(_ slot: Int) {
        garbageBytes += recordSize(of: slots[slot])
        closeHole(at: slot)
        count -= 1
        if garbageBytes > Self.chunkBytes, garbageBytes > arenaBytes / 2 { compact() }
    }

    /// Expired keys are never asked for again, so nobody would notice them: each insertion looks at a few slots.
    private mutating func sweep(_ clock: ExpiryClock) {
        for _ in 0..<Self.sweepSlotsPerInsertion {
            sweepCursor = (sweepCursor + 1) & (slots.count - 1)
            if slots[sweepCursor] != 0, clock.isExpired(expiry(of: slots[sweepCursor])) { removeSlot(sweepCursor) }
        }
    }

    // MARK: Slots

    private func home(_ slot: UInt64) -> Int { Int(truncatingIfNeeded: slot >> 32) & (slots.count - 1) }

    private func find(_ key: [UInt8], hash: UInt64) -> Int? {
        let tag = hash >> 32
        let mask = slots.count - 1
        var index = Int(truncatingIfNeeded: tag) & mask
        while slots[index] != 0 {
            if slots[index] >> 32 == tag, recordMatches(slots[index], key) { return index }
            index = (index + 1) & mask
        }
        return nil
    }

    private mutating func insertSlot(_ slot: UInt64) {
        let mask = slots.count - 1
        var index = home(slot)
        while slots[index] != 0 { index = (index + 1) & mask }
        slots[index] = slot
    }

    private mutating func closeHole(at index: Int) {
        let mask = slots.count - 1
        var hole = index
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
        let old = slots
        slots = [UInt64](repeating: 0, count: old.count * 2)
        for slot in old where slot != 0 { insertSlot(slot) }
    }

    // MARK: Records

    private static func offset(_ slot: UInt64) -> Int { Int(slot & 0xFFFF_FFFF) - 1 }

    private mutating func append(_ key: [UInt8], hash: UInt64, expiry: Expiry) -> UInt64 {
        let size = 2 + (expiry == .never ? 0 : 8) + key.count
        if chunks.isEmpty || chunks[chunks.count - 1].count + size > Self.chunkBytes {
            chunks.append([])
            chunks[chunks.count - 1].reserveCapacity(Self.chunkBytes)
        }
        let chunk = chunks.count - 1
        let offset = chunk << Self.chunkBits | chunks[chunk].count
        let header = UInt16(key.count) | (expiry == .never ? 0 : Self.expiryFlag)
        chunks[chunk].append(UInt8(truncatingIfNeeded: header))
        chunks[chunk].append(UInt8(truncatingIfNeeded: header >> 8))
        if expiry != .never {
            for shift in stride(from: UInt64(0), to: 64, by: 8) {
                chunks[chunk].append(UInt8(truncatingIfNeeded: expiry.rawValue >> shift))
            }
        }
        chunks[chunk].append(contentsOf: key)
        arenaBytes += size
        return (hash >> 32) << 32 | UInt64(offset + 1)
    }

    private func header(of slot: UInt64) -> (chunk: Int, offset: Int, keySize: Int, expires: Bool) {
        let offset = Self.offset(slot)
        let chunk = offset >> Self.chunkBits
        let local = offset & (Self.chunkBytes - 1)
        let header = UInt16(chunks[chunk][local]) | UInt16(chunks[chunk][local + 1]) << 8
        return (chunk, local, Int(header & ~Self.expiryFlag), header & Self.expiryFlag != 0)
    }

    private func recordSize(of slot: UInt64) -> Int {
        let record = header(of: slot)
        return 2 + (record.expires ? 8 : 0) + record.keySize
    }

    private func expiry(of slot: UInt64) -> Expiry {
        let record = header(of: slot)
        guard record.expires else { return .never }
        var raw: UInt64 = 0
        for index in 0..<8 { raw |= UInt64(chunks[record.chunk][record.offset + 2 + index]) << UInt64(index * 8) }
        return Expiry(rawValue: raw)
    }

    /// False when the record has no room for the expiry.
    private mutating func setExpiry(_ expiry: Expiry, of slot: UInt64) -> Bool {
        let record = header(of: slot)
        guard record.expires else { return expiry == .never }
        for index in 0..<8 {
            chunks[record.chunk][record.offset + 2 + index] = UInt8(
                truncatingIfNeeded: expiry.rawValue >> UInt64(index * 8))
        }
        return true
    }

    private func recordMatches(_ slot: UInt64, _ key: [UInt8]) -> Bool {
        let record = header(of: slot)
        guard record.keySize == key.count else { return false }
        let start = record.offset + 2 + (record.expires ? 8 : 0)
        return unsafe chunks[record.chunk].withUnsafeBytes { memory -> Bool in
            unsafe key.withUnsafeBytes { key -> Bool in
                unsafe compareBytes(UnsafeRawBufferPointer(rebasing: memory[start..<(start + key.count)]), key) == 0
            }
        }
    }

    /// Copies the live records into fresh chunks.
    private mutating func compact() {
        let old = chunks
        chunks = []
        arenaBytes = 0
        garbageBytes = 0
        for index in slots.indices where slots[index] != 0 {
            let offset = Self.offset(slots[index])
            let chunk = offset >> Self.chunkBits
            let local = offset & (Self.chunkBytes - 1)
            let header = UInt16(old[chunk][local]) | UInt16(old[chunk][local + 1]) << 8
            let size = 2 + (header & Self.expiryFlag != 0 ? 8 : 0) + Int(header & ~Self.expiryFlag)
            slots[index] = (slots[index] >> 32) << 32 | UInt64(appendRecord(old[chunk][local..<(local + size)]) + 1)
        }
    }

    private mutating func appendRecord(_ record: ArraySlice<UInt8>) -> Int {
        if chunks.isEmpty || chunks[chunks.count - 1].count + record.count > Self.chunkBytes {
            chunks.append([])
            chunks[chunks.count - 1].reserveCapacity(Self.chunkBytes)
        }
        let chunk = chunks.count - 1
        let offset = chunk << Self.chunkBits | chunks[chunk].count
        chunks[chunk].append(contentsOf: record)
        arenaBytes += record.count
        return offset
    }
}
