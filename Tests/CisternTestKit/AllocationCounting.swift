// What the hot path allocates, counted by replaced allocator functions (`CAllocationCounter`).

import CAllocationCounter
import CSanitizerSupport

/// Allocations of this thread during `body`; nil where they are not counted.
package func allocations<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) -> Int? {
    let before = cistern_allocation_count()
    try body()
    let after = cistern_allocation_count()
    return cistern_allocations_are_counted() == 0 ? nil : Int(after - before)
}

/// In a program with a sanitizer, which has an allocator and memory of its own: what the process takes says nothing.
package var isSanitized: Bool { cistern_is_sanitized() != 0 }
