// The job: which states it keeps, and what one record does to them. Read it top-down.
//
// Two operators, each with a store of its own in the state server. A worker runs both, for the keys whose key groups it
// owns; nothing here knows about processes, checkpoints or sockets. State that is in the client's write buffer or cache, or
// that the key index knows to be absent, is answered at once; the rest waits for the server.

internal import CisternClient

/// Event time. The files' months are not in order, so time is the count of days the source has begun.
enum EventTime {
    static let dayMilliseconds = 86_400_000

    static func start(ofDay day: Int) -> Int { day * dayMilliseconds }

    /// How long a flight is remembered for duplicate suppression. The source repeats a record 40 places later, at most
    /// one day on; two days leave room.
    static let duplicateMemoryMilliseconds = 2 * dayMilliseconds
}

/// Key groups of both stores: the most workers the job could ever have.
let keyGroupCount = 128

// MARK: - By aircraft

/// Keyed by tail number. Flights without one are left to the carriers' operator, which counts them.
final class AircraftOperator {
    static let store = "flights-aircraft"

    let session: KeyedStateSession
    private let seen: DuplicateFilter
    private let lastDeparture: ValueState<LastDeparture>
    private let brokenRotations: ValueState<Int64>
    private let visits: MapState<String, Int64>
    private let worstDelay: ReducingState<Int64>
    private let delaysOfDay: ListState<Int64>
    private let daily: ValueState<DailyFigure>
    private let dayEnds: TimerQueue

    init(session: KeyedStateSession) async throws(ClientError) {
        self.session = session
        let json = StateOptions(codec: .zstd(level: 1), dictionary: .trained(bytes: 8192))
        seen = try await DuplicateFilter(session: session)
        lastDeparture = try await session.valueState("last-departure", LastDeparture.serializer, json)
        brokenRotations = try await session.valueState("broken-rotations", .int64)
        visits = try await session.mapState("visits", .string, .int64)
        worstDelay = try await session.reducingState("worst-delay", .int64) { max($0, $1) }
        delaysOfDay = try await session.listState("delays-of-day", .int64)
        daily = try await session.valueState("daily", DailyFigure.serializer)
        dayEnds = try await session.timerQueue("day-ends")
    }

    static func key(of flight: Flight) -> [UInt8]? { flight.tailNumber.map { Array($0.utf8) } }

    /// One record of an aircraft.
    func process(_ flight: Flight, key: [UInt8], day: Int) async throws(ClientError) {
        try session.setCurrentKey(key)
        guard try await seen.isFirst(flight, day: day) else { return }
        if !flight.isCancelled { try await departed(flight) }
        if let delay = flight.arrivalDelay { try await arrived(flight, delay: Int64(delay), day: day) }
    }

    private func departed(_ flight: Flight) async throws(ClientError) {
        if let last = try await lastDeparture.value(), last.airport != flight.origin {
            // It came back to one airport and leaves from another: somebody else's flight brought it there, or a truck its crew.
            try await brokenRotations.update((try await brokenRotations.value() ?? 0) + 1)
        }
        try await lastDeparture.update(LastDeparture(flight))
        try await visits.put(flight.destination, (try await visits.get(flight.destination) ?? 0) + 1)
    }

    private func arrived(_ flight: Flight, delay: Int64, day: Int) async throws(ClientError) {
        try await worstDelay.add(delay)
        session.namespace = Array(String(flight.date).utf8)
        defer { session.namespace = [] }
        try await delaysOfDay.add(delay)
        try await dayEnds.register(at: Int64(EventTime.start(ofDay: day + 1)))
    }

    /// The source has moved on to `day`: the days before it are closed.
    func begin(day: Int) async throws {
        let now = EventTime.start(ofDay: day)
        session.advanceWatermark(to: UInt64(now))
        try await dayEnds.advance(to: Int64(now)) { _ in try await closeDay() }
    }

    /// The timer of an aircraft's day has fired, under its key and namespace: the list becomes a figure and goes.
    private func closeDay() async throws(ClientError) {
        let delays = try await delaysOfDay.get()
        try await daily.update(DailyFigure(delays: delays))
        try await delaysOfDay.clear()
    }
}

