// Every key that exists in the session's key groups: the reason a read of an absent key costs no request. Until the bulk load is
// complete it answers "unknown"; from then on a key that is not here does not exist. It may say "present" for a key that is gone,
// which costs a request; a false "absent" would be silent data loss. Owned by the session's task.
//
// A key is known by 79 bits of two hashes under secrets of the process, not by its bytes: two living keys of the same identity
// would be one here, and the deletion of one would hide the other. Among 100 million keys some two share one with a probability
// of 10⁻⁸ (n² / 2⁸⁰), far below what disk and memory do unnoticed; keys cannot be chosen to collide, as the secrets are not known.
// See docs/decisions/0115.
//
//   segment (8 bits) ─► hashes   u64 × slots   ascending; 0: free
//                       checks   u8  × slots   7 bits more of identity, bit 7: removed while the load is under way
//                       expiries u32 × slots   only in segments that have a key that expires: see `ExpiryCode`
//
// A segment is an ordered table with linear probing (Amble and Knuth, "Ordered hash tables", 1974): a hash's home is its share of
// the slots, so homes ascend as hashes do, a search ends at the first greater hash, and a segment is written into a larger one in
// one pass. It may be nine tenths full, and grows by an eighth: 9 bytes a slot are 10 to 11.3 bytes a key.

package import CisternPrimitives

