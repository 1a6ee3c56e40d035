// A snapshot store in a directory, on a disk that fails and loses power; names. What every store does is in StoreConformanceTests.swift.

import CisternFileSystem
import CisternPrimitives
import CisternSnapshotStore
import CisternTestKit
import Glibc
import Testing

@Suite struct DirectoryStoreTests {
    private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    @Test func strayFilesAreNoObjects() throws {
        let disk = MemoryFileSystem()
        let store = DirectorySnapshotStore("/store", fileSystem: disk)
        #expect(try store.put("files/a/x", [1]))
        disk.setContents("/store/stray", [1])
        #expect(try store.list("").map(\.name) == ["files/a/x"])
        #expect(store.location == "file:///store")
        store.close()
    }

    /// Whatever the sync at which the power goes: what was put is there, what was deleted is gone, and nothing is half there.
    @Test func whatWasAnsweredSurvivesAPowerCut() throws {
        for sync in 1...20 {
            let disk = MemoryFileSystem(seed: UInt64(sync))
            let store = DirectorySnapshotStore("/store", fileSystem: disk)
            disk.failPower(atSync: sync)
            var there: [String: Bool] = [:]
            for number in 0..<4 {
                let name = "files/a/\(number)"
                if (try? store.put(name, bytes("content \(number)"))) != nil { there[name] = true }
                if number % 2 == 1, (try? store.delete([name])) != nil { there[name] = false }
            }
            let after = DirectorySnapshotStore("/store", fileSystem: disk.afterPowerCut(seed: UInt64(sync)))
            for number in 0..<4 {
                let name = "files/a/\(number)"
                let found = try after.get(name, limit: 100)
                #expect(found == nil || found == bytes("content \(number)"), "sync \(sync)")
                if there[name] == true && number % 2 == 0 { #expect(found != nil, "sync \(sync)") }
                if there[name] == false { #expect(found == nil, "sync \(sync)") }
            }
        }
    }

    @Test func anErrorSaysWhatWasAttemptedWhereAndMayBeTriedAgain() throws {
        let disk = MemoryFileSystem()
        let store = DirectorySnapshotStore("/store", fileSystem: disk)
        disk.inject(.init([.create], error: ENOSPC, count: 1))
        #expect {
            _ = try store.put("files/a/x", [1])
        } throws: { error in
            "\(error)".hasPrefix("cannot put files/a/x in file:///store: ")
                && (error as? SnapshotStoreError)?.isTransient == true
        }
        #expect(try store.put("files/a/x", [1]))
        #expect(disk.paths == ["/store/files/a/x"])
    }

    @Test func namesAreWhatEveryStoreCanHave() {
        for good in ["a", "snapshots/0a-b/orders%2F7", "a/b.c_d-e%/..f"] { #expect(StoreName.isValid(good), "\(good)") }
        for bad in ["", "/", "a/", "/a", "a//b", "a/../b", ".", "a b", "ä", String(repeating: "x", count: 256)] {
            #expect(!StoreName.isValid(bad), "\(bad)")
        }
    }

    @Test func everyHandleHasANameOfItsOwn() {
        let long = String(repeating: "ü", count: 100)
        let handles = [
            "a/1/0-7/1-2", "a%/1/0-7/1-2", "a 1/0-7/1-2", "\(long)/1/0-7/1-2", "\(long)/1/0-7/1-3", "..", "",
        ]
        let names = handles.map { StoreLayout.manifest($0 + "/x", in: "ns") }
        #expect(Set(names).count == names.count)
        for name in names {
            #expect(StoreName.isValid(name), "\(name)")
            #expect(StoreLayout.namespace(ofManifest: name) == "ns")
        }
        #expect(StoreLayout.namespace(ofManifest: "files/ns/x") == nil)
        #expect(
            StoreLayout.isNamespace("weekly-2026.48") && !StoreLayout.isNamespace("a/b")
                && !StoreLayout.isNamespace("."))
    }
}
