// Table files that several threads take and leave.

import CisternFileSystem
import CisternLSM
import CisternPrimitives
import CisternTestKit
import Testing

@Suite struct FileOwnershipTests {
    /// The last reference may go while another thread looks whether the file is still used.
    @Test func aFileMayBeLeftByOneThreadWhileAnotherLetsGoOfIt() throws {
        let lane = SteppedScheduler(seed: 1).makeLane()
        let directory = TableDirectory(
            path: "/tables", fileSystem: MemoryFileSystem(), cache: BlockCache(capacityBytes: 0), lane: lane,
            nextNumber: 1)
        let user = SerialThread(name: "test-user")
        let done = Guarded(false)
        user.submit {
            var random = SeededRandom(seed: 1)
            for _ in 0..<100_000 {
                let table = directory.table(7)
                // So that the end of the reference meets every moment of the other thread's call.
                var spin = random.next() % 64
                while spin > 0 { spin -= 1 }
                withExtendedLifetime(table) {}
            }
            done.withLock { $0 = true }
        }
        var isDone = false
        while !isDone {
            for _ in 0..<100 {
                directory.retain([7])
                directory.release([7])
            }
            isDone = done.withLock { $0 }
        }
        user.stop()
    }
}