@safe package final class KeyIndex {
    static let segmentBits = 8
    /// Slots looked at by each insertion in search of expired keys: enough to go round before as many keys more have come, also
    /// in segments that are half empty.
    private static let sweepSlotsPerInsertion = 4

    /// Of living keys.
    package private(set) var count = 0
    /// Of all memory that grows with the keys.
    package private(set) var byteCount: Int
    /// True once the stream has brought every key.
    package private(set) var isComplete = false

    private let segments: UnsafeMutablePointer<KeyIndexSegment>
    private var expiryCode = ExpiryCode()
    private let secrets: (UInt64, UInt64)
    private var sweepSegment = 0
    private var sweepSlot = 0

    /// - Parameter seed: of the secrets, for tests; nil: random ones.
    package init(seed: UInt64? = nil) {
        if let seed {
            var random = SeededRandom(seed: seed)
            secrets = (random.next(), random.next())
        } else {
            var random = SystemRandomNumberGenerator()
            secrets = (random.next(), random.next())
        }
        let segmentCount = 1 << Self.segmentBits
        unsafe segments = .allocate(capacity: segmentCount)
        for number in 0..<segmentCount { unsafe (segments + number).initialize(to: KeyIndexSegment()) }
        byteCount = segmentCount * MemoryLayout<KeyIndexSegment>.stride
    }

    deinit {
        for number in 0..<1 << Self.segmentBits { unsafe segments[number].deallocate() }
        unsafe segments.deallocate()
    }

    // MARK: Keys

    /// The key's expiry, at most a second too late; nil when the key does not exist. Whether it has expired is for the caller to
    /// judge.
    package func lookUp(_ key: [UInt8]) -> Expiry? {
        let identity = unsafe key.withUnsafeBytes { unsafe self.identity($0) }
        let segment = unsafe segments + identity.segment
        guard let slot = unsafe segment.pointee.find(identity), unsafe !segment.pointee.isRemoved(slot) else {
            return nil
        }
        return unsafe expiryCode.decode(segment.pointee.expiry(slot))
    }

    /// The session wrote the key.
    package func insert(_ key: [UInt8], expiry: Expiry, clock: ExpiryClock) {
        let identity = unsafe key.withUnsafeBytes { unsafe self.identity($0) }
        let segment = unsafe segments + identity.segment
        let code = encode(expiry)
        if let slot = unsafe segment.pointee.find(identity) {
            if unsafe segment.pointee.revive(slot) { count += 1 }
            measured(identity.segment) { unsafe segment.pointee.setExpiry(code, slot) }
            return
        }
        measured(identity.segment) { unsafe segment.pointee.add(identity, expiry: code, isRemoved: false) }
        count += 1
        if expiryCode.isUsed { sweep(clock) }
    }

    /// The server says the key existed when its page was read. What the session wrote or deleted since then is newer.
    package func insertFromServer(_ key: UnsafeRawBufferPointer, expiry: Expiry) {
        let identity = unsafe identity(key)
        let segment = unsafe segments + identity.segment
        if unsafe segment.pointee.find(identity) != nil { return }
        let code = encode(expiry)
        measured(identity.segment) { unsafe segment.pointee.add(identity, expiry: code, isRemoved: false) }
        count += 1
    }

    /// The session deleted the key.
    package func remove(_ key: [UInt8]) {
        let identity = unsafe key.withUnsafeBytes { unsafe self.identity($0) }
        let segment = unsafe segments + identity.segment
        guard let slot = unsafe segment.pointee.find(identity) else {
            // The stream may still bring it.
            if !isComplete {
                measured(identity.segment) { unsafe segment.pointee.add(identity, expiry: 0, isRemoved: true) }
            }
            return
        }
        if isComplete {
            removeSlot(identity.segment, slot)
        } else if unsafe segment.pointee.markRemoved(slot) {
            count -= 1
        }
    }

    /// The stream has brought every key.
    package func finishLoading() {
        isComplete = true
        for number in 0..<1 << Self.segmentBits {
            measured(number) { unsafe segments[number].dropRemoved() }
        }
    }

    private func removeSlot(_ segment: Int, _ slot: Int) {
        var cursor = segment == sweepSegment ? sweepSlot : 0
        measured(segment) { unsafe segments[segment].close(slot, cursor: &cursor) }
        if segment == sweepSegment { sweepSlot = cursor }
        count -= 1
    }

    /// Expired keys are never asked for again, so nobody would notice them: each insertion looks at a few slots.
    private func sweep(_ clock: ExpiryClock) {
        for _ in 0..<Self.sweepSlotsPerInsertion {
            let segment = unsafe segments + sweepSegment
            guard unsafe segment.pointee.hasExpiries, unsafe sweepSlot < segment.pointee.slotCount else {
                sweepSegment = (sweepSegment + 1) & (1 << Self.segmentBits - 1)
                sweepSlot = 0
                continue
            }
            let code = unsafe segment.pointee.expiry(sweepSlot)
            if code != 0, unsafe segment.pointee.isLiving(sweepSlot), clock.isExpired(expiryCode.decode(code)) {
                // What follows moves here, and is looked at next.
                removeSlot(sweepSegment, sweepSlot)
            } else {
                sweepSlot += 1
            }
        }
    }

    private func encode(_ expiry: Expiry) -> UInt32 {
        if expiryCode.wasBegunTooEarly(for: expiry) {
            let old = expiryCode
            expiryCode.forgetBase(of: expiry)
            _ = expiryCode.encode(expiry)
            for number in 0..<1 << Self.segmentBits {
                unsafe segments[number].changeExpiries { expiryCode.encode(old.decode($0)) }
            }
        }
        return expiryCode.encode(expiry)
    }

    private func measured(_ segment: Int, _ change: () -> Void) {
        let before = unsafe segments[segment].byteCount
        change()
        byteCount += unsafe segments[segment].byteCount - before
    }

    @inline(__always)
    private func identity(_ key: UnsafeRawBufferPointer) -> KeyIdentity {
        let first = unsafe Hash64.hash(key, secret: secrets.0)
        let second = unsafe Hash64.hash(key, secret: secrets.1)
        return KeyIdentity(
            hash: max(1, first), check: UInt8(truncatingIfNeeded: second) & 0x7F,
            segment: Int(truncatingIfNeeded: second >> (64 - UInt64(Self.segmentBits))))
    }
}

