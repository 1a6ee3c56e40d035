import CisternFileSystem
import CisternPrimitives
import CisternTestKit
import Glibc
import Testing

/// A fresh directory under the system's temporary one, removed with all its files afterwards.
private func withTemporaryDirectory(_ body: (String) throws -> Void) throws {
    var template = Array("/tmp/cistern-fs-XXXXXX".utf8CString)
    let path = try #require(mkdtemp(&template).map { String(cString: $0) })
    defer {
        let fileSystem = PosixFileSystem()
        for name in (try? fileSystem.list(path)) ?? [] { try? fileSystem.remove(path + "/" + name) }
        try? fileSystem.remove(path)
    }
    try body(path)
}

private func fill(_ file: any RandomReadFile, at offset: UInt64, count: Int) throws(FileError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    let outcome: Result<Void, FileError> = bytes.withUnsafeMutableBytes { buffer in
        do throws(FileError) { return .success(try file.read(at: offset, into: buffer)) } catch {
            return .failure(error)
        }
    }
    try outcome.get()
    return bytes
}

/// The claims every implementation keeps.
private func exercise(_ fileSystem: any FileSystem, in directory: String) throws {
    let path = directory + "/a"
    let file = try fileSystem.createAppend(path)
    try file.append(Array("hello ".utf8))
    try file.append(Array("world".utf8))
    try file.sync()
    #expect(file.size == 11)
    file.close()
    #expect(try fileSystem.size(path) == 11)
    #expect(try fileSystem.readAll(path, limit: 11) == Array("hello world".utf8))
    #expect(throws: FileError(operation: "read", path: path, reason: .tooLarge(limit: 10))) {
        try fileSystem.readAll(path, limit: 10)
    }
    #expect(throws: FileError.self) { try fileSystem.createAppend(path) }
    let reader = try fileSystem.openRead(path)
    #expect(try fill(reader, at: 6, count: 5) == Array("world".utf8))
    #expect(throws: FileError(operation: "read", path: path, reason: .endOfFile)) {
        try fill(reader, at: 7, count: 5)
    }
    try fileSystem.rename(path, to: directory + "/b")
    #expect(try !fileSystem.exists(path))
    #expect(try fileSystem.list(directory) == ["b"])
    #expect(try fill(reader, at: 0, count: 5) == Array("hello".utf8))
    try fileSystem.truncate(directory + "/b", to: 5)
    #expect(try fileSystem.size(directory + "/b") == 5)
    try fileSystem.remove(directory + "/b")
    try fileSystem.syncDirectory(directory)
    #expect(throws: FileError.self) { try fileSystem.openRead(directory + "/b") }
    try AtomicFile.write([1, 2], to: "current", in: directory, fileSystem: fileSystem)
    try AtomicFile.write([3], to: "current", in: directory, fileSystem: fileSystem)
    #expect(try fileSystem.readAll(directory + "/current", limit: 9) == [3])
    #expect(try fileSystem.list(directory) == ["current"])
    try fileSystem.createDirectory(directory + "/x/y")
    #expect(try fileSystem.exists(directory + "/x/y"))
    try fileSystem.remove(directory + "/x/y")
    try fileSystem.remove(directory + "/x")
    let lock = try fileSystem.lock(directory + "/LOCK")
    #expect(throws: FileError(operation: "lock", path: directory + "/LOCK", reason: .locked)) {
        _ = try fileSystem.lock(directory + "/LOCK")
    }
    lock.release()
    try fileSystem.lock(directory + "/LOCK").release()
}

@Suite struct FileSystemTests {
    @Test func posixKeepsTheContract() throws {
        try withTemporaryDirectory { try exercise(PosixFileSystem(), in: $0) }
    }

    @Test func memoryKeepsTheContract() throws {
        let fileSystem = MemoryFileSystem()
        try fileSystem.createDirectory("/data")
        try exercise(fileSystem, in: "/data")
    }

