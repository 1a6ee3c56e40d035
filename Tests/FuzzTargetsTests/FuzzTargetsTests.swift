// The fuzz targets without a fuzzer: their seeds, mutations of these by a seed, and what was found before.

import CisternPrimitives
import CisternTestKit
import Foundation
import FuzzTargets
import Testing

extension FuzzTarget: CustomTestStringConvertible {
    public var testDescription: String { name }
}

@Suite struct FuzzTargetsTests {
    @Test(arguments: FuzzTarget.all) func seedsAreTaken(target: FuzzTarget) throws {
        let seeds = try target.seeds()
        #expect(!seeds.isEmpty)
        for seed in seeds { target.run(seed) }
    }

    @Test(arguments: FuzzTarget.all) func anyBytesAreTaken(target: FuzzTarget) throws {
        for seed in Seeds.seeds(count: 1) {
            Seeds.announce("anyBytesAreTaken \(target.name)", seed)
            var mutator = Mutator(seeds: try target.seeds(), seed: seed)
            for _ in 0..<(target.name == "recovery" ? 300 : 2000) { target.run(mutator.next()) }
        }
    }

    @Test func whatWasFoundStaysMended() throws {
        let found = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("FuzzTargets/Found")
        let files = FileManager.default
        for name in try files.contentsOfDirectory(atPath: found.path) where name != "README.md" {
            let target = try #require(FuzzTarget.named(name), "Found/\(name) is of no target")
            let directory = found.appendingPathComponent(name)
            for input in try files.contentsOfDirectory(atPath: directory.path).sorted() {
                print("\(name): \(input)")
                fflush(nil)
                target.run(Array(try Data(contentsOf: directory.appendingPathComponent(input))))
            }
        }
    }
}

/// Changes good inputs a little, as libFuzzer does without looking.
private struct Mutator {
    let seeds: [[UInt8]]
    var random: SeededRandom

    init(seeds: [[UInt8]], seed: UInt64) {
        self.seeds = seeds
        random = SeededRandom(seed: seed)
    }

    mutating func next() -> [UInt8] {
        var bytes = seeds.randomElement(using: &random) ?? []
        for _ in 0..<Int.random(in: 1...4, using: &random) { change(&bytes) }
        return bytes
    }

    private mutating func change(_ bytes: inout [UInt8]) {
        guard !bytes.isEmpty else { return bytes = [UInt8.random(in: 0...255, using: &random)] }
        let place = Int.random(in: bytes.indices, using: &random)
        switch Int.random(in: 0..<8, using: &random) {
        case 0...2:
            bytes[place] = [0, 1, 0x7F, 0x80, 0xFF, UInt8.random(in: 0...255, using: &random)].randomElement(
                using: &random)!
        case 3: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 4: bytes[place] = bytes[place] &+ (Bool.random(using: &random) ? 1 : 0xFF)
        case 5: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...8, using: &random)))
        case 6: bytes.insert(contentsOf: bytes[place...].prefix(Int.random(in: 1...8, using: &random)), at: place)
        default: bytes.removeSubrange(place...)
        }
    }
}