struct KeyIdentity {
    /// Not 0.
    var hash: UInt64
    /// 7 bits.
    var check: UInt8
    var segment: Int
}

/// Expiries in 32 bits, never too early: 0 is never; bit 31 tells the clock, as in `Expiry`; bit 30 clear: 1 + milliseconds after a
/// base, set: 1 + units of 1,024 ms after it, rounded up. The base of a clock is set by its first expiry, six days before it.
struct ExpiryCode {
    private static let eventBit: UInt32 = 1 << 31
    private static let coarseBit: UInt32 = 1 << 30
    private static let span: UInt64 = 1 << 30
    private static let unitBits: UInt64 = 10

    private var processingBase: UInt64?
    private var eventBase: UInt64?
    var isUsed: Bool { processingBase != nil || eventBase != nil }

    /// Milliseconds of a time in this century; what is far below them is none of the calendar's.
    private static let calendar: UInt64 = 1 << 40

    /// True when the base was set by an expiry that was written before the first watermark, from 0 on, and this is one of the
    /// calendar: the span between them is longer than codes reach.
    func wasBegunTooEarly(for expiry: Expiry) -> Bool {
        guard expiry.milliseconds >= Self.calendar, let base = expiry.isEventTime ? eventBase : processingBase else {
            return false
        }
        return base < Self.calendar - Self.span
    }

    mutating func forgetBase(of expiry: Expiry) {
        if expiry.isEventTime { eventBase = nil } else { processingBase = nil }
    }

    mutating func encode(_ expiry: Expiry) -> UInt32 {
        if expiry == .never { return 0 }
        let milliseconds = expiry.milliseconds
        let known = expiry.isEventTime ? eventBase : processingBase
        let base = known ?? milliseconds - min(milliseconds, Self.span / 2)
        if known == nil {
            if expiry.isEventTime { eventBase = base } else { processingBase = base }
        }
        let clock = expiry.isEventTime ? Self.eventBit : 0
        // What is before the base expired long ago.
        let distance = milliseconds > base ? milliseconds - base : 0
        if distance + 1 < Self.span { return clock | UInt32(distance + 1) }
        let unit: UInt64 = 1 << Self.unitBits
        let units = (distance >> Self.unitBits) + (distance & (unit - 1) == 0 ? 0 : 1)
        // Centuries away: never.
        guard units + 1 < Self.span else { return 0 }
        return clock | Self.coarseBit | UInt32(units + 1)
    }

    func decode(_ code: UInt32) -> Expiry {
        if code == 0 { return .never }
        let isEvent = code & Self.eventBit != 0
        let number = UInt64(code & (Self.coarseBit - 1)) - 1
        let distance = code & Self.coarseBit == 0 ? number : number << Self.unitBits
        let milliseconds = ((isEvent ? eventBase : processingBase) ?? 0) + distance
        return isEvent ? .eventTime(milliseconds: milliseconds) : .processingTime(milliseconds: milliseconds)
    }
}

/// One ordered table. Whoever made it deallocates it.
@safe struct KeyIndexSegment {
    private static let removedFlag: UInt8 = 0x80
    private static let slotsMin = 16
    /// Above these a segment grows by an eighth instead of doubling.
    private static let slotsToDouble = 64

    private var hashes: UnsafeMutablePointer<UInt64>?
    private var expiries: UnsafeMutablePointer<UInt32>?
    /// Homes.
    private var homeCount = 0
    /// Homes, and slots behind the last one for what does not find room before.
    private(set) var slotCount = 0
    /// Slots in use.
    private var used = 0
    private var removed = 0

    var hasExpiries: Bool { unsafe expiries != nil }

    var byteCount: Int { slotCount * (unsafe expiries == nil ? 9 : 13) }

    func deallocate() {
        unsafe hashes?.deallocate()
        unsafe expiries?.deallocate()
    }

    private var checks: UnsafeMutablePointer<UInt8> {
        unsafe UnsafeMutableRawPointer(hashes! + slotCount).assumingMemoryBound(to: UInt8.self)
    }

