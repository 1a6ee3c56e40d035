// The key index against sets and dictionaries of whole keys: it must never say "absent" of a key that lives.

import CisternClient
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct KeyIndexTests {
    static func key(_ number: Int, size: Int = 12) -> [UInt8] {
        Array(withUnsafeBytes(of: UInt64(number)) { Array($0) } + [UInt8](repeating: 0x55, count: size - 8))
    }

    static func load(_ index: KeyIndex, _ key: [UInt8], _ expiry: Expiry = .never) {
        key.withUnsafeBytes { index.insertFromServer($0, expiry: expiry) }
    }

    @Test func equalsASetUnderRandomInsertionsRemovalsAndExpiry() {
        var random = SeededRandom(seed: testSeed())
        let index = KeyIndex(seed: random.next())
        index.finishLoading()
        var truth: [[UInt8]: Expiry] = [:]
        var clock = ExpiryClock(processing: 1, event: 1)
        // Phases of growth and of decline, so that segments become larger and smaller.
        for step in 0..<200_000 {
            let isGrowing = step / 25_000 % 2 == 0
            let key = Self.key(Int.random(in: 0..<9000, using: &random), size: Int.random(in: 8...9, using: &random))
            switch Int.random(in: 0..<10, using: &random) {
            case 0...(isGrowing ? 5 : 1):
                let expiry: Expiry = [
                    .never, .processingTime(milliseconds: clock.processing + 5000),
                    .eventTime(milliseconds: clock.event + 9000),
                ].randomElement(using: &random)!
                index.insert(key, expiry: expiry, clock: clock)
                truth[key] = expiry
            case 0...7:
                index.remove(key)
                truth[key] = nil
            default:
                let found = index.lookUp(key).map { !clock.isExpired($0) } ?? false
                let expected = truth[key].map { !clock.isExpired($0) } ?? false
                #expect(found == expected)
            }
            if step % 7 == 0 { clock.processing += 1 }
            if step % 11 == 0 { clock.event += 1 }
        }
        for (key, expiry) in truth where !clock.isExpired(expiry) { #expect(index.lookUp(key) == expiry) }
        let living = truth.values.filter { !clock.isExpired($0) }.count
        #expect(index.count >= living && index.count <= truth.count)
    }

    @Test func keysThatAreChosenToCollideAreToldApart() {
        // The first word is a factor of `Hash64`, which makes a product 0 whatever the second word is.
        let factor = withUnsafeBytes(of: UInt64(0xA076_1D64_78BD_642F).littleEndian) { Array($0) }
        let keys = (0..<5000).map { number in
            factor + withUnsafeBytes(of: UInt64(number)) { Array($0) } + [UInt8](repeating: 7, count: 16)
        }
        #expect(Set(keys.map { Hash64.hash($0) }).count == 1)
        let index = KeyIndex()
        index.finishLoading()
        let clock = ExpiryClock(processing: 0, event: 0)
        for key in keys { index.insert(key, expiry: .never, clock: clock) }
        #expect(index.count == keys.count)
        for number in stride(from: 0, to: keys.count, by: 2) { index.remove(keys[number]) }
        for (number, key) in keys.enumerated() { #expect((index.lookUp(key) != nil) == (number % 2 == 1)) }
    }

    @Test(arguments: [8, 40])
    func aKeyTakesAtMostTwelveBytes(keyBytes: Int) {
        let index = KeyIndex()
        var worst = 0.0
        for number in 0..<600_000 {
            Self.load(index, Self.key(number, size: keyBytes))
            if number >= 50_000, number % 1000 == 0 {
                worst = max(worst, Double(index.byteCount) / Double(index.count))
            }
        }
        #expect(index.count == 600_000)
        #expect(worst <= 12)
        let atEnd = Double(index.byteCount) / Double(index.count)
        print("key index, keys of \(keyBytes) bytes: \(atEnd) bytes a key at the end, \(worst) at worst")
    }

    @Test func hundredsOfThousandsOfKeysAreLoadedASecond() {
        let keys = 1_000_000
        var bytes = [UInt8](repeating: 0x55, count: 24 * keys)
        bytes.withUnsafeMutableBytes { bytes in
            for number in 0..<keys { bytes.storeBytes(of: UInt64(number), toByteOffset: number * 24, as: UInt64.self) }
        }
        let index = KeyIndex()
        let clock = ContinuousClock()
        let time = clock.measure {
            bytes.withUnsafeBytes { bytes in
                for number in 0..<keys {
                    index.insertFromServer(
                        UnsafeRawBufferPointer(rebasing: bytes[number * 24..<number * 24 + 24]), expiry: .never)
                }
            }
        }
        let rate = Double(keys) / (Double(time.components.attoseconds) / 1e18 + Double(time.components.seconds))
        print("key index: \(Int(rate)) keys/s loaded")
        // Far below what is measured, for machines that do other things too.
        #expect(rate > 200_000)
        #expect(index.count == keys)
    }

    @Test func expiriesAreKeptToTheMillisecondForDaysAndNeverTooEarlyForYears() {
        var random = SeededRandom(seed: testSeed())
        let day: UInt64 = 86_400_000
        for isEvent in [false, true] {
            let index = KeyIndex(seed: 1)
            let now: UInt64 = 1_700_000_000_000
            for number in 0..<2000 {
                let reach = [1000, 5 * day, 100 * day, 10_000 * day].randomElement(using: &random)!
                let milliseconds = now + (number == 0 ? 0 : UInt64.random(in: 0...reach, using: &random))
                let expiry: Expiry =
                    isEvent ? .eventTime(milliseconds: milliseconds) : .processingTime(milliseconds: milliseconds)
                index.insert(Self.key(number), expiry: expiry, clock: ExpiryClock(processing: 0, event: 0))
                let found = index.lookUp(Self.key(number))!
                #expect(found.isEventTime == isEvent)
                #expect(found.milliseconds >= milliseconds && found.milliseconds - milliseconds < 1024)
                if milliseconds - now < 6 * day { #expect(found == expiry) }
            }
            // What expired before anything else was known stays a little longer; what never will in a program's life, for ever.
            index.insert(
                Self.key(1_000_001), expiry: isEvent ? .eventTime(milliseconds: 0) : .processingTime(milliseconds: 1),
                clock: ExpiryClock(processing: 0, event: 0))
            #expect(index.lookUp(Self.key(1_000_001))!.milliseconds < now)
            index.insert(
                Self.key(1_000_002),
                expiry: isEvent ? .eventTime(milliseconds: 1 << 62) : .processingTime(milliseconds: 1 << 62),
                clock: ExpiryClock(processing: 0, event: 0))
            #expect(index.lookUp(Self.key(1_000_002)) == .never)
        }
    }

    @Test func expiriesOfBeforeTheFirstWatermarkDoNotSpoilThoseBehindIt() {
        let index = KeyIndex(seed: 1)
        index.finishLoading()
        var clock = ExpiryClock(processing: 0, event: 0)
        let hour: UInt64 = 3_600_000
        for number in 0..<1000 {
            index.insert(Self.key(number), expiry: .eventTime(milliseconds: hour + UInt64(number)), clock: clock)
        }
        index.insert(Self.key(5000), expiry: .processingTime(milliseconds: 1_700_000_000_000), clock: clock)
        clock.event = 1_700_000_000_000
        for number in 1000..<2000 {
            let expiry = Expiry.eventTime(milliseconds: clock.event + hour + UInt64(number))
            index.insert(Self.key(number), expiry: expiry, clock: clock)
            #expect(index.lookUp(Self.key(number)) == expiry)
        }
        #expect(index.lookUp(Self.key(5000)) == .processingTime(milliseconds: 1_700_000_000_000))
        // Never too early, and gone long before now.
        for number in 0..<1000 {
            guard let found = index.lookUp(Self.key(number)) else { continue }
            #expect(found.isEventTime && found.milliseconds >= hour + UInt64(number))
            #expect(clock.isExpired(found))
        }
    }

    @Test func expiredKeysLeaveByThemselvesAndMemoryIsUsedAgain() {
        let index = KeyIndex()
        index.finishLoading()
        var clock = ExpiryClock(processing: 0, event: 0)
        for number in 0..<200_000 {
            clock.processing = UInt64(number)
            index.insert(
                Self.key(number), expiry: .processingTime(milliseconds: UInt64(number) + 2000), clock: clock)
        }
        #expect(index.count < 20_000)
        #expect(index.byteCount < 1024 * 1024)
    }

    /// Waves of keys that expire together: a segment that loses half of its keys while it is being looked at becomes smaller meanwhile.
    @Test func keysThatExpireInWavesLeaveAllPartsOfTheIndex() {
        let index = KeyIndex(seed: 1)
        index.finishLoading()
        let wave = 5000
        var settled = 0
        for number in 0..<120 * wave {
            let now = 1_000_000 + UInt64(number / wave) * 1000
            index.insert(
                Self.key(number), expiry: .eventTime(milliseconds: now + 10_000),
                clock: ExpiryClock(processing: 0, event: now))
            if number == 40 * wave { settled = index.count }
        }
        #expect(index.count < settled + settled / 50, "\(settled) after 40 waves")
    }

    @Test func memoryGoesWithTheKeys() {
        let index = KeyIndex()
        index.finishLoading()
        let empty = index.byteCount
        for number in 0..<300_000 { Self.load(index, Self.key(number)) }
        let full = index.byteCount
        for number in 0..<300_000 { index.remove(Self.key(number)) }
        #expect(index.count == 0)
        #expect(index.byteCount < empty + full / 20)
    }

    @Test func theSessionsOwnWritesWinOverPagesThatCameLate() {
        var random = SeededRandom(seed: testSeed())
        for _ in 0..<200 {
            // The server's content at the start, streamed in pages while the session writes and deletes.
            var server = Set((0..<400).filter { _ in Bool.random(using: &random) }.map { Self.key($0) })
            let index = KeyIndex(seed: random.next())
            let clock = ExpiryClock(processing: 0, event: 0)
            var position = 0
            while position < 400 {
                if Int.random(in: 0..<10, using: &random) > 0 {
                    let key = Self.key(Int.random(in: 0..<400, using: &random))
                    if Bool.random(using: &random) {
                        server.insert(key)
                        index.insert(key, expiry: .never, clock: clock)
                    } else {
                        server.remove(key)
                        index.remove(key)
                    }
                } else {
                    // A page is read, then the session goes on, then the page arrives.
                    let page = (position..<min(position + 50, 400)).map { Self.key($0) }.filter { server.contains($0) }
                    let late = Self.key(Int.random(in: 0..<400, using: &random))
                    server.remove(late)
                    index.remove(late)
                    for key in page { Self.load(index, key) }
                    position += 50
                }
            }
            index.finishLoading()
            for number in 0..<400 {
                let key = Self.key(number)
                #expect((index.lookUp(key) != nil) == server.contains(key))
            }
            #expect(index.count == server.count)
        }
    }
}
