// What the process has used: CPU of all threads, peak of resident memory, bytes given to write calls. Each side runs in a
// process of its own, so these are the side's.

import Foundation
import Glibc

package struct ProcessMeter {
    package let wallStart = wallNanoseconds()
    private let cpuStart = processCPUNanoseconds()
    private let threadStart = threadCPUNanoseconds()
    private let writtenStart = writtenBytes()

    package init() { resetPeak() }

    package var wall: Double { wallNanoseconds() - wallStart }
    package var cpu: Double { processCPUNanoseconds() - cpuStart }
    /// Of all threads but the caller's.
    package var backgroundCPU: Double { cpu - (threadCPUNanoseconds() - threadStart) }
    package var bytesWritten: Double { writtenBytes() - writtenStart }
    package var peakBytes: Double { statusBytes("VmHWM:") }

    /// Makes the present resident memory the peak; where the kernel refuses, the peak is the process's.
    private func resetPeak() {
        guard let file = fopen("/proc/self/clear_refs", "w") else { return }
        fputs("5", file)
        fclose(file)
    }
}

package func wallNanoseconds() -> Double { nanoseconds(CLOCK_MONOTONIC) }
package func processCPUNanoseconds() -> Double { nanoseconds(CLOCK_PROCESS_CPUTIME_ID) }
package func threadCPUNanoseconds() -> Double { nanoseconds(CLOCK_THREAD_CPUTIME_ID) }
package func nowMilliseconds() -> UInt64 { UInt64(nanoseconds(CLOCK_REALTIME) / 1e6) }

package func sleepMilliseconds(_ milliseconds: UInt32) { usleep(milliseconds * 1000) }

package func residentBytes() -> Double { statusBytes("VmRSS:") }

private func nanoseconds(_ clock: clockid_t) -> Double {
    var now = timespec()
    clock_gettime(clock, &now)
    return Double(now.tv_sec) * 1e9 + Double(now.tv_nsec)
}

private func statusBytes(_ name: String) -> Double { 1024 * number(name, in: "/proc/self/status") }

private func writtenBytes() -> Double { number("wchar:", in: "/proc/self/io") }

/// The number behind a name, 0 where the kernel does not tell.
private func number(_ name: String, in path: String) -> Double {
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return 0 }
    for line in text.split(separator: "\n") where line.hasPrefix(name) {
        return line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Double($0) } ?? 0
    }
    return 0
}

/// What the files of a directory take once it changes no more: files that a merge replaced go a little later.
package func settledDiskBytes(_ path: String) -> UInt64 {
    var last = diskBytes(path)
    var same = 0
    while same < 10 {
        sleepMilliseconds(10)
        let now = diskBytes(path)
        same = now == last ? same + 1 : 0
        last = now
    }
    return last
}

package func diskBytes(_ path: String) -> UInt64 {
    guard let walk = FileManager.default.enumerator(atPath: path) else { return 0 }
    var sum: UInt64 = 0
    for case let name as String in walk {
        let attributes = try? FileManager.default.attributesOfItem(atPath: path + "/" + name)
        if attributes?[.type] as? FileAttributeType == .typeRegular { sum += attributes?[.size] as? UInt64 ?? 0 }
    }
    return sum
}

package func loadAverage() -> Double {
    var averages = [0.0]
    getloadavg(&averages, 1)
    return averages[0]
}
