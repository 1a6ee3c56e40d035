// Sleeping, for background threads only: an event loop and the cooperative pool must never.

internal import Glibc

/// Blocks the calling thread for about so long; a signal may end it early.
package func pauseThread(nanoseconds: UInt64) {
    var pause = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    unsafe nanosleep(&pause, nil)
}