    @Test func aMissingDirectoryIsNamedInTheError() {
        #expect(throws: FileError(operation: "list", path: "/nowhere/at/all", reason: .errno(ENOENT))) {
            try PosixFileSystem().list("/nowhere/at/all")
        }
    }

    @Test func aFileThatCannotBeLookedAtIsNotAbsent() throws {
        try withTemporaryDirectory { directory in
            let fileSystem = PosixFileSystem()
            #expect(try !fileSystem.exists(directory + "/a"))
            try fileSystem.createAppend(directory + "/a").close()
            #expect(try fileSystem.exists(directory + "/a"))
            #expect(try !fileSystem.exists(directory + "/a/b"))
            let tooLong = directory + "/" + String(repeating: "x", count: 300)
            #expect(throws: FileError(operation: "look for", path: tooLong, reason: .errno(ENAMETOOLONG))) {
                try fileSystem.exists(tooLong)
            }
        }
    }

    @Test func aFullDiskIsToldFromABrokenOne() {
        #expect(FileError(operation: "write", path: "x", reason: .errno(ENOSPC)).isOutOfSpace)
        #expect(!FileError(operation: "write", path: "x", reason: .errno(EIO)).isOutOfSpace)
    }
}

@Suite struct DescriptorPoolTests {
    @Test func moreFilesAreReadableThanMayBeOpen() throws {
        try withTemporaryDirectory { directory in
            let fileSystem = PosixFileSystem(openFilesMax: 4)
            let files = try (0..<20).map { number in
                let file = try fileSystem.createAppend("\(directory)/\(number)")
                try file.append([UInt8(number), 7])
                file.close()
                return try fileSystem.openRead("\(directory)/\(number)")
            }
            #expect(fileSystem.openFileCount == 4)
            for _ in 0..<3 {
                for number in files.indices {
                    #expect(try fill(files[number], at: 0, count: 2) == [UInt8(number), 7])
                    #expect(fileSystem.openFileCount <= 4)
                }
            }
        }
    }

    @Test func aFileThatIsLetGoOfGivesItsDescriptorBack() throws {
        try withTemporaryDirectory { directory in
            let fileSystem = PosixFileSystem(openFilesMax: 100)
            try fileSystem.createAppend(directory + "/a").close()
            var file: (any RandomReadFile)? = try fileSystem.openRead(directory + "/a")
            #expect(fileSystem.openFileCount == 1)
            #expect(file?.size == 0)
            file = nil
            #expect(fileSystem.openFileCount == 0)
        }
    }

    @Test func readsFromManyThreadsShareAFewDescriptors() async throws {
        let template = "/tmp/cistern-fs-pool-\(getpid())"
        let fileSystem = PosixFileSystem(openFilesMax: 3)
        try fileSystem.createDirectory(template)
        let files = try (0..<16).map { number in
            let file = try fileSystem.createAppend("\(template)/\(number)")
            try file.append([UInt8](repeating: UInt8(number), count: 64))
            file.close()
            return try fileSystem.openRead("\(template)/\(number)")
        }
        await withTaskGroup(of: Int.self) { group in
            for worker in 0..<4 {
                group.addTask {
                    var right = 0
                    for round in 0..<400 {
                        let number = (round * 7 + worker) % files.count
                        let bytes = try? fill(files[number], at: 0, count: 64)
                        if bytes == [UInt8](repeating: UInt8(number), count: 64) { right += 1 }
                    }
                    return right
                }
            }
            for await right in group { #expect(right == 400) }
        }
        #expect(fileSystem.openFileCount <= 3)
        for number in files.indices { try fileSystem.remove("\(template)/\(number)") }
        try fileSystem.remove(template)
    }

    @Test func aFileThatIsGoneIsNamedWhenItIsOpenedAgain() throws {
        try withTemporaryDirectory { directory in
            let fileSystem = PosixFileSystem(openFilesMax: 1)
            try fileSystem.createAppend(directory + "/a").close()
            let first = try fileSystem.openRead(directory + "/a")
            try fileSystem.createAppend(directory + "/b").close()
            let second = try fileSystem.openRead(directory + "/b")
            try fileSystem.remove(directory + "/a")
            #expect(throws: FileError(operation: "open again", path: directory + "/a", reason: .errno(ENOENT))) {
                try fill(first, at: 0, count: 1)
            }
            #expect(second.size == 0)
        }
    }
}

