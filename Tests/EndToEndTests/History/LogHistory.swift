// What the owners of one log did and were told, and whether what is in the log afterwards goes with it.
//
// Events are noted in one order, each after what it tells of: a call is noted before it is made, an answer after it has come. So "A is
// noted before B" is true whenever A was over before B began, which is all that the rules need.

import CisternChangelog
import CisternLogProtocol
import CisternPrimitives
import CisternTestKit

/// The entry that an owner's append number `number` writes; its bytes tell who, and that nothing is missing.
struct HistoryEntry: Hashable, CustomStringConvertible {
    let attempt: UInt64
    let number: Int

    /// 32 bytes to 2 KB, with a checksum.
    var body: [UInt8] {
        var writer = ByteWriter()
        writer.writeInteger(attempt)
        writer.writeInteger(UInt64(number))
        var random = SeededRandom(seed: attempt &* 1_000_003 &+ UInt64(number))
        for _ in 0..<Int.random(in: 2...256, using: &random) { writer.writeInteger(random.next()) }
        writer.writeInteger(CRC32C.checksum(writer.bytes))
        return writer.bytes
    }

    init(attempt: UInt64, number: Int) {
        self.attempt = attempt
        self.number = number
    }

    /// nil when the bytes are no entry's.
    init?(_ body: [UInt8]) {
        guard body.count >= 20 else { return nil }
        func word(_ place: Int) -> UInt64 {
            (0..<8).reduce(0) { $0 | UInt64(body[place + $1]) << UInt64(8 * $1) }
        }
        guard word(8) < UInt64(Int.max) else { return nil }
        self.init(attempt: word(0), number: Int(word(8)))
        guard body == self.body else { return nil }
    }

    var description: String { "\(attempt)/\(number)" }
}

struct LogHistory {
    enum Event {
        /// An attempt begins to take the log over.
        case takeoverBegan(UInt64)
        /// It has the log, and has read all of it from the trim point on.
        case takenOver(UInt64, trimPoint: LogSequenceNumber?, [LogEntry])
        case appending(HistoryEntry)
        case appended(HistoryEntry, LogSequenceNumber)
        /// This one and all before it of its attempt are durable.
        case acknowledged(HistoryEntry)
        case truncating(UInt64, to: LogSequenceNumber)
    }

    var events: [Event] = []

    /// What is wrong; empty when nothing is.
    /// - Parameters:
    ///   - found: everything that is in the log in the end, in its order, from `trimPoint` on.
    func violations(found: [LogEntry], trimPoint: LogSequenceNumber?) -> [String] {
        var checker = HistoryChecker(events, found, trimPoint)
        return checker.run()
    }

    var acknowledgedCount: Int {
        events.count { if case .acknowledged = $0 { true } else { false } }
    }
}

private struct HistoryChecker {
    private let events: [LogHistory.Event]
    private let found: [LogEntry]
    private let trimPoint: LogSequenceNumber?
    private var problems: [String] = []
    /// Where an event is.
    private var called: [HistoryEntry: Int] = [:]
    private var places: [HistoryEntry: LogSequenceNumber] = [:]
    private var begins: [UInt64: Int] = [:]

    init(_ events: [LogHistory.Event], _ found: [LogEntry], _ trimPoint: LogSequenceNumber?) {
        self.events = events
        self.found = found
        self.trimPoint = trimPoint
    }

    mutating func run() -> [String] {
        for (time, event) in events.enumerated() {
            switch event {
            case .takeoverBegan(let attempt): begins[attempt] = time
            case .appending(let entry): called[entry] = time
            case .appended(let entry, let place): places[entry] = place
            case .takenOver, .acknowledged, .truncating: break
            }
        }
        let final = checkOrder(found, from: trimPoint, "the log in the end")
        checkAcknowledgements(final)
        checkTakeovers(final)
        checkFences()
        checkTruncation()
        return problems
    }

    /// Every entry was appended, once, in order, and owners one behind the other.
    private mutating func checkOrder(
        _ entries: [LogEntry], from begin: LogSequenceNumber?, _ what: String
    ) -> [LogSequenceNumber: HistoryEntry] {
        var known: [LogSequenceNumber: HistoryEntry] = [:]
        var seen: Set<HistoryEntry> = []
        var last: (place: LogSequenceNumber, entry: HistoryEntry)?
        for found in entries {
            guard let entry = HistoryEntry(found.body) else {
                problems.append("\(what): at \(found.place) are \(found.body.count) bytes that nobody appended")
                continue
            }
            known[found.place] = entry
            if called[entry] == nil { problems.append("\(what): \(entry) was never appended") }
            if !seen.insert(entry).inserted { problems.append("\(what): \(entry) is there twice") }
            if let told = places[entry], told != found.place {
                problems.append("\(what): \(entry) is at \(found.place), and its owner was told \(told)")
            }
            if let last, last.place >= found.place {
                problems.append("\(what): \(found.place) comes behind \(last.place)")
            }
            if let last, (last.entry.attempt, last.entry.number) >= (entry.attempt, entry.number) {
                problems.append("\(what): \(entry) comes behind \(last.entry)")
            }
            // An owner's entries are a log's prefix of what it appended, acknowledged or not: nothing is missing between two of them.
            let isCut = last == nil && begin != nil
            let isNext = last?.entry.attempt == entry.attempt && last?.entry.number == entry.number - 1
            if !isCut, !isNext, entry.number != 0 {
                problems.append("\(what): \(entry) is there without the one before it")
            }
            last = (found.place, entry)
        }
        return known
    }

