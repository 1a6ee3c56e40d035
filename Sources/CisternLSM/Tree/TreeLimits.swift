// How long a list may become: appends fold without a look at what is written, a table takes values up to a limit only, and a
// merge that had to write a longer one could not go on. Called by `write` before anything of a batch is applied, on the owner's
// executor.
//
//   a list = its parts in memtables (looked up) + its parts in files (long ones are told by the files' properties)
//
// A part that is too short to be told counts nothing. There is at most one of a list a run, and `EngineOptions.validate` sees to it
// that they do not add up to more than a table takes.

internal import CisternPrimitives

extension Tree {
    /// Refuses a batch with an append that makes a list longer than `foldedValueBytesMax`.
    func checkFoldedValues(_ batch: EntryColumns) throws(EngineError) {
        let limit = options.foldedValueBytesMax
        let batchBytes = unsafe batch.values.count
        // No value is longer than all there is, so while the memtable is shorter than the limit and no file has a long list no
        // key is looked at.
        if active.byteCount + batchBytes <= limit && longLists.isEmpty { return }
        for index in 0..<batch.count where batch[index].kind == .append {
            let key = unsafe batch[index].key
            if unsafe (heldPart(key)?.byteCount ?? 0) + toldBytes(key) + batchBytes > limit {
                return try checkEachFoldedValue(batch, limit)
            }
        }
    }

    /// Entry by entry, because a batch may hold several of one key.
    private func checkEachFoldedValue(_ batch: EntryColumns, _ limit: Int) throws(EngineError) {
        var sizes: [[UInt8]: Int] = [:]
        for index in 0..<batch.count {
            let entry = batch[index]
            let key = unsafe Array(entry.key)
            switch entry.kind {
            case .delete: sizes[key] = 0
            case .put: sizes[key] = unsafe entry.value.count
            case .append:
                var size = unsafe entry.value.count
                if let known = sizes[key] { size += known } else { unsafe size += try listBytes(entry.key) }
                guard size <= limit else {
                    throw .invalidEntry(
                        detail:
                            "entry \(index) makes the appended value of its key \(size) bytes long; at most \(limit) "
                            + "(foldedValueBytesMax): split the list, for example into a map state, or clear it")
                }
                sizes[key] = size
            }
        }
    }

    /// What an append to `key` would be added to. Parts in files are read only where files tell of long ones, which may be
    /// deleted by now.
    private func listBytes(_ key: UnsafeRawBufferPointer) throws(EngineError) -> Int {
        let held = unsafe heldPart(key)
        guard held?.isWhole != true, unsafe toldBytes(key) > 0 else { return held?.byteCount ?? 0 }
        var result = LookupResult()
        unsafe try collect(key, into: &result)
        return result.byteCount
    }

    /// What the active memtable has of a key; whole when nothing older counts.
    private func heldPart(_ key: UnsafeRawBufferPointer) -> (byteCount: Int, isWhole: Bool)? {
        guard let entry = unsafe active.find(key, hash: Hash64.hash(key)) else { return nil }
        if entry.kind == .delete { return (0, true) }
        return (entry.wholeValueCount(in: active.arenaView), entry.kind == .put)
    }

    private func toldBytes(_ key: UnsafeRawBufferPointer) -> Int {
        longLists.isEmpty ? 0 : longLists[unsafe Hash64.hash(key)] ?? 0
    }
}

enum LongLists {
    /// Bytes of long values by `Hash64` of the key; two keys of one hash count together, and are told apart by a look-up.
    static func sizes(_ files: some Sequence<FileRecord>) -> [UInt64: Int] {
        var sizes: [UInt64: Int] = [:]
        for file in files {
            for value in file.summary.details?.longValues ?? [] {
                sizes[Hash64.hash(value.key), default: 0] += Int(clamping: value.byteCount)
            }
        }
        return sizes
    }
}