@Suite struct MemoryFileSystemTests {
    @Test(arguments: Seeds.seeds(count: 20)) func aPowerCutKeepsWhatWasSynced(seed: UInt64) throws {
        let fileSystem = MemoryFileSystem(seed: seed)
        try fileSystem.createDirectory("/d")
        let kept = try fileSystem.createAppend("/d/kept")
        try kept.append([1, 2, 3])
        try kept.sync()
        try fileSystem.syncDirectory("/d")
        try kept.append([4, 5])
        let unlinked = try fileSystem.createAppend("/d/unlinked")
        try unlinked.append([9])
        try unlinked.sync()
        let after = fileSystem.afterPowerCut(seed: seed)
        let bytes = try after.readAll("/d/kept", limit: 10)
        #expect(Array(bytes.prefix(3)) == [1, 2, 3])
        #expect(bytes.count <= 5)
        if try after.exists("/d/unlinked") { #expect(try after.readAll("/d/unlinked", limit: 10) == [9]) }
        #expect(throws: FileError.self) { try kept.append([6]) }
    }

    @Test func somePowerCutsLoseUnsyncedEntriesAndTails() throws {
        var lostEntry = false
        var tornTail = false
        for seed in UInt64(1)...50 {
            let fileSystem = MemoryFileSystem(seed: seed)
            try fileSystem.createDirectory("/d")
            let file = try fileSystem.createAppend("/d/f")
            try file.append([UInt8](repeating: 7, count: 100))
            let after = fileSystem.afterPowerCut(seed: seed)
            guard try after.exists("/d/f") else {
                lostEntry = true
                continue
            }
            if try after.readAll("/d/f", limit: 100) != [UInt8](repeating: 7, count: 100) { tornTail = true }
        }
        #expect(lostEntry && tornTail)
    }

    @Test func faultsHitTheOperationTheyName() throws {
        let fileSystem = MemoryFileSystem()
        try fileSystem.createDirectory("/d")
        let file = try fileSystem.createAppend("/d/f")
        fileSystem.inject(.init([.sync], error: EIO, skip: 1, count: 1) { $0.hasSuffix("/f") })
        try file.sync()
        #expect(throws: FileError.self) { try file.sync() }
        try file.sync()
        fileSystem.capacityBytes = 4
        try file.append([1, 2, 3])
        #expect(throws: FileError(operation: "append", path: "/d/f", reason: .errno(ENOSPC))) {
            try file.append([4, 5, 6])
        }
        fileSystem.capacityBytes = .max
        try file.append([7])
        #expect(fileSystem.contents("/d/f") == [1, 2, 3, 4, 7])
    }

    @Test func anAtomicFileIsOldOrNewAtEveryPowerCut() throws {
        for seed in UInt64(1)...40 {
            for sync in 1...3 {
                let fileSystem = MemoryFileSystem(seed: seed)
                try fileSystem.createDirectory("/d")
                try AtomicFile.write([1, 1], to: "c", in: "/d", fileSystem: fileSystem)
                fileSystem.failPower(atSync: fileSystem.syncCount + sync)
                let done = (try? AtomicFile.write([2, 2], to: "c", in: "/d", fileSystem: fileSystem)) != nil
                let found = try fileSystem.afterPowerCut(seed: seed).readAll("/d/c", limit: 2)
                #expect(done ? found == [2, 2] : found == [1, 1] || found == [2, 2])
            }
        }
    }
}
