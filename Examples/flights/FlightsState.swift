// The values that the job keeps, and their bytes. Small on purpose: what a state holds is what is compressed, cached, logged
// and compacted.

internal import CisternClient

/// The last time an aircraft left New York. Stored as JSON text, as many real jobs do: it is what the trained dictionary
/// of the codec is for.
package struct LastDeparture: Equatable {
    var airport: String
    var flight: String
    var destination: String
    var date: Int
    var scheduled: Int
    var delay: Int

    package init(_ flight: Flight) {
        airport = flight.origin
        self.flight = "\(flight.carrier)\(flight.number)"
        destination = flight.destination
        date = flight.date
        scheduled = flight.scheduledDeparture
        delay = flight.departureDelay ?? 0
    }

    static let serializer = StateSerializer<LastDeparture>(
        encode: { departure, bytes in bytes.append(contentsOf: departure.json.utf8) },
        decode: { bytes in try LastDeparture(json: bytes) })

    /// Airport codes and flight numbers are letters and digits: nothing needs escaping.
    package var json: String {
        """
        {"airport":"\(airport)","flight":"\(flight)","destination":"\(destination)",\
        "date":\(date),"scheduled":\(scheduled),"delay":\(delay)}
        """
    }
}

/// What became of an aircraft's arrivals on one day.
struct DailyFigure: Equatable {
    var flights = 0
    /// Minutes; the mean is `delaySum / flights`, kept as a sum so that days add up exactly.
    var delaySum = 0
    var worst = Int.min

    init(delays: [Int64]) {
        for delay in delays {
            flights += 1
            delaySum += Int(delay)
            worst = max(worst, Int(delay))
        }
    }

    init(flights: Int, delaySum: Int, worst: Int) {
        self.flights = flights
        self.delaySum = delaySum
        self.worst = worst
    }

    static let serializer = integers(
        of: DailyFigure.self, count: 3, encode: { [$0.flights, $0.delaySum, $0.worst] },
        decode: { DailyFigure(flights: $0[0], delaySum: $0[1], worst: $0[2]) })
}

/// What a delivery means to a carrier.
enum CarrierEvent {
    case flight(Flight)
    case duplicate
}

/// Delay statistics of a carrier. Sums of integers, so that the result does not depend on the order of the flights.
struct CarrierStatistics: Equatable {
    var flights = 0
    var cancelled = 0
    var withoutTailNumber = 0
    var duplicates = 0
    var arrivals = 0
    var delaySum = 0
    var delaySquareSum = 0
    var worst = Int.min

    mutating func add(_ event: CarrierEvent) {
        guard case .flight(let flight) = event else {
            duplicates += 1
            return
        }
        flights += 1
        if flight.isCancelled { cancelled += 1 }
        if flight.tailNumber == nil { withoutTailNumber += 1 }
        if let delay = flight.arrivalDelay {
            arrivals += 1
            delaySum += delay
            delaySquareSum += delay * delay
            worst = max(worst, delay)
        }
    }

    static let serializer = integers(
        of: CarrierStatistics.self, count: 8,
        encode: {
            [
                $0.flights, $0.cancelled, $0.withoutTailNumber, $0.duplicates, $0.arrivals, $0.delaySum,
                $0.delaySquareSum, $0.worst,
            ]
        },
        decode: {
            CarrierStatistics(
                flights: $0[0], cancelled: $0[1], withoutTailNumber: $0[2], duplicates: $0[3], arrivals: $0[4],
                delaySum: $0[5], delaySquareSum: $0[6], worst: $0[7])
        })
}

extension CarrierStatistics {
    static var aggregate: Aggregate<CarrierEvent, CarrierStatistics, CarrierStatistics> {
        Aggregate(makeAccumulator: { CarrierStatistics() }, add: { event, sums in sums.add(event) }, result: { $0 })
    }
}

// MARK: - Bytes

/// A value of `count` integers, eight bytes each, little-endian.
private func integers<Value>(
    of type: Value.Type, count: Int, encode: @escaping @Sendable (Value) -> [Int],
    decode: @escaping @Sendable ([Int]) -> Value
) -> StateSerializer<Value> {
    StateSerializer<Value>(
        encode: { value, bytes in
            for number in encode(value) {
                for shift in stride(from: 0, to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: number >> shift)) }
            }
        },
        decode: { bytes in
            guard bytes.count == count * 8 else {
                throw SerializerError("\(Value.self) has \(count * 8) bytes, found \(bytes.count)")
            }
            return decode(
                (0..<count).map { index in
                    let start = bytes.startIndex + index * 8
                    return bytes[start..<start + 8].reversed().reduce(0) { $0 << 8 | Int($1) }
                })
        })
}

extension LastDeparture {
    /// Reads what `json` wrote: the same members in the same order.
    package init(json: ArraySlice<UInt8>) throws {
        var rest = json
        func skip(_ expected: String) throws {
            guard rest.starts(with: expected.utf8) else {
                throw SerializerError(
                    "a last departure should go on with \(expected) and is \(String(decoding: json, as: UTF8.self))")
            }
            rest = rest.dropFirst(expected.utf8.count)
        }
        func take(until end: Character) -> String {
            let field = rest.prefix { $0 != end.asciiValue }
            rest = rest[field.endIndex...]
            return String(decoding: field, as: UTF8.self)
        }
        func number(_ text: String) throws -> Int {
            guard let value = Int(text) else {
                throw SerializerError("\"\(text)\" in a last departure is not a number")
            }
            return value
        }
        try skip("{\"airport\":\"")
        airport = take(until: "\"")
        try skip("\",\"flight\":\"")
        flight = take(until: "\"")
        try skip("\",\"destination\":\"")
        destination = take(until: "\"")
        try skip("\",\"date\":")
        date = try number(take(until: ","))
        try skip(",\"scheduled\":")
        scheduled = try number(take(until: ","))
        try skip(",\"delay\":")
        delay = try number(take(until: "}"))
        try skip("}")
        guard rest.isEmpty else { throw SerializerError("\(rest.count) bytes behind a last departure") }
    }
}