    /// What was acknowledged through event `time`, with its place.
    private func acknowledged(before time: Int) -> [HistoryEntry: LogSequenceNumber] {
        var highest: [UInt64: Int] = [:]
        for event in events[..<time] {
            if case .acknowledged(let entry) = event {
                highest[entry.attempt] = max(highest[entry.attempt] ?? 0, entry.number)
            }
        }
        return places.filter { entry, _ in highest[entry.attempt].map { entry.number <= $0 } == true }
    }

    private mutating func checkAcknowledgements(_ final: [LogSequenceNumber: HistoryEntry]) {
        for case .acknowledged(let entry) in events where places[entry] == nil {
            problems.append("\(entry) was acknowledged, and its owner was never told a place")
        }
        for (entry, place) in acknowledged(before: events.count) where place >= trimPoint ?? place {
            guard let found = final[place] else {
                problems.append("\(entry) was acknowledged at \(place), and nothing is there in the end")
                continue
            }
            if found != entry {
                problems.append("\(entry) was acknowledged at \(place), and in the end it is \(found)")
            }
        }
    }

    /// A new owner reads all that was acknowledged before it began, and what it reads stays.
    private mutating func checkTakeovers(_ final: [LogSequenceNumber: HistoryEntry]) {
        for case .takenOver(let attempt, let trimmed, let entries) in events {
            let read = checkOrder(entries, from: trimmed, "what attempt \(attempt) found")
            for (entry, place) in acknowledged(before: begins[attempt] ?? 0) where place >= trimmed ?? place {
                if read[place] != entry {
                    problems.append(
                        "\(entry) was acknowledged at \(place), and attempt \(attempt) did not find it there")
                }
            }
            for (place, entry) in read where place >= trimPoint ?? place && final[place] != entry {
                problems.append("attempt \(attempt) found \(entry) at \(place), and in the end it is not there")
            }
        }
    }

    /// What an owner began to append after a newer one had the log is never acknowledged.
    private mutating func checkFences() {
        var owner: UInt64 = 0
        var since = 0
        var replaced: [UInt64: Int] = [:]
        for (time, event) in events.enumerated() {
            switch event {
            case .takenOver(let attempt, _, _):
                // A takeover that ended late may be that of an attempt that was replaced before.
                if attempt > owner {
                    for old in owner..<attempt where replaced[old] == nil { replaced[old] = time }
                    (owner, since) = (attempt, time)
                }
            case .acknowledged(let entry):
                guard let end = replaced[entry.attempt], let begin = called[entry], begin > end else { continue }
                problems.append(
                    "\(entry) was appended and acknowledged after attempt \(owner) had the log (event \(since))")
            default: break
            }
        }
    }

    /// A trim point is one that somebody asked for before, and never moves back.
    private mutating func checkTruncation() {
        var asked: Set<LogSequenceNumber> = []
        var known: [(time: Int, point: LogSequenceNumber)] = []
        for (time, event) in events.enumerated() {
            switch event {
            case .truncating(_, let point): asked.insert(point)
            case .takenOver(let attempt, let point, _):
                let floor = known.last { $0.time < begins[attempt] ?? 0 }?.point
                checkTrimPoint(point, asked, notBefore: floor, "what attempt \(attempt) found")
                if let point { known.append((time, max(point, known.last?.point ?? point))) }
            case .takeoverBegan, .appending, .appended, .acknowledged: break
            }
        }
        checkTrimPoint(trimPoint, asked, notBefore: known.last?.point, "the log in the end")
    }

    private mutating func checkTrimPoint(
        _ point: LogSequenceNumber?, _ asked: Set<LogSequenceNumber>, notBefore floor: LogSequenceNumber?,
        _ what: String
    ) {
        if let point, !asked.contains(point) {
            problems.append("\(what): begins at \(point), where nobody cut it")
        }
        if let floor, point.map({ $0 < floor }) ?? true {
            problems.append("\(what): begins before \(floor), where it began already")
        }
    }
}
