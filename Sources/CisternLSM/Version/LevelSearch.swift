// The files of one level as a look-up sees them: last keys with their heads, windows of key groups and open readers in
// arrays, so that finding a file touches no object and counts no reference. Made with the version, freed with it.

internal import CisternPrimitives
internal import Synchronization

@safe struct LevelSearch {
    let count: Int
    /// nil for level 0, whose files overlap.
    private let largest: OwnedKeyColumn?
    /// First and last key group of each file's window.
    private let windows: UnsafeMutablePointer<(first: UInt16, last: UInt16)>
    /// First and last visible key of each file, and the memory they lie in.
    private let bounds: UnsafeMutablePointer<(smallest: UnsafeRawBufferPointer, largest: UnsafeRawBufferPointer)>
    private let keys: UnsafeMutableRawBufferPointer
    /// Unretained: the version has the files, which have their readers. 0 until the file is first read.
    private let readers: UnsafeMutablePointer<Atomic<UInt>>

    init(_ files: [FileReference], isSorted: Bool) {
        count = files.count
        largest = isSorted ? OwnedKeyColumn(files.map(\.largestKey)) : nil
        unsafe windows = .allocate(capacity: max(files.count, 1))
        unsafe readers = .allocate(capacity: max(files.count, 1))
        unsafe bounds = .allocate(capacity: max(files.count, 1))
        let keyBytes = files.reduce(0) { $0 + $1.smallestKey.count + $1.largestKey.count }
        unsafe keys = .allocate(byteCount: max(keyBytes, 1), alignment: 8)
        var position = 0
        for (index, file) in files.enumerated() {
            unsafe (windows + index).initialize(to: (file.record.window.first, file.record.window.last))
            unsafe (readers + index).initialize(to: Atomic(0))
            let smallest = unsafe LevelSearch.copy(file.smallestKey, to: keys, &position)
            let largest = unsafe LevelSearch.copy(file.largestKey, to: keys, &position)
            unsafe (bounds + index).initialize(to: (smallest, largest))
        }
    }

    func deallocate() {
        largest?.deallocate()
        unsafe windows.deallocate()
        unsafe readers.deallocate()
        unsafe bounds.deallocate()
        unsafe keys.deallocate()
    }

    private static func copy(
        _ key: [UInt8], to memory: UnsafeMutableRawBufferPointer, _ position: inout Int
    ) -> UnsafeRawBufferPointer {
        let place = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[position..<(position + key.count)])
        unsafe place.copyBytes(from: key)
        position += key.count
        return UnsafeRawBufferPointer(place)
    }

    /// The one file of a sorted level that may hold the key.
    @inline(__always)
    func file(for key: UnsafeRawBufferPointer) -> Int? {
        guard let largest else { return nil }
        let file = unsafe largest.keys.countLess(than: key)
        return file == count ? nil : file
    }

    /// True when the file's window has the key group.
    @inline(__always)
    func shows(_ group: UInt16, _ file: Int) -> Bool {
        let window = unsafe windows[file]
        return window.first <= group && group <= window.last
    }

    @inline(__always)
    func window(_ file: Int) -> KeyGroupRange {
        let window = unsafe windows[file]
        return KeyGroupRange(first: window.first, last: window.last)
    }

    /// Bounds of the visible keys, the largest included.
    @inline(__always)
    func smallestKey(_ file: Int) -> UnsafeRawBufferPointer { unsafe bounds[file].smallest }

    @inline(__always)
    func largestKey(_ file: Int) -> UnsafeRawBufferPointer { unsafe bounds[file].largest }

    /// False when all of the file's keys lie before `start`, or at or behind `end`, which is nowhere when empty.
    @inline(__always)
    func meets(_ file: Int, from start: UnsafeRawBufferPointer, to end: UnsafeRawBufferPointer) -> Bool {
        unsafe compareInPlace(largestKey(file), start) >= 0
            && (end.count == 0 || compareInPlace(smallestKey(file), end) < 0)
    }

    /// The file's reader, if the file was read before.
    @inline(__always)
    func openReader(_ file: Int) -> Unmanaged<TableReader>? {
        let bits = unsafe readers[file].load(ordering: .acquiring)
        guard let known = unsafe UnsafeRawPointer(bitPattern: bits) else { return nil }
        return unsafe .fromOpaque(known)
    }

    /// The file's reader, opened at its first use.
    @inline(__always)
    func reader(_ file: Int, _ files: [FileReference]) throws(EngineError) -> Unmanaged<TableReader> {
        let bits = unsafe readers[file].load(ordering: .acquiring)
        if let known = unsafe UnsafeRawPointer(bitPattern: bits) { return unsafe .fromOpaque(known) }
        return unsafe try open(file, files)
    }

    @inline(never)
    private func open(_ file: Int, _ files: [FileReference]) throws(EngineError) -> Unmanaged<TableReader> {
        let reader = unsafe try Unmanaged.passUnretained(files[file].table.reader())
        unsafe readers[file].store(UInt(bitPattern: reader.toOpaque()), ordering: .releasing)
        return unsafe reader
    }
}
