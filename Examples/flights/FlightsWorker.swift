// A worker process: reads the whole source, takes the records whose key groups it owns, and keeps their state in the server.
//
// Every worker sees every record, so all of them come past the same offsets: a checkpoint is taken by each on its own at a
// fixed offset, with no barrier to align. A restored worker reads from the checkpoint's offset on.

internal import CisternClient
internal import CisternPrimitives
internal import Foundation
internal import Glibc

struct FlightsWorker {
    /// Deliveries between two reports of progress.
    static let progressInterval = 1000

    let assignment: WorkerAssignment
    private let reporter = Reporter()

    init(assignment: WorkerAssignment) { self.assignment = assignment }

    func run() async throws {
        let client = try await StateClient.connect(configuration())
        let started = ContinuousClock.now
        let aircraft = try await AircraftOperator(session: attach(client, AircraftOperator.store))
        let carriers = try await CarrierOperator(session: attach(client, CarrierOperator.store))
        try reporter.report(.ready(restoreMicroseconds: (ContinuousClock.now - started).microseconds))

        try await process(aircraft, carriers)
        for row in try await aircraft.rows() { try reporter.report(.row(table: row.table.name, cells: row.cells)) }
        for row in try await carriers.rows() { try reporter.report(.row(table: row.table.name, cells: row.cells)) }
        try reporter.report(.figures(WorkerFigures([aircraft.session.metrics, carriers.session.metrics])))
        try reporter.report(.done)
        try await aircraft.session.detach()
        try await carriers.session.detach()
        await client.close()
    }

    private func process(_ aircraft: AircraftOperator, _ carriers: CarrierOperator) async throws {
        var source = try FlightSource(path: assignment.input, flightsMax: assignment.flightsMax)
        try source.skip(to: assignment.offset)
        var day = 0
        while let delivery = try source.next() {
            if delivery.day != day {
                day = delivery.day
                try await aircraft.begin(day: day)
                carriers.begin(day: day)
            }
            let flight = delivery.flight
            if let key = AircraftOperator.key(of: flight), owns(key) {
                try await aircraft.process(flight, key: key, day: day)
            }
            let carrier = CarrierOperator.key(of: flight)
            if owns(carrier) { try await carriers.process(flight, key: carrier, day: day) }

            if source.offset.isMultiple(of: assignment.checkpointEvery) {
                try await checkpoint(aircraft.session, carriers.session, offset: source.offset)
            } else if source.offset.isMultiple(of: Self.progressInterval) {
                try reporter.report(.progress(offset: source.offset))
            }
        }
        // The end of the source closes its last day.
        try await aircraft.begin(day: day + 1)
        carriers.begin(day: day + 1)
        try reporter.report(.progress(offset: source.offset))
    }

    private func checkpoint(_ aircraft: KeyedStateSession, _ carriers: KeyedStateSession, offset: Int) async throws {
        let number = offset / assignment.checkpointEvery
        let started = ContinuousClock.now
        let handles = [
            AircraftOperator.store: try await aircraft.snapshot(checkpoint: UInt64(number)).rawValue,
            CarrierOperator.store: try await carriers.snapshot(checkpoint: UInt64(number)).rawValue,
        ]
        let time = (ContinuousClock.now - started).microseconds
        try reporter.report(.figures(WorkerFigures([aircraft.metrics, carriers.metrics])))
        try reporter.report(.checkpoint(number: number, offset: offset, microseconds: time, handles: handles))
    }

    // MARK: Attaching

    private var keyGroups: KeyGroupRange {
        KeyGroup.range(ofWorker: assignment.worker, parallelism: assignment.parallelism, count: keyGroupCount)
    }

    private func owns(_ key: [UInt8]) -> Bool {
        keyGroups.contains(KeyGroup.group(ofKey: key, count: keyGroupCount))
    }

    private func configuration() -> ClientConfiguration {
        var configuration = ClientConfiguration(endpoint: assignment.server)
        configuration.keyIndex = assignment.verifies ? .verify : .keys
        return configuration
    }

    private func attach(_ client: StateClient, _ store: String) async throws -> KeyedStateSession {
        try await client.attach(
            store: store, keyGroupCount: keyGroupCount, keyGroups: keyGroups, epoch: assignment.epoch,
            writer: "flights worker \(assignment.worker + 1) of \(assignment.parallelism)",
            restoring: (assignment.restoring[store] ?? []).map { SnapshotHandle(rawValue: $0) })
    }

    // MARK: Talking to the coordinator

    /// Reads the assignment and ends the process when the coordinator's end of the pipe closes.
    static func readAssignment() throws -> WorkerAssignment {
        guard let line = readLine(),
            let assignment = try? JSONDecoder().decode(WorkerAssignment.self, from: Data(line.utf8))
        else {
            throw FlightsError.protocolViolation("flights-worker is started by cistern example flights, not by hand")
        }
        Thread.detachNewThread {
            while readLine() != nil {}
            // Without a coordinator nobody will ever take the checkpoints: end as if killed.
            FileHandle.standardError.write(Data("the coordinator is gone\n".utf8))
            _exit(3)
        }
        return assignment
    }
}

/// Reports on stdout. Rows are gathered, everything else leaves at once. Not through `print`: flushing all of C's streams
/// would wait for stdin's reader, which waits for the coordinator.
final class Reporter {
    private static let bufferBytes = 64 << 10
    private var buffer: [UInt8] = []

    func report(_ report: WorkerReport) throws {
        buffer.append(contentsOf: report.line.utf8)
        buffer.append(UInt8(ascii: "\n"))
        if case .row = report, buffer.count < Self.bufferBytes { return }
        try FileHandle.standardOutput.write(contentsOf: buffer)
        buffer.removeAll(keepingCapacity: true)
    }
}
