// The coordinator: starts the server and the workers, takes note of their checkpoints, kills, restores, collects.
//
// Whatever happens arrives in one stream of events and is dealt with, one after the other, by one task; the threads that
// read the children's output only put events in.
//
//     starting ──server listens──► running ──worker killed──► restoring ──all ended──► running ──all done──► stopping ─► end

internal import CisternClient
internal import Foundation

struct FlightsOptions: Sendable {
    var input: String
    var flightsMax: Int
    /// An external server's endpoint; nil to start one.
    var server: String?
    /// The started server's directory; nil for a temporary one.
    var dataDirectory: String?
    var parallelism: Int
    /// Workers after the kill; nil to kill none.
    var rescaleTo: Int?
    var killsServer: Bool
    var checkpointEvery: Int
    var verifies: Bool
    var isPlain: Bool
    /// This program, for the children.
    var executable: String
}

final class FlightsCoordinator {
    /// Longest silence of server and workers.
    static let silenceSecondsMax = 120

    private enum Event: Sendable {
        case server(ChildEvent)
        case worker(attempt: Int, index: Int, ChildEvent)
        case second
        case interrupt
    }

    private enum Phase: Equatable {
        case starting, running, restoring, stopping
    }

    private struct Worker {
        let process: ChildProcess
        var isReady = false
        var isDone = false
        var hasExited = false
        var offset: Int
        var figures = WorkerFigures()
    }

    private let options: FlightsOptions
    private let directory: WorkDirectory
    private let post: AsyncStream<Event>.Continuation
    private let events: AsyncStream<Event>
    /// Deliveries of the whole source.
    private let total: Int
    private let firstEpoch: UInt64

    private var phase = Phase.starting
    private var server: ChildProcess?
    private var isServerUp = false
    private var endpoint = ""
    private var control: StateClient?
    private var workers: [Worker] = []
    private var attempt = 0
    private var ledger: CheckpointLedger
    private var releasable: [String: [String]] = [:]
    private var isServerKillPending: Bool
    private var isWorkerKillPending: Bool
    private var killed: ContinuousClock.Instant?
    private var silentSeconds = 0
    private var summary = FlightsSummary()
    private var tables = FlightsTables()
    private var progress: ProgressView

    /// Reads the whole source once, so that a damaged file is reported before anything is started.
    init(options: FlightsOptions) throws {
        self.options = options
        var source = try FlightSource(path: options.input, flightsMax: options.flightsMax)
        while try source.next() != nil {}
        total = source.offset
        summary.deliveries = source.offset
        summary.flights = source.flightCount
        directory = try WorkDirectory(data: options.dataDirectory)
        (events, post) = AsyncStream.makeStream()
        ledger = CheckpointLedger(parallelism: options.parallelism)
        isServerKillPending = options.killsServer
        isWorkerKillPending = options.rescaleTo != nil
        // Epochs of a store only grow: a run on an old directory or a shared server starts above all earlier ones.
        firstEpoch = UInt64(Date().timeIntervalSince1970 * 1000)
        progress = ProgressView(total: source.offset, isPlain: options.isPlain)
    }

    func run() async throws -> (FlightsSummary, FlightsTables) {
        let signals = InterruptSignals { [post] in post.yield(.interrupt) }
        let clock = Task { [post] in
            while true {
                try await Task.sleep(for: .seconds(1))
                post.yield(.second)
            }
        }
        defer {
            clock.cancel()
            signals.cancel()
            killChildren()
            progress.finish()
            directory.remove()
        }
        try await begin()
        for await event in events {
            try await handle(event)
            if phase == .stopping, server == nil { break }
        }
        return (summary, tables)
    }

    private func handle(_ event: Event) async throws {
        switch event {
        case .server(let event): try await handleServer(event)
        case .worker(let attempt, let index, let event) where attempt == self.attempt:
            silentSeconds = 0
            try await handleWorker(index, event)
        case .worker: break  // A pipe of an ended attempt.
        case .second:
            silentSeconds += 1
            guard silentSeconds <= Self.silenceSecondsMax else {
                throw FlightsError.noProgress(seconds: Self.silenceSecondsMax)
            }
        case .interrupt: throw FlightsError.interrupted
        }
    }

