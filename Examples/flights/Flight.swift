// One flight: the columns of a CSV line that the job uses, and how they are read from it.

package struct Flight: Equatable {
    /// Columns of the file, in order; the header line must say exactly this.
    package static let header =
        "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
        + "origin,dest,air_time,distance,hour,minute,time_hour"
    static let columnCount = 19

    /// Calendar day as the number yyyymmdd.
    package var date: Int
    /// Scheduled departure, local time, as the number hhmm.
    package var scheduledDeparture: Int
    /// Minutes; nil when the flight was cancelled and never left.
    package var departureDelay: Int?
    /// Minutes, negative when early; nil when the flight was cancelled or landed somewhere else.
    package var arrivalDelay: Int?
    package var carrier: String
    package var number: Int
    /// The aircraft; nil for some of the cancelled flights.
    package var tailNumber: String?
    package var origin: String
    package var destination: String

    package var isCancelled: Bool { departureDelay == nil }

    /// What makes a flight this one and no other. The source may deliver a flight twice; the identity tells.
    package var identity: [UInt8] { Array("\(carrier)\(number) \(origin) \(date)".utf8) }
}

extension Flight {
    /// Reads a line without its newline. The error is a sentence about the column at fault.
    package init(line: ArraySlice<UInt8>) throws(FlightFormatError) {
        var fields = FieldReader(line: line)
        let year = try fields.number("year")
        let month = try fields.number("month")
        let day = try fields.number("day")
        date = (year * 100 + month) * 100 + day
        _ = try fields.optionalNumber("dep_time")
        scheduledDeparture = try fields.number("sched_dep_time")
        departureDelay = try fields.optionalNumber("dep_delay")
        _ = try fields.optionalNumber("arr_time")
        _ = try fields.optionalNumber("sched_arr_time")
        arrivalDelay = try fields.optionalNumber("arr_delay")
        carrier = try fields.text("carrier")
        number = try fields.number("flight")
        tailNumber = try fields.optionalText("tailnum")
        origin = try fields.text("origin")
        destination = try fields.text("dest")
        try fields.skipRest(from: 14, of: Self.columnCount)
    }
}

package struct FlightFormatError: Error, Equatable {
    package var reason: String
}

/// Walks the comma-separated fields of a line. The file has no quoted fields.
private struct FieldReader {
    private static let comma = UInt8(ascii: ",")
    private static let notAvailable: [UInt8] = Array("NA".utf8)

    var line: ArraySlice<UInt8>
    var isAtEnd = false

    init(line: ArraySlice<UInt8>) { self.line = line }

    mutating func next(_ column: String) throws(FlightFormatError) -> ArraySlice<UInt8> {
        guard !isAtEnd else { throw FlightFormatError(reason: "the line ends before column \(column)") }
        var end = line.startIndex
        while end < line.endIndex, line[end] != Self.comma { end += 1 }
        let field = line[line.startIndex..<end]
        isAtEnd = end == line.endIndex
        line = isAtEnd ? line[end...] : line[(end + 1)...]
        return field
    }

    mutating func number(_ column: String) throws(FlightFormatError) -> Int {
        let field = try next(column)
        guard let value = Self.integer(field) else { throw Self.notANumber(field, column) }
        return value
    }

    mutating func optionalNumber(_ column: String) throws(FlightFormatError) -> Int? {
        let field = try next(column)
        if Self.isAbsent(field) { return nil }
        guard let value = Self.integer(field) else { throw Self.notANumber(field, column) }
        return value
    }

    mutating func text(_ column: String) throws(FlightFormatError) -> String {
        guard let value = try optionalText(column) else { throw FlightFormatError(reason: "column \(column) is empty") }
        return value
    }

    mutating func optionalText(_ column: String) throws(FlightFormatError) -> String? {
        let field = try next(column)
        return Self.isAbsent(field) ? nil : String(decoding: field, as: UTF8.self)
    }

    mutating func skipRest(from column: Int, of count: Int) throws(FlightFormatError) {
        var seen = column
        while !isAtEnd {
            _ = try next("\(seen + 1)")
            seen += 1
        }
        guard seen == count else { throw FlightFormatError(reason: "\(seen) columns where \(count) were expected") }
    }

    private static func isAbsent(_ field: ArraySlice<UInt8>) -> Bool {
        field.isEmpty || (field.count == 2 && field.elementsEqual(notAvailable))
    }

    /// Up to nine digits, so that the arithmetic cannot overflow.
    private static func integer(_ field: ArraySlice<UInt8>) -> Int? {
        let isNegative = field.first == UInt8(ascii: "-")
        let digits = isNegative ? field.dropFirst() : field
        guard !digits.isEmpty, digits.count <= 9 else { return nil }
        var value = 0
        for byte in digits {
            guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + Int(byte - UInt8(ascii: "0"))
        }
        return isNegative ? -value : value
    }

    private static func notANumber(_ field: ArraySlice<UInt8>, _ column: String) -> FlightFormatError {
        FlightFormatError(
            reason:
                "column \(column) should be a number and is \"\(String(decoding: field.prefix(32), as: UTF8.self))\"")
    }
}
