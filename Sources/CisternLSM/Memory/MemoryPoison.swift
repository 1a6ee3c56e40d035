// The pools hand out pieces of memory that the address sanitizer knows only as a whole, so it would see no access to a piece
// that was given back. They tell it which bytes are nobody's: an access to those ends the program with a report.
//
// Compiled with `CISTERN_ADDRESS_SANITIZER` alone (`make sanitize SANITIZER=address` defines it); otherwise nothing is left of the calls.

internal import CCisternShims

enum MemoryPoison {
    /// From here on nobody may read or write these bytes. The first and last are rounded inwards to multiples of 8.
    @inline(__always)
    static func poison(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
        #if CISTERN_ADDRESS_SANITIZER
            unsafe __asan_poison_memory_region(start, byteCount)
        #endif
    }

    /// These bytes are somebody's.
    @inline(__always)
    static func unpoison(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
        #if CISTERN_ADDRESS_SANITIZER
            unsafe __asan_unpoison_memory_region(start, byteCount)
        #endif
    }
}