    // MARK: The server

    private func begin() async throws {
        if let external = options.server {
            endpoint = external
            isServerUp = true
            try await serverIsReady()
        } else {
            try startServer(listen: "127.0.0.1:0")
        }
    }

    private func startServer(listen: String) throws {
        server = try ChildProcess(
            executable: options.executable,
            arguments: ["serve", "--data", directory.data, "--listen", listen, "--log", "synced"],
            logPath: directory.log("server")
        ) { [post] in post.yield(.server($0)) }
    }

    private func handleServer(_ event: ChildEvent) async throws {
        switch event {
        case .lines(let lines):
            guard !isServerUp, let line = lines.first(where: { $0.hasPrefix("listening on ") }) else { return }
            endpoint = line.dropFirst("listening on ".count).split(separator: " ").first.map(String.init) ?? ""
            isServerUp = true
            silentSeconds = 0
            try await serverIsReady()
        case .exited(let reason, _):
            let ended = server
            server = nil
            if phase == .stopping { return }
            guard summary.serverKills > 0, !isServerUp else {
                throw FlightsError.childFailed(name: "the server", reason: reason, log: ended?.logExcerpt ?? "")
            }
            // Killed on purpose: the same directory, the same port.
            try startServer(listen: endpoint)
        }
    }

    private func serverIsReady() async throws {
        let process = server.map { "process \($0.processIdentifier), data in \(directory.data)" } ?? "external"
        progress.note("server    \(endpoint) (\(process))")
        guard phase == .starting else { return }
        control = try await StateClient.connect(ClientConfiguration(endpoint: endpoint))
        killed = nil
        summary.started()
        try startAttempt(parallelism: options.parallelism)
    }

    private func killServer() {
        progress.note("kill -9   the server, at \(grouped(slowestOffset)) records")
        isServerKillPending = false
        isServerUp = false
        summary.serverKills += 1
        server?.kill()
    }

    // MARK: Attempts

    private func startAttempt(parallelism: Int) throws {
        attempt += 1
        phase = .running
        tables = FlightsTables()
        summary.parallelism.append(parallelism)
        let checkpoint = ledger.latest
        workers = []
        for index in 0..<parallelism {
            let assignment = WorkerAssignment(
                server: endpoint, input: options.input, flightsMax: options.flightsMax, worker: index,
                parallelism: parallelism, epoch: firstEpoch + UInt64(attempt), checkpointEvery: options.checkpointEvery,
                verifies: options.verifies, offset: checkpoint?.offset ?? 0, restoring: checkpoint?.handles ?? [:])
            let process = try ChildProcess(
                executable: options.executable, arguments: ["example", "flights-worker"],
                logPath: directory.log("worker-\(attempt)-\(index + 1)")
            ) { [post, attempt] in post.yield(.worker(attempt: attempt, index: index, $0)) }
            workers.append(Worker(process: process, offset: checkpoint?.offset ?? 0))
            try process.send(line: try assignment.json())
        }
        let origin = checkpoint.map { "checkpoint \($0.number) at \(grouped($0.offset)) records" } ?? "the beginning"
        let count = parallelism == 1 ? "1 worker" : "\(parallelism) workers"
        progress.note("start     \(count), from \(origin)")
    }

    private func handleWorker(_ index: Int, _ event: ChildEvent) async throws {
        switch event {
        case .lines(let lines):
            for line in lines {
                guard let report = WorkerReport(line: line) else {
                    throw FlightsError.protocolViolation("worker \(index + 1) said \"\(line.prefix(120))\"")
                }
                try await note(report, of: index)
            }
            progress.advance(to: slowestOffset)
            injectFaults()
        case .exited(let reason, let isSuccess):
            workers[index].hasExited = true
            if phase == .restoring {
                if workers.allSatisfy(\.hasExited) { try await restore() }
                return
            }
            guard isSuccess, workers[index].isDone else {
                throw FlightsError.childFailed(
                    name: "worker \(index + 1) of attempt \(attempt)", reason: reason,
                    log: workers[index].process.logExcerpt)
            }
            if workers.allSatisfy(\.hasExited) { try await finish() }
        }
    }

