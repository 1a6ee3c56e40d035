// The job's source: the flights in file order, delivered at least once.
//
// A real source (a log, a queue) delivers some records twice. This one does so by rule, so that a test knows which: every
// 97th flight of the file comes again right after the flight 40 places later. The stream is a pure function of the file,
// so an offset (deliveries consumed) names a place to which a restored worker can return.
//
//     file        1 … 96 97 98 … 136 137     138 …
//     delivered   1 … 96 97 98 … 136 137 97' 138 …

/// One record as the source hands it out.
package struct Delivery: Equatable {
    package var flight: Flight
    /// Days the source has begun so far, 1 for the first. It moves on when the file moves on to another date; the file's
    /// months are not in calendar order, so this, and not the date, is the job's event time. A flight that is delivered
    /// again arrives under the day at which the source stands then.
    package var day: Int
}

package struct FlightSource: ~Copyable {
    package static let redeliveryInterval = 97
    package static let redeliveryDistance = 40

    /// Deliveries handed out so far.
    package private(set) var offset = 0
    /// Flights read so far.
    package private(set) var flightCount = 0

    private var file: ZstdFile
    private let flightsMax: Int
    private var buffer: [UInt8] = []
    private var consumed = 0
    private var lineNumber = 0
    private var date = 0
    private var day = 0
    private var redelivery: (flight: Flight, after: Int)?

    /// Decompressed bytes asked for at a time.
    private static let chunkBytes = 128 << 10
    /// A longer line is damage, not data.
    private static let lineBytesMax = 4096

    /// - Parameter flightsMax: reads only so many flights of the file; tests use it.
    package init(path: String, flightsMax: Int = .max) throws(FlightSourceError) {
        file = try ZstdFile(path: path)
        self.flightsMax = flightsMax
    }

    /// The next delivery, or nil at the end of the file.
    package mutating func next() throws(FlightSourceError) -> Delivery? {
        if let again = redelivery, again.after == flightCount {
            redelivery = nil
            offset += 1
            return Delivery(flight: again.flight, day: day)
        }
        if lineNumber == 0 { try checkHeader() }
        guard flightCount < flightsMax, let line = try nextLine() else { return nil }
        let flight: Flight
        do {
            flight = try Flight(line: line)
        } catch {
            throw .badRecord(path: file.path, line: lineNumber, reason: error.reason)
        }
        flightCount += 1
        if flight.date != date {
            date = flight.date
            day += 1
        }
        if flightCount.isMultiple(of: Self.redeliveryInterval) {
            redelivery = (flight, after: flightCount + Self.redeliveryDistance)
        }
        offset += 1
        return Delivery(flight: flight, day: day)
    }

    /// Goes forward to an offset that an earlier reader of the same file had reached.
    package mutating func skip(to target: Int) throws(FlightSourceError) {
        while offset < target {
            guard try next() != nil else {
                throw .badRecord(
                    path: file.path, line: lineNumber,
                    reason: "the file ends at delivery \(offset), before offset \(target) of the checkpoint; "
                        + "it is not the file the checkpoint was taken from")
            }
        }
    }

    private mutating func checkHeader() throws(FlightSourceError) {
        let header = try nextLine().map { String(decoding: $0, as: UTF8.self) }
        guard header == Flight.header else {
            throw .unexpectedHeader(path: file.path, found: header ?? "an empty file")
        }
    }

    /// The next line without its newline; a slice of the buffer that lives until the next call.
    private mutating func nextLine() throws(FlightSourceError) -> ArraySlice<UInt8>? {
        var scanned = consumed
        while true {
            if let end = buffer[scanned...].firstIndex(of: UInt8(ascii: "\n")) {
                let line = buffer[consumed..<end]
                consumed = end + 1
                lineNumber += 1
                return line
            }
            guard buffer.count - consumed <= Self.lineBytesMax else {
                throw .badRecord(
                    path: file.path, line: lineNumber + 1, reason: "no end of line within \(Self.lineBytesMax) bytes")
            }
            buffer.removeFirst(consumed)
            consumed = 0
            scanned = buffer.count
            guard try file.read(upTo: Self.chunkBytes, into: &buffer) else {
                guard buffer.isEmpty else {
                    throw .badRecord(path: file.path, line: lineNumber + 1, reason: "the last line has no end")
                }
                return nil
            }
        }
    }
}