    @inline(__always)
    private func home(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: ((hash >> 32) &* UInt64(homeCount)) >> 32) }

    // MARK: Slots

    @inline(__always)
    func find(_ identity: KeyIdentity) -> Int? {
        guard let hashes = unsafe hashes else { return nil }
        var slot = home(identity.hash)
        while slot < slotCount {
            let found = unsafe hashes[slot]
            if found >= identity.hash {
                if found > identity.hash { return nil }
                if unsafe checks[slot] & ~Self.removedFlag == identity.check { return slot }
            } else if found == 0 {
                return nil
            }
            slot += 1
        }
        return nil
    }

    func isRemoved(_ slot: Int) -> Bool { unsafe checks[slot] & Self.removedFlag != 0 }

    func isLiving(_ slot: Int) -> Bool { unsafe hashes![slot] != 0 && !isRemoved(slot) }

    func expiry(_ slot: Int) -> UInt32 { unsafe expiries.map { unsafe $0[slot] } ?? 0 }

    mutating func setExpiry(_ code: UInt32, _ slot: Int) {
        if unsafe expiries == nil {
            if code == 0 { return }
            unsafe expiries = .allocate(capacity: slotCount)
            unsafe expiries!.initialize(repeating: 0, count: slotCount)
        }
        unsafe expiries![slot] = code
    }

    func changeExpiries(_ change: (UInt32) -> UInt32) {
        guard let expiries = unsafe expiries else { return }
        for slot in 0..<slotCount where unsafe expiries[slot] != 0 { unsafe expiries[slot] = change(expiries[slot]) }
    }

    /// False when the slot was removed already.
    mutating func markRemoved(_ slot: Int) -> Bool {
        if isRemoved(slot) { return false }
        unsafe checks[slot] |= Self.removedFlag
        removed += 1
        return true
    }

    /// False when the slot was living.
    mutating func revive(_ slot: Int) -> Bool {
        if !isRemoved(slot) { return false }
        unsafe checks[slot] &= ~Self.removedFlag
        removed -= 1
        return true
    }

    /// - Precondition: the identity is not here.
    mutating func add(_ identity: KeyIdentity, expiry: UInt32, isRemoved: Bool) {
        if (used + 1) * 10 > homeCount * 9 { resize(nextHomeCount) }
        var slot = place(identity)
        while slot == nil {
            // The slots behind the last home are full.
            resize(nextHomeCount)
            slot = place(identity)
        }
        used += 1
        if isRemoved, let slot {
            unsafe checks[slot] |= Self.removedFlag
            removed += 1
        }
        if expiry != 0, let slot { setExpiry(expiry, slot) }
    }

    private var nextHomeCount: Int {
        if homeCount < Self.slotsToDouble { return max(Self.slotsMin, homeCount * 2) }
        return homeCount + homeCount / 8
    }

    /// Makes room behind what is not greater; nil when there is none up to the end.
    private mutating func place(_ identity: KeyIdentity) -> Int? {
        guard let hashes = unsafe hashes else { return nil }
        var slot = home(identity.hash)
        while slot < slotCount, unsafe hashes[slot] != 0, unsafe hashes[slot] <= identity.hash { slot += 1 }
        var free = slot
        while free < slotCount, unsafe hashes[free] != 0 { free += 1 }
        if free >= slotCount { return nil }
        let moved = free - slot
        let checks = unsafe self.checks
        if moved > 0 {
            unsafe (hashes + slot + 1).update(from: hashes + slot, count: moved)
            unsafe (checks + slot + 1).update(from: checks + slot, count: moved)
            if let expiries = unsafe expiries {
                unsafe (expiries + slot + 1).update(from: expiries + slot, count: moved)
            }
        }
        unsafe hashes[slot] = identity.hash
        unsafe checks[slot] = identity.check
        if let expiries = unsafe expiries { unsafe expiries[slot] = 0 }
        return slot
    }

    /// Takes a slot out: what follows it and is not at home moves up.
    /// - Parameter cursor: a slot; nothing that was at it or behind it is before it afterwards.
    mutating func close(_ slot: Int, cursor: inout Int) {
        guard let hashes = unsafe hashes else { return }
        var end = slot + 1
        while end < slotCount, unsafe hashes[end] != 0, unsafe home(hashes[end]) < end { end += 1 }
        let moved = end - slot - 1
        let checks = unsafe self.checks
        if unsafe checks[slot] & Self.removedFlag != 0 { removed -= 1 }
        if moved > 0 {
            unsafe (hashes + slot).update(from: hashes + slot + 1, count: moved)
            unsafe (checks + slot).update(from: checks + slot + 1, count: moved)
            if let expiries = unsafe expiries {
                unsafe (expiries + slot).update(from: expiries + slot + 1, count: moved)
            }
        }
        unsafe hashes[end - 1] = 0
        unsafe checks[end - 1] = 0
        if let expiries = unsafe expiries { unsafe expiries[end - 1] = 0 }
        used -= 1
        if slot < cursor { cursor -= 1 }
        guard homeCount > Self.slotsToDouble, used * 2 < homeCount else { return }
        let next = hash(from: cursor)
        resize(max(Self.slotsMin, used + used / 4))
        // Hashes ascend, and none is before its home.
        cursor = next.map { home($0) } ?? slotCount
    }

    /// The first one at a slot or behind it.
    private func hash(from start: Int) -> UInt64? {
        guard let hashes = unsafe hashes else { return nil }
        for slot in start..<max(start, slotCount) where unsafe hashes[slot] != 0 { return unsafe hashes[slot] }
        return nil
    }

    /// Forgets what was removed while the load was under way.
    mutating func dropRemoved() {
        guard removed > 0 else { return }
        let living = used - removed
        resize(max(Self.slotsMin, living + living / 4), dropsRemoved: true)
    }

    /// Writes the segment anew in one pass: its order stays.
    private mutating func resize(_ homes: Int, dropsRemoved: Bool = false) {
        var homes = homes
        while true {
            var fresh = KeyIndexSegment()
            if fresh.fill(from: self, homes: homes, dropsRemoved: dropsRemoved) {
                deallocate()
                self = fresh
                return
            }
            // What is near the end did not find room behind the last home.
            fresh.deallocate()
            homes += homes / 8 + 1
        }
    }

    private mutating func fill(from old: KeyIndexSegment, homes: Int, dropsRemoved: Bool) -> Bool {
        homeCount = homes
        slotCount = homes + Self.slotsMin + homes / 64
        let memory = UnsafeMutableRawPointer.allocate(byteCount: slotCount * 9, alignment: 64)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: slotCount * 9)
        let fresh = unsafe memory.bindMemory(to: UInt64.self, capacity: slotCount)
        unsafe hashes = fresh
        if unsafe old.expiries != nil {
            unsafe expiries = .allocate(capacity: slotCount)
            unsafe expiries!.initialize(repeating: 0, count: slotCount)
        }
        guard let before = unsafe old.hashes else { return true }
        let (oldChecks, freshChecks) = unsafe (old.checks, checks)
        var next = 0
        for slot in 0..<old.slotCount where unsafe before[slot] != 0 {
            let isRemoved = old.isRemoved(slot)
            if isRemoved && dropsRemoved { continue }
            next = max(next, unsafe home(before[slot]))
            if next >= slotCount { return false }
            unsafe fresh[next] = unsafe before[slot]
            unsafe freshChecks[next] = unsafe oldChecks[slot]
            if let expiries = unsafe expiries { unsafe expiries[next] = old.expiry(slot) }
            used += 1
            if isRemoved { removed += 1 }
            next += 1
        }
        return true
    }
}