    private func note(_ report: WorkerReport, of index: Int) async throws {
        switch report {
        case .ready(let microseconds):
            workers[index].isReady = true
            summary.attachMicroseconds.append(microseconds)
            if let killed, workers.allSatisfy(\.isReady) {
                let time = (ContinuousClock.now - killed).microseconds
                summary.restoreMicroseconds.append(time)
                self.killed = nil
                progress.note("restored  \(workers.count) workers attached \(milliseconds(time)) after the kill")
            }
        case .progress(let offset):
            workers[index].offset = offset
        case .checkpoint(let number, let offset, let microseconds, let handles):
            workers[index].offset = offset
            summary.checkpointMicroseconds.append(microseconds)
            if let superfluous = ledger.report(worker: index, number: number, offset: offset, handles: handles) {
                progress.note("complete  checkpoint \(number) at \(grouped(offset)) records")
                try await release(superfluous)
            }
        case .figures(let figures): workers[index].figures = figures
        case .row(let table, let cells): tables.add(table: table, cells: cells)
        case .done: workers[index].isDone = true
        }
    }

    /// Releases snapshots; while the server is down they wait for the next time.
    private func release(_ handles: [String: [String]]) async throws {
        releasable.merge(handles, uniquingKeysWith: +)
        guard isServerUp, let control else { return }
        for (store, handles) in releasable where !handles.isEmpty {
            try await control.releaseSnapshots(store: store, handles.map { SnapshotHandle(rawValue: $0) })
        }
        releasable = [:]
    }

    /// Releases what the stores still keep, with no worker alive: also snapshots that a killed worker took and could not
    /// report, and those of an earlier run that failed.
    private func releaseAll(except kept: CheckpointLedger.Checkpoint?) async throws {
        guard isServerUp, let control else { return }
        for store in [AircraftOperator.store, CarrierOperator.store] {
            let keptHandles = Set(kept?.handles[store] ?? [])
            let stale = try await control.snapshots(store: store).map(\.handle).filter {
                !keptHandles.contains($0.rawValue)
            }
            try await control.releaseSnapshots(store: store, stale)
        }
        releasable = [:]
    }

    // MARK: Faults

    private var slowestOffset: Int { workers.map(\.offset).min() ?? 0 }

    /// Between two checkpoints, so that there is something to replay: half an interval after the last one before `part`.
    private func offset(at part: Double) -> Int {
        let checkpoint = Int(Double(total) * part) / options.checkpointEvery * options.checkpointEvery
        return min(checkpoint + options.checkpointEvery / 2, Int(Double(total) * (part + 0.2)))
    }

    private func injectFaults() {
        guard phase == .running, isServerUp else { return }
        if isServerKillPending, slowestOffset >= offset(at: 0.25) {
            killServer()
        } else if isWorkerKillPending, slowestOffset >= offset(at: 0.5) {
            killWorker()
        }
    }

    /// Kills the slowest worker, which has the most to lose, and stops the others.
    private func killWorker() {
        guard let index = workers.indices.min(by: { workers[$0].offset < workers[$1].offset }) else { return }
        isWorkerKillPending = false
        killed = .now
        workers[index].process.kill()
        progress.note("kill -9   worker \(index + 1) of \(workers.count), at \(grouped(workers[index].offset)) records")
        for other in workers.indices where other != index { workers[other].process.terminate() }
        phase = .restoring
    }

    private func restore() async throws {
        for worker in workers { summary.figures.add(worker.figures, isLastAttempt: false) }
        summary.restores += 1
        let parallelism = options.rescaleTo ?? options.parallelism
        ledger.restart(parallelism: parallelism)
        try await releaseAll(except: ledger.latest)
        try startAttempt(parallelism: parallelism)
    }

    // MARK: The end

    private func finish() async throws {
        guard !isWorkerKillPending, !isServerKillPending else { throw FlightsError.killMissed(offset: offset(at: 0.5)) }
        for worker in workers { summary.figures.add(worker.figures, isLastAttempt: true) }
        summary.ended()
        summary.checkpoints = ledger.completedCount
        try await releaseAll(except: nil)
        await control?.close()
        phase = .stopping
        server?.terminate()
    }

    private func killChildren() {
        for worker in workers where !worker.hasExited { worker.process.kill() }
        server?.kill()
    }
}
