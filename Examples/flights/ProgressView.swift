// What the user sees while the job runs: a bar on a terminal, a line at each event elsewhere.

internal import Foundation
internal import Glibc

struct ProgressView {
    private static let barColumns = 28
    private static let redrawInterval: Duration = .milliseconds(100)

    private let total: Int
    private let isTerminal: Bool
    private let started = ContinuousClock.now
    private var drawn: ContinuousClock.Instant?
    private var offset = 0

    /// - Parameter total: deliveries of the whole run.
    init(total: Int, isPlain: Bool) {
        self.total = total
        isTerminal = !isPlain && isatty(STDOUT_FILENO) == 1
    }

    /// A line that stays.
    mutating func note(_ text: String) {
        write((isTerminal ? "\r\u{1B}[K" : "") + text + "\n")
        drawn = nil
    }

    mutating func advance(to offset: Int) {
        self.offset = offset
        guard isTerminal else { return }
        let now = ContinuousClock.now
        if let drawn, now - drawn < Self.redrawInterval { return }
        drawn = now
        let filled = total == 0 ? 0 : min(offset * Self.barColumns / total, Self.barColumns)
        let bar = String(repeating: "█", count: filled) + String(repeating: "·", count: Self.barColumns - filled)
        let seconds = max((now - started).seconds, 0.001)
        write(
            "\r\u{1B}[K  \(bar) \(percent(offset, of: total))  \(grouped(offset)) records  \(decimal(seconds)) s")
    }

    /// Removes the bar.
    mutating func finish() {
        if isTerminal { write("\r\u{1B}[K") }
    }

    /// Unbuffered, so that a line is seen when it is true.
    private func write(_ text: String) {
        // A reader that has gone away (`| head`) is no reason to end the run.
        try? FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
    }
}

extension Duration {
    var seconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
    var microseconds: Int { Int(components.seconds) * 1_000_000 + Int(components.attoseconds / 1_000_000_000_000) }
}
