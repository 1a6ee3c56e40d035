// How long a list may become in a memtable: appends fold there without a look at what is written, and a table takes values up
// to a limit only. Called by `write` before anything of a batch is applied, on the owner's executor.

internal import CisternPrimitives

extension Tree {
    /// Refuses a batch with an append that makes a key's value in the memtable longer than `foldedValueBytesMax`.
    func checkFoldedValues(_ batch: EntryColumns) throws(EngineError) {
        let limit = options.foldedValueBytesMax
        let batchBytes = unsafe batch.values.count
        // No value is longer than all there is, so while the memtable is shorter than the limit no key is looked at.
        if active.byteCount + batchBytes <= limit { return }
        for index in 0..<batch.count where batch[index].kind == .append {
            if unsafe heldBytes(batch[index].key) + batchBytes > limit { return try checkEachFoldedValue(batch, limit) }
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
                let size = unsafe (sizes[key] ?? heldBytes(entry.key)) + entry.value.count
                guard size <= limit else {
                    throw .invalidEntry(
                        detail:
                            "entry \(index) makes the appended value of its key \(size) bytes long; at most \(limit) "
                            + "(foldedValueBytesMax) between two flushes: split the list, for example into a map state")
                }
                sizes[key] = size
            }
        }
    }

    /// What an append to `key` would be added to in the memtable.
    private func heldBytes(_ key: UnsafeRawBufferPointer) -> Int {
        guard let entry = unsafe active.find(key, hash: Hash64.hash(key)), entry.kind != .delete else { return 0 }
        return entry.wholeValueCount(in: active.arenaView)
    }
}
