// What the keys of one map begin with: everything before the user key. It is read off the key itself, so that no table has to
// know which states are maps:
//
//    u16 key group │ u16 state │ varint size ‖ key │ varint size ‖ namespace │ user key, to the end
//
// Keys of another build are read the same way. What that gives means nothing, and does no harm: the sizes stand in front, so
// every key that begins with a prefix has that prefix. A filter that holds the prefix of each of its keys can say of any
// prefix that no key begins with it. Page: proto-spec/entries.md.

internal import CisternPrimitives

/// Bytes of `key` before its user key, or nil when the key ends before its namespace does.
@inline(__always)
func mapPrefixCount(of key: UnsafeRawBufferPointer) -> Int? {
    var offset = keyGroupBytes &+ stateBytes
    guard unsafe skipSized(key, &offset), unsafe skipSized(key, &offset) else { return nil }
    return offset
}

/// Bytes of a key that name its state.
private let stateBytes = 2
/// A key has up to 65,535 bytes; a longer size is none.
private let sizeBytesMax = 3

@inline(__always)
private func skipSized(_ key: UnsafeRawBufferPointer, _ offset: inout Int) -> Bool {
    guard offset < key.count, let base = key.baseAddress else { return false }
    var size = unsafe Int(base.load(fromByteOffset: offset, as: UInt8.self))
    offset &+= 1
    if size >= 0x80 {
        guard let long = unsafe longSize(key, &offset, first: size) else { return false }
        size = long
    }
    offset &+= size
    return offset <= key.count
}

private func longSize(_ key: UnsafeRawBufferPointer, _ offset: inout Int, first: Int) -> Int? {
    var size = first & 0x7F
    for index in 1..<sizeBytesMax {
        guard offset < key.count else { return nil }
        let byte = unsafe Int(key[offset])
        offset += 1
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80 { return size }
    }
    return nil
}

/// The keys of one map, as what a scan may be about.
@safe package struct MapRange {
    let hash: UInt64
    /// Valid as long as the start of the range is.
    let prefix: UnsafeRawBufferPointer

    /// nil unless all keys from `start` up to and without `end` have one map prefix.
    package init?(from start: UnsafeRawBufferPointer, to end: UnsafeRawBufferPointer) {
        guard end.count > 0, let count = unsafe mapPrefixCount(of: start) else { return nil }
        unsafe prefix = unsafe UnsafeRawBufferPointer(rebasing: start[..<count])
        let shared = unsafe commonPrefixCount(prefix, end)
        if shared < count {
            // The end leaves the prefix: it may do so with the first key behind all that begin with it, and no later.
            var last = count - 1
            while last > 0, unsafe prefix[last] == 0xFF { last -= 1 }
            guard unsafe shared == last && end.count == last + 1 && end[last] == prefix[last] &+ 1 else { return nil }
        }
        hash = unsafe Hash64.hash(prefix)
    }
}
