// The values of a batch of look-ups that lie in value files: read in the order of the files, and those that lie side by side
// at once.

internal import CisternPrimitives

extension BatchLookup {
    /// Values of a batch that are read together; those beyond are looked up alone, one after the other, so that a batch of long
    /// values does not take the memory of all of them.
    private static let pointedBytesMax = 1 << 20
    /// Bytes between two values that are cheaper to read than to begin another read for.
    private static let gapBytesMax: UInt64 = 4096

    private struct Pointed {
        let number: Int
        let pointer: ValuePointer
    }

    /// Puts the values where the pointers are.
    /// - Precondition: what was found is copied, and no epoch is entered, because the disk may be waited for.
    func followPointers(_ clock: ExpiryClock) throws(EngineError) {
        guard hasPointers else { return }
        var wanted: [Pointed] = []
        for number in 0..<count where unsafe items[number].isPointer && items[number].outcome == .found {
            unsafe items[number].isPointer = false
            // What has expired is not shown, and not read.
            if unsafe clock.isExpired(items[number].expiry) { continue }
            guard let pointer = unsafe ValuePointer(items[number].value) else {
                unsafe items[number].outcome = .alone
                continue
            }
            wanted.append(Pointed(number: number, pointer: pointer))
        }
        // Room for all of them with the gaps between, which is not exceeded below, so that what was read stays where it is.
        let wantedBytes: UInt64 = wanted.reduce(0) {
            $0.saturatingAdding($1.pointer.recordBytes).saturatingAdding(BatchLookup.gapBytesMax)
        }
        let limit = Int(min(wantedBytes, UInt64(BatchLookup.pointedBytesMax)))
        wanted.sort { ($0.pointer.file, $0.pointer.offset) < ($1.pointer.file, $1.pointer.offset) }
        pointed.reset()
        pointed.reserve(limit)
        var waiting: EngineError?
        var first = 0
        while first < wanted.count {
            let last = endOfSpan(wanted, from: first, room: limit - pointed.count)
            do throws(EngineError) { try read(wanted[first..<last], room: limit - pointed.count) } catch {
                // The others as well, so that the disk is told of all at once.
                guard error.wouldWait else { throw error }
                waiting = error
            }
            first = last
        }
        if let waiting { throw waiting }
    }

    /// The first that does not lie beside those from `first` on.
    private func endOfSpan(_ wanted: [Pointed], from first: Int, room: Int) -> Int {
        let start = wanted[first].pointer
        var last = first + 1
        while last < wanted.count {
            let (before, next) = (wanted[last - 1].pointer, wanted[last].pointer)
            let end = before.offset.saturatingAdding(before.recordBytes)
            guard next.file == start.file, next.offset >= end, next.offset - end <= BatchLookup.gapBytesMax,
                next.offset.saturatingAdding(next.recordBytes) - start.offset <= UInt64(room)
            else { break }
            last += 1
        }
        return last
    }

    /// Neighbours in one value file.
    private func read(_ span: ArraySlice<Pointed>, room: Int) throws(EngineError) {
        guard let first = span.first, let last = span.last, let table = unsafe items[first.number].table else { return }
        let size = last.pointer.offset.saturatingAdding(last.pointer.recordBytes) - first.pointer.offset
        guard size <= UInt64(room) else {
            for one in span { unsafe items[one.number].outcome = .alone }
            return
        }
        let files = unsafe try table.takeUnretainedValue().valueFiles()
        let file = files.file(first.pointer.file)
        let start = pointed.count
        try file.read(at: first.pointer.offset, count: Int(size), into: &pointed)
        for one in span {
            let place = start + Int(one.pointer.offset - first.pointer.offset)
            let hash = unsafe items[one.number].hash
            let base = unsafe UnsafeRawPointer(pointed.base + place)
            if let fault = unsafe ValueFormat.fault(of: base, one.pointer, hash: hash) {
                throw tableCorruption(file.path, one.pointer.offset, fault)
            }
            unsafe items[one.number].value = unsafe UnsafeRawBufferPointer(
                start: base, count: Int(one.pointer.valueBytes))
        }
    }
}
