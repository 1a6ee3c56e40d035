// Many point reads in one call.

package import CisternPrimitives

extension Tree {
    /// Looks up `count` keys and shows what each has, in the order of the keys.
    /// - Parameters:
    ///   - result: scratch; what it held is gone.
    ///   - key: of a number below `count`; the bytes stay until this returns.
    ///   - visit: the number, the value or nil, its expiry. The value is valid during the call, which must not read the tree.
    ///     False ends the look-up.
    /// - Throws: what reading a file throws. Where reads do not wait (`DiskWaits`), all keys are looked up before `wouldWait` is
    ///   thrown, so that the disk is told of what all of them need.
    package func multiGet(
        count: Int, clock: ExpiryClock, scratch result: inout LookupResult, key: (Int) -> UnsafeRawBufferPointer,
        visit: (Int, UnsafeRawBufferPointer?, Expiry) -> Bool
    ) throws(EngineError) {
        guard lifecycle != .closed else { throw .closed(tree: name) }
        let batch = batchLookup ?? BatchLookup()
        batchLookup = batch
        let rules = state.expiryRules
        var waiting: EngineError?
        var first = 0
        while first < count {
            let last = min(first + BatchLookup.keysMax, count)
            batch.reset()
            for number in first..<last { unsafe batch.add(key(number)) }
            cacheReader.enter()
            search(batch)
            if !rules.areIdle { batch.apply(rules) }
            // A look-up alone, or a value file, may leave the epoch that the others' values are borrowed in.
            let areCopied = batch.hasAlone || batch.hasPointers
            if areCopied {
                batch.copyValues()
                cacheReader.leave()
                do throws(EngineError) { try batch.followPointers(clock) } catch {
                    guard error.wouldWait else { throw error }
                    waiting = error
                }
            }
            defer { if !areCopied { cacheReader.leave() } }
            let gets = counters.gets &+ UInt64(batch.count)
            if gets / Tree.readsPerLook != counters.gets / Tree.readsPerLook { lookAfterReads() }
            counters.gets = gets
            for number in 0..<batch.count {
                let goesOn: Bool
                switch unsafe batch.items[number].outcome {
                case .alone:
                    result.reset()
                    do throws(EngineError) { unsafe try collect(batch.items[number].key, into: &result) } catch {
                        guard error.wouldWait else { throw error }
                        waiting = error
                    }
                    if waiting != nil { continue }
                    if !rules.areIdle { unsafe result.apply(rules, to: batch.items[number].key) }
                    let found = unsafe result.finish(clock)
                    goesOn = unsafe visit(first + number, found?.value, found?.expiry ?? .never)
                case _ where waiting != nil: continue
                case .found:
                    let item = unsafe batch.items[number]
                    let isAlive = item.kind == .put && !clock.isExpired(item.expiry)
                    goesOn = unsafe visit(first + number, isAlive ? item.value : nil, isAlive ? item.expiry : .never)
                case .pending: goesOn = visit(first + number, nil, .never)
                }
                if !goesOn { return }
            }
            first = last
        }
        if let waiting { throw waiting }
    }

    private func search(_ batch: BatchLookup) {
        for number in 0..<batch.count {
            let key = unsafe batch.items[number].key
            let hash = unsafe batch.items[number].hash
            guard key.count >= EngineLimits.keyBytesMin, unsafe identity.keyGroups.contains(keyGroup(of: key)) else {
                batch.refuse(number)
                continue
            }
            if let entry = unsafe active.find(key, hash: hash) {
                batch.take(entry, for: number)
                continue
            }
            for index in stride(from: sealed.count - 1, through: 0, by: -1) {
                if let entry = unsafe sealed[index].memtable.find(key, hash: hash) {
                    batch.take(entry, for: number)
                    break
                }
            }
        }
        if version.fileCount > 0 { version.get(batch, reader: cacheReader) }
    }
}
