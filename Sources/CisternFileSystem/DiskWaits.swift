// Reads that do not wait for the disk. An event loop serves many connections: while it waits for one block, all of them wait. So
// it runs a request's reads within `collect`: a file whose bytes are not in memory says so at once (`wouldWait`) and notes which
// they are. Threads that may wait then read these (`DiskRange.load`), and the loop runs the request again.
//
// How a file knows: the thread carries the collection while `collect` runs. Said by an argument it would have to go through
// every look-up, cursor and merge down to the file, all of which are also used where waiting is right.
//
// Source of the way the kernel is asked: preadv2(2), RWF_NOWAIT.

internal import CCisternShims

/// Bytes of a file that a read would have waited for.
package struct DiskRange: Sendable {
    package let file: any RandomReadFile
    package let offset: UInt64
    package let count: Int

    package init(file: any RandomReadFile, offset: UInt64, count: Int) {
        self.file = file
        self.offset = offset
        self.count = count
    }

    /// Reads of a range, one behind the other, are this long at most.
    package static let loadBytes = 256 << 10

    /// Has the disk bring the bytes into memory, and waits for it. An error is not told: whoever needs the bytes meets it.
    /// - Parameter ahead: bytes behind the range that are brought as well, as far as the file goes.
    package func load(ahead: Int, buffer: UnsafeMutableRawBufferPointer) {
        guard offset < file.size, buffer.count > 0 else { return }
        let wanted = UInt64(count) + UInt64(ahead)
        let end = file.size - offset > wanted ? offset + wanted : file.size
        var at = offset
        while at < end {
            let step = min(buffer.count, Int(end - at))
            let target = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<step])
            do { unsafe try file.read(at: at, into: target) } catch { return }
            at += UInt64(step)
        }
    }
}

/// What the reads of one run would have waited for. Used again from run to run, by one thread at a time.
@safe package final class DiskWaits: @unchecked Sendable {
    /// More than these are not noted: the next run finds those that are left.
    package static let rangesMax = 256

    package private(set) var ranges: [DiskRange] = []

    package init() {}

    /// Runs `reads`, in which no read of this thread waits for the disk where the file system can tell.
    /// - Throws: what `reads` throws. A read that would have waited throws `FileError` with `wouldWait`, and is in `ranges`.
    package func collect<Failure: Error>(_ reads: () throws(Failure) -> Void) throws(Failure) {
        ranges.removeAll(keepingCapacity: true)
        let before = unsafe cistern_get_thread_waits()
        unsafe cistern_set_thread_waits(Unmanaged.passUnretained(self).toOpaque())
        defer { unsafe cistern_set_thread_waits(before) }
        try reads()
    }

    /// The ranges, which are forgotten here.
    package func take() -> [DiskRange] {
        defer { ranges = [] }
        return ranges
    }

    package func note(_ range: DiskRange) {
        if ranges.count < DiskWaits.rangesMax { ranges.append(range) }
    }

    /// What the calling thread collects into; nil when it may wait.
    package static var ofThread: DiskWaits? {
        guard let pointer = unsafe cistern_get_thread_waits() else { return nil }
        return unsafe Unmanaged<DiskWaits>.fromOpaque(pointer).takeUnretainedValue()
    }
}
