// The journal's housekeeping: indexes of sealed segments, prepared ones, removal, copies of what keeps a segment alive, the search for damage.

internal import CisternFileSystem
internal import CisternLogProtocol
internal import CisternPrimitives

extension Journal {
    /// A segment is full and durable: its index is written, then it may go when nothing in it is needed.
    func keep(_ segment: UInt64) {
        guard let end = sealed[segment] else { return }
        let summary = SegmentIndex(
            segment: segment, bytes: end.bytes, checksum: end.checksum, items: items.removeValue(forKey: segment) ?? [])
        let ledgers = Set((held[segment] ?? [:]).keys)
        lanes.keeper.submit { [self] in
            // Without it a start scans the segment.
            try? AtomicFile.write(
                summary.encoded(), to: JournalFiles.index(segment), in: options.directory, fileSystem: fileSystem)
            ownerLane.submit { [self] in
                indexed(segment, ledgers)
                prepareSpares()
            }
        }
    }

    private func indexed(_ segment: UInt64, _ ledgers: Set<LedgerID>) {
        // Deletes since then are known to `held`.
        trim.sealed(segment: segment, ledgers: ledgers.intersection((held[segment] ?? [:]).keys))
        _ = trim.checkpointed(store: 0, before: segment + 1)
        lookForWork()
    }

    /// Segments that were there when the journal was opened.
    func adopt() {
        for segment in sealed.keys.sorted() {
            if items[segment] != nil {
                keep(segment)
            } else {
                trim.sealed(segment: segment, ledgers: Set((held[segment] ?? [:]).keys))
                _ = trim.checkpointed(store: 0, before: segment + 1)
            }
        }
        prepareSpares(max(options.spareSegments, options.preparedAtStart))
        lookForWork()
    }

    // MARK: Prepared segments

    func prepareSpares(_ wanted: Int? = nil) {
        let wanted = wanted ?? options.spareSegments
        guard stock.count < wanted else { return reportRoom(true) }
        lanes.keeper.submit { [self] in
            let hasRoom = fillStock(wanted)
            ownerLane.submit { [self] in
                reportRoom(hasRoom)
                if !hasRoom { retryLater() }
            }
        }
    }

    /// False when the disk has no room for as many as should be there.
    private func fillStock(_ wanted: Int) -> Bool {
        while stock.count < wanted {
            if let available = fileSystem.availableBytes(options.directory),
                available < options.reserveBytes + UInt64(options.segmentBytes)
            {
                return false
            }
            do throws(FileError) { try stock.prepare() } catch { return false }
        }
        return true
    }

    private func reportRoom(_ hasRoom: Bool) { owner?.roomChanged(hasRoom) }

    private func retryLater() {
        ownerLane.submit(afterMilliseconds: options.retryMilliseconds) { [self] in
            prepareSpares()
            lookForWork()
        }
    }

    // MARK: Removal

    /// Removes segments that nothing needs, then copies what keeps one alive that is nearly empty.
    func lookForWork() {
        guard !isKeeping else { return }
        let removable = trim.takeRemovable().filter { !pinned.contains($0) }
        if removable.isEmpty { return rewriteOne() }
        isKeeping = true
        // What the removed segments say of deleted ledgers stays in a file of its own.
        let deleted = DeletedLedgers(runs: owner?.deletedLedgers ?? []).encoded()
        lanes.keeper.submit { [self] in
            let isDone: Bool
            do throws(FileError) {
                try AtomicFile.write(deleted, to: JournalFiles.deleted, in: options.directory, fileSystem: fileSystem)
                for segment in removable { try stock.giveBack(segment) }
                isDone = true
            } catch {
                isDone = false
            }
            ownerLane.submit { [self] in removed(removable, isDone) }
        }
    }

    private func removed(_ segments: [UInt64], _ isDone: Bool) {
        isKeeping = false
        guard isDone else {
            for segment in segments { trim.sealed(segment: segment, ledgers: []) }
            return retryLater()
        }
        metrics.segmentsRemoved += UInt64(segments.count)
        for segment in segments {
            sealed[segment] = nil
            held[segment] = nil
        }
        lanes.reader.submit { [self] in reader.forget(segments) }
        prepareSpares()
        lookForWork()
    }

