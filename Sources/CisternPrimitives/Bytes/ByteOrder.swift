// Byte-wise comparison of keys: the one order of the product.

internal import Glibc

/// Compares two byte strings as unsigned bytes, shorter first when one is a prefix of the other.
/// Returns a negative number, zero or a positive number.
@inlinable
package func compareBytes(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Int {
    let common = min(left.count, right.count)
    if common > 0 {
        let order = unsafe compareMemory(left.baseAddress!, right.baseAddress!, common)
        if order != 0 { return order }
    }
    return left.count - right.count
}

@usableFromInline
package func compareMemory(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, _ count: Int) -> Int {
    Int(unsafe memcmp(left, right, count))
}