// MARK: - By carrier

/// Keyed by carrier.
final class CarrierOperator {
    static let store = "flights-carriers"

    let session: KeyedStateSession
    private let seen: DuplicateFilter
    private let statistics: AggregatingState<CarrierEvent, CarrierStatistics, CarrierStatistics>

    init(session: KeyedStateSession) async throws(ClientError) {
        self.session = session
        seen = try await DuplicateFilter(session: session)
        statistics = try await session.aggregatingState(
            "delays", CarrierStatistics.serializer, StateOptions(), CarrierStatistics.aggregate)
    }

    static func key(of flight: Flight) -> [UInt8] { Array(flight.carrier.utf8) }

    func process(_ flight: Flight, key: [UInt8], day: Int) async throws(ClientError) {
        try session.setCurrentKey(key)
        let isFirst = try await seen.isFirst(flight, day: day)
        try await statistics.add(isFirst ? .flight(flight) : .duplicate)
    }

    func begin(day: Int) {
        session.advanceWatermark(to: UInt64(EventTime.start(ofDay: day)))
    }
}

// MARK: - Duplicate suppression

/// Remembers each flight for two days under the operator's key, in a namespace of the flight's identity. Nearly every
/// read is of a key that does not exist: the client's key index answers it without asking the server.
struct DuplicateFilter {
    private let session: KeyedStateSession
    private let seen: ValueState<Int64>

    init(session: KeyedStateSession) async throws(ClientError) {
        self.session = session
        let twoDays = TimeToLive.event(milliseconds: UInt64(EventTime.duplicateMemoryMilliseconds))
        seen = try await session.valueState("seen", .int64, StateOptions(ttl: twoDays))
    }

    /// False when the source has delivered this flight before.
    func isFirst(_ flight: Flight, day: Int) async throws(ClientError) -> Bool {
        session.namespace = flight.identity
        defer { session.namespace = [] }
        if try await seen.value() != nil { return false }
        try await seen.update(Int64(day))
        return true
    }
}

// MARK: - Results

/// Rows of one table, in the table's columns.
typealias TableRow = (table: TableSchema, cells: [String])

extension AircraftOperator {
    /// Everything the operator knows, read back from the state server.
    func rows() async throws -> [TableRow] {
        var rows: [TableRow] = []
        var visited: [String: (departures: Int64, destinations: Int)] = [:]
        try await session.forEach(visits) { key, _, destination, count in
            let aircraft = text(key)
            rows.append((.visits, [aircraft, destination, "\(count)"]))
            let sum = visited[aircraft] ?? (0, 0)
            visited[aircraft] = (sum.departures + count, sum.destinations + 1)
        }
        var broken: [String: Int64] = [:]
        try await session.forEach(brokenRotations) { key, _, count in broken[text(key)] = count }
        var worst: [String: Int64] = [:]
        try await session.forEach(worstDelay) { key, _, delay in worst[text(key)] = delay }
        try await session.forEach(lastDeparture) { key, _, last in
            let aircraft = text(key)
            let visited = visited[aircraft] ?? (0, 0)
            rows.append(
                (
                    .aircraft,
                    [
                        aircraft, "\(visited.departures)", "\(visited.destinations)", "\(broken[aircraft] ?? 0)",
                        worst[aircraft].map(String.init) ?? "", last.airport, last.flight, "\(last.date)",
                    ]
                ))
        }
        try await session.forEach(daily) { key, date, figure in
            rows.append((.days, [text(key), text(date), "\(figure.flights)", "\(figure.delaySum)", "\(figure.worst)"]))
        }
        return rows
    }
}

extension CarrierOperator {
    func rows() async throws -> [TableRow] {
        var rows: [TableRow] = []
        try await session.forEach(statistics) { key, _, sums in
            let numbers = [
                sums.flights, sums.cancelled, sums.withoutTailNumber, sums.duplicates, sums.arrivals, sums.delaySum,
                sums.delaySquareSum,
            ]
            let worst = sums.arrivals == 0 ? "" : "\(sums.worst)"
            rows.append((.carriers, [text(key)] + numbers.map(String.init) + [worst]))
        }
        return rows
    }
}

private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
