// The result tables: their columns, and how the workers' rows become what is printed. truth.sql has the same columns in the
// same order.

package struct TableSchema: Sendable {
    package struct Column: Sendable {
        package var name: String
        package var isNumber: Bool
    }

    package var name: String
    package var columns: [Column]

    fileprivate init(_ name: String, _ columns: [(String, isNumber: Bool)]) {
        self.name = name
        self.columns = columns.map { Column(name: $0.0, isNumber: $0.isNumber) }
    }

    package static let aircraft = TableSchema(
        "aircraft",
        [
            ("tail_number", false), ("departures", true), ("destinations", true), ("broken_rotations", true),
            ("worst_arrival_delay", true), ("last_airport", false), ("last_flight", false), ("last_date", true),
        ])
    package static let visits = TableSchema(
        "visits", [("tail_number", false), ("destination", false), ("departures", true)])
    package static let days = TableSchema(
        "days",
        [("tail_number", false), ("date", true), ("flights", true), ("delay_sum", true), ("worst_arrival_delay", true)])
    package static let carriers = TableSchema(
        "carriers",
        [
            ("carrier", false), ("flights", true), ("cancelled", true), ("without_tail_number", true),
            ("duplicates", true), ("arrivals", true), ("delay_sum", true), ("delay_square_sum", true),
            ("worst_arrival_delay", true),
        ])

    package static let all = [aircraft, visits, days, carriers]
}

/// Rows by table, as the workers reported them: text cells, empty for none.
package struct FlightsTables: Sendable {
    private(set) var rows: [String: [[String]]] = [:]

    mutating func add(table: String, cells: [String]) { rows[table, default: []].append(cells) }

    func rows(of schema: TableSchema) -> [[String]] { rows[schema.name] ?? [] }

    /// The five tables for people, each cut to its first rows.
    func summaries(rowsMax: Int) -> [TextTable] {
        [topAircraft(rowsMax), brokenRotations(rowsMax), worstDays(rowsMax), busiestDestinations(rowsMax), carriers()]
    }

    private func topAircraft(_ count: Int) -> TextTable {
        TextTable(
            title: "Busiest aircraft",
            header: ["aircraft", "departures", "destinations", "worst delay", "last left"],
            rows: top(count, rows(of: .aircraft)) { number($0[1]) }.map {
                [$0[0], grouped($0[1]), $0[2], minutes($0[4]), "\($0[5]) \(calendarDay($0[7])) as \($0[6])"]
            })
    }

    private func brokenRotations(_ count: Int) -> TextTable {
        TextTable(
            title: "Broken rotations (left from another New York airport than last time)",
            header: ["aircraft", "broken", "departures", "share"],
            rows: top(count, rows(of: .aircraft)) { number($0[3]) }.map {
                [$0[0], grouped($0[3]), grouped($0[1]), percent(number($0[3]), of: number($0[1]))]
            })
    }

    private func worstDays(_ count: Int) -> TextTable {
        var days: [String: DailyFigure] = [:]
        for row in rows(of: .days) {
            var day = days[row[1]] ?? DailyFigure(delays: [])
            day.flights += number(row[2])
            day.delaySum += number(row[3])
            day.worst = max(day.worst, number(row[4]))
            days[row[1]] = day
        }
        let mean = { (day: DailyFigure) in Double(day.delaySum) / Double(max(day.flights, 1)) }
        let worst = days.sorted { (mean($0.value), $1.key) > (mean($1.value), $0.key) }.prefix(count)
        return TextTable(
            title: "Worst days", header: ["day", "arrivals", "mean delay", "worst delay"],
            rows: worst.map { date, day in
                [calendarDay(date), grouped("\(day.flights)"), decimal(mean(day)) + " min", minutes("\(day.worst)")]
            })
    }

    private func busiestDestinations(_ count: Int) -> TextTable {
        var departures: [String: Int] = [:]
        var aircraft: [String: Int] = [:]
        for row in rows(of: .visits) {
            departures[row[1], default: 0] += number(row[2])
            aircraft[row[1], default: 0] += 1
        }
        let rows = departures.map { [$0.key, "\($0.value)", "\(aircraft[$0.key] ?? 0)"] }
        return TextTable(
            title: "Busiest destinations", header: ["destination", "departures", "aircraft"],
            rows: top(count, rows) { number($0[1]) }.map { [$0[0], grouped($0[1]), grouped($0[2])] })
    }

    private func carriers() -> TextTable {
        TextTable(
            title: "Carriers",
            header: [
                "carrier", "flights", "cancelled", "mean delay", "deviation", "worst", "no tail number", "duplicates",
            ],
            rows: top(.max, rows(of: .carriers)) { number($0[1]) }.map { row in
                let arrivals = Double(max(number(row[5]), 1))
                let mean = Double(number(row[6])) / arrivals
                let variance = max(0, Double(number(row[7])) / arrivals - mean * mean)
                return [
                    row[0], grouped(row[1]), percent(number(row[2]), of: number(row[1])), decimal(mean) + " min",
                    decimal(variance.squareRoot()), minutes(row[8]), grouped(row[3]), grouped(row[4]),
                ]
            })
    }

    /// Highest first; equal ones by name, so that two runs print the same.
    private func top(_ count: Int, _ rows: [[String]], by value: ([String]) -> Int) -> ArraySlice<[String]> {
        rows.map { (value($0), $0) }.sorted { ($0.0, $1.1[0]) > ($1.0, $0.1[0]) }.map(\.1).prefix(count)
    }
}

private func number(_ cell: String) -> Int { Int(cell) ?? 0 }
private func grouped(_ cell: String) -> String { Int(cell).map(grouped) ?? "-" }
private func minutes(_ cell: String) -> String { cell.isEmpty ? "-" : "\(grouped(cell)) min" }
private func calendarDay(_ date: String) -> String {
    date.count == 8 ? "\(date.prefix(4))-\(date.dropFirst(4).prefix(2))-\(date.suffix(2))" : date
}