    // MARK: Rewriting

    /// The oldest segment of which little is needed.
    private func rewriteOne() {
        guard rewriting == nil else { return }
        let nearlyEmpty = sealed.keys.sorted().first { segment in
            guard !pinned.contains(segment), items[segment] == nil, let end = sealed[segment], end.bytes > 0 else {
                return false
            }
            let live = (held[segment] ?? [:]).values.reduce(0, +)
            return live > 0 && Double(live) < options.rewriteBelow * Double(options.segmentBytes)
        }
        guard let segment = nearlyEmpty else { return }
        rewriting = segment
        let entries = index.entries(in: segment).map {
            WantedEntry(ledger: $0.ledger, entry: $0.entry, place: $0.place)
        }
        lanes.reader.submit { [self] in
            let result = reader.read(entries, bytesMax: .max)
            ownerLane.submit { [self] in rewrite(segment, entries, result) }
        }
    }

    private func rewrite(_ segment: UInt64, _ entries: [WantedEntry], _ result: JournalReadResult) {
        var isWhole = true
        var copies: [JournalRecord] = []
        for (item, read) in zip(entries, result.reads) {
            guard held[segment]?[item.ledger] != nil, item.place == index.place(of: item.entry, in: item.ledger) else {
                continue
            }
            switch read {
            case .body(let body): copies.append(.add(item.ledger, item.entry, lac: .none, body: body))
            case .failed: isWhole = false
            }
        }
        // A segment that cannot be read stays: repair writes its entries anew, and then it is looked at again.
        guard isWhole, !hasFailed, let owner else { return }
        for ledger in (held[segment] ?? [:]).keys.sorted() { copies += owner.facts(of: ledger) }
        for record in copies { append(record, nil) }
        metrics.recordsRewritten += UInt64(copies.count)
        whenSynced { [self] in
            held[segment] = [:]
            trim.sealed(segment: segment, ledgers: [])
            rewriting = nil
            lookForWork()
        }
        commit()
    }

    // MARK: Damage

    /// Reads every entry of the sealed segments, one segment after the other, and reports what is damaged.
    /// - Parameters:
    ///   - bytesPerSecond: how fast at most, by pauses between segments; 0: no pauses.
    ///   - completion: on the owner's lane with the number of entries that were read.
    package func scrub(bytesPerSecond: UInt64 = 0, completion: @escaping @Sendable (Int) -> Void) {
        scrub(sealed.keys.sorted()[...], read: 0, bytesPerSecond, completion)
    }

    private func scrub(
        _ segments: ArraySlice<UInt64>, read: Int, _ bytesPerSecond: UInt64,
        _ completion: @escaping @Sendable (Int) -> Void
    ) {
        guard let segment = segments.first, !hasFailed else {
            if !hasFailed { metrics.scrubs += 1 }
            return completion(read)
        }
        let entries = index.entries(in: segment).map {
            WantedEntry(ledger: $0.ledger, entry: $0.entry, place: $0.place)
        }
        let bytes = entries.reduce(0) { $0 + UInt64($1.place?.length ?? 0) }
        lanes.keeper.submit { [self] in
            // A reader of its own: bodies that are looked at here are nobody's.
            let reader = JournalReader(directory: options.directory, fileSystem: fileSystem)
            let damaged = entries.filter { !reader.read([$0], bytesMax: .max).damaged.isEmpty }
            ownerLane.submit { [self] in
                for (ledger, wanted) in Dictionary(grouping: damaged, by: \.ledger) {
                    self.damaged(ledger, wanted.map(\.entry), wanted)
                }
                metrics.scrubbedEntries += UInt64(entries.count)
                let next: @Sendable () -> Void = { [self] in
                    scrub(segments.dropFirst(), read: read + entries.count, bytesPerSecond, completion)
                }
                let pause = bytesPerSecond == 0 ? 0 : bytes * 1000 / bytesPerSecond
                if pause == 0 { next() } else { ownerLane.submit(afterMilliseconds: pause, next) }
            }
        }
    }
}
