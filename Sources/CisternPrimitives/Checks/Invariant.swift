// Checks for our own bugs only. Input, disk and peers never trap: they throw.

/// Stops the process when `condition` is false. On in release builds.
@inlinable @inline(__always)
package func invariant(
    _ condition: @autoclosure () -> Bool, _ message: @autoclosure () -> String,
    file: StaticString = #fileID, line: UInt = #line
) {
    if !condition() { invariantFailed(message(), file: file, line: line) }
}

@usableFromInline
package func invariantFailed(_ message: String, file: StaticString, line: UInt) -> Never {
    fatalError("invariant broken: \(message)", file: file, line: line)
}
