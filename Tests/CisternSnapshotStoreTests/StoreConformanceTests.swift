// What every snapshot store must do.

import CisternPrimitives
import CisternSnapshotStore
import CisternTestKit
import Testing

@Suite struct StoreConformanceTests {
    private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    @Test(arguments: StoreKind.available)
    func anObjectIsWrittenOnceAndReadWholeOrInPart(kind: StoreKind) throws {
        try StoreSubject.with(kind) { (subject) throws in
            let store = subject.store
            #expect(try store.get("files/a/x", limit: 10) == nil)
            #expect(try store.get("files/a/x", range: 0..<3) == nil)
            #expect(try store.get("files/a/x", range: 3..<3) == nil)
            #expect(try store.list("") == [])
            #expect(try store.put("files/a/x", bytes("0123456789")))
            #expect(try !store.put("files/a/x", bytes("other")))
            #expect(try store.get("files/a/x", limit: 10) == bytes("0123456789"))
            #expect(try store.get("files/a/x", range: 2..<5) == bytes("234"))
            #expect(try store.get("files/a/x", range: 9..<10) == bytes("9"))
            #expect(try store.get("files/a/x", range: 10..<10) == [])
            #expect(throws: SnapshotStoreError.self) { try store.get("files/a/x", limit: 9) }
            #expect(throws: SnapshotStoreError.self) { try store.get("files/a/x", range: 5..<11) }
            #expect(throws: SnapshotStoreError.self) { try store.get("files/a/x", range: 20..<21) }
            #expect(throws: SnapshotStoreError.self) { try store.get("files/a/x", range: 11..<11) }
        }
    }

    @Test(arguments: StoreKind.available)
    func anObjectMayBeEmpty(kind: StoreKind) throws {
        try StoreSubject.with(kind) { (subject) throws in
            let store = subject.store
            #expect(try store.put("files/a/x", []))
            #expect(try !store.put("files/a/x", [1]))
            #expect(try store.get("files/a/x", limit: 10) == [])
            #expect(try store.get("files/a/x", limit: 0) == [])
            #expect(try store.get("files/a/x", range: 0..<0) == [])
            #expect(throws: SnapshotStoreError.self) { try store.get("files/a/x", range: 0..<1) }
            #expect(try store.list("files/") == [StoredObject(name: "files/a/x", bytes: 0)])
        }
    }

    /// Sizes around those of parts.
    @Test(arguments: StoreKind.available)
    func largeObjectsComeBackAsTheyWere(kind: StoreKind) throws {
        try StoreSubject.with(kind) { (subject) throws in
            let store = subject.store
            var random = SeededRandom(seed: 5)
            let all = (0..<5000).map { _ in UInt8.random(in: 0...255, using: &random) }
            for size in [999, 1000, 1001, 1999, 2000, 2001, 5000] {
                let name = "files/a/\(size)"
                #expect(try store.put(name, Array(all.prefix(size))), "\(size)")
                #expect(try !store.put(name, Array(all.suffix(size))), "\(size)")
                #expect(try store.get(name, limit: size) == Array(all.prefix(size)), "\(size)")
                #expect(try store.get(name, range: 500..<UInt64(size)) == Array(all[500..<size]), "\(size)")
                #expect(try store.get(name, range: 1..<999) == Array(all[1..<999]), "\(size)")
                #expect(throws: SnapshotStoreError.self) { try store.get(name, limit: size - 1) }
                #expect(throws: SnapshotStoreError.self) { try store.get(name, range: 500..<UInt64(size + 1)) }
            }
            #expect(try store.list("files/a/").map(\.bytes).sorted() == [999, 1000, 1001, 1999, 2000, 2001, 5000])
            #expect(try subject.halfWritten() == 0)
        }
    }

    @Test(arguments: StoreKind.available)
    func aListingHasWhatBeginsWithThePrefixAndNothingThatIsHalfWritten(kind: StoreKind) throws {
        try StoreSubject.with(kind) { (subject) throws in
            let store = subject.store
            for name in ["files/a/x", "files/a/y", "files/b/x", "snapshots/a/h"] {
                _ = try store.put(name, bytes(name))
            }
            try subject.leaveHalfWritten("files/a/z")
            try subject.leaveHalfWritten("files/b/z")
            #expect(try store.list("files/a/").map(\.name) == ["files/a/x", "files/a/y"])
            #expect(try store.list("files/").map(\.name) == ["files/a/x", "files/a/y", "files/b/x"])
            #expect(try store.list("").map(\.name) == ["files/a/x", "files/a/y", "files/b/x", "snapshots/a/h"])
            #expect(try store.list("snapshots/").map(\.bytes) == [13])
            #expect(try store.list("files/c/") == [])
            #expect(try store.get("files/a/z", limit: 10) == nil)
            let before = try subject.halfWritten()
            try store.removeLeftovers("files/a/")
            #expect(try subject.halfWritten() == max(0, before - 1))
            try store.removeLeftovers("files/b/")
            #expect(try subject.halfWritten() == 0)
            #expect(try store.list("files/").map(\.name) == ["files/a/x", "files/a/y", "files/b/x"])
        }
    }

    @Test(arguments: StoreKind.available)
    func whatIsDeletedIsGoneAndMayBePutAgain(kind: StoreKind) throws {
        try StoreSubject.with(kind) { (subject) throws in
            let store = subject.store
            for name in ["files/a/x", "files/a/y", "files/b/x"] { _ = try store.put(name, bytes(name)) }
            try store.delete(["files/a/x", "files/a/x", "files/c/none"])
            #expect(try store.list("files/").map(\.name) == ["files/a/y", "files/b/x"])
            #expect(try store.get("files/a/x", limit: 10) == nil)
            #expect(try store.put("files/a/x", bytes("new")))
            #expect(try store.get("files/a/x", limit: 10) == bytes("new"))
            try store.delete([])
            let many = (0..<25).map { "files/d/\($0)" }
            for name in many { _ = try store.put(name, [1]) }
            #expect(try store.list("files/d/").map(\.name) == many.sorted())
            try store.delete(many)
            #expect(try store.list("files/d/") == [])
        }
    }

    /// Names of manifests have `%` in them, and what is in paths or queries anything but itself must arrive as it is.
    @Test(arguments: StoreKind.available)
    func namesArriveAsTheyAre(kind: StoreKind) throws {
        try StoreSubject.with(kind) { (subject) throws in
            let store = subject.store
            let long = String(repeating: "x", count: 240)
            let names = [
                "a%2Fb", "%", "%%41", "..f", "a.b_c-d", long, StoreLayout.manifest("ä &<>'\"+?#=/\n", in: "s"),
            ].map { $0.contains("/") ? $0 : "snapshots/s/\($0)" }
            for name in names { #expect(try store.put(name, bytes(name)), "\(name)") }
            #expect(try store.list("snapshots/s/").map(\.name) == names.sorted())
            for name in names { #expect(try store.get(name, limit: 1000) == bytes(name), "\(name)") }
            try store.delete(names)
            #expect(try store.list("") == [])
        }
    }
}
