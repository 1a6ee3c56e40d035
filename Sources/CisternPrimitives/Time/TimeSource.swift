// The only clock. Everything that asks for the time takes a `TimeSource`, so that tests move time by hand.

internal import Glibc

package protocol TimeSource: Sendable {
    /// Nanoseconds since an arbitrary start; never goes back.
    var monotonicNanoseconds: UInt64 { get }
    /// Milliseconds since 1970-01-01 UTC; may be set by the administrator.
    var wallMilliseconds: UInt64 { get }
}

package struct SystemTime: TimeSource {
    package init() {}

    package var monotonicNanoseconds: UInt64 {
        var now = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &now)
        return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
    }

    package var wallMilliseconds: UInt64 {
        var now = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &now)
        return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
    }
}
