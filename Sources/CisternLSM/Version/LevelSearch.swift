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
    /// Unretained: the version has the files, which have their readers. 0 until the file is first read.
    private let readers: UnsafeMutablePointer<Atomic<UInt>>

    init(_ files: [FileReference], isSorted: Bool) {
        count = files.count
        largest = isSorted ? OwnedKeyColumn(files.map(\.largestKey)) : nil
        unsafe windows = .allocate(capacity: max(files.count, 1))
        unsafe readers = .allocate(capacity: max(files.count, 1))
        for (index, file) in files.enumerated() {
            unsafe (windows + index).initialize(to: (file.record.window.first, file.record.window.last))
            unsafe (readers + index).initialize(to: Atomic(0))
        }
    }

    func deallocate() {
        largest?.deallocate()
        unsafe windows.deallocate()
        unsafe readers.deallocate()
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
