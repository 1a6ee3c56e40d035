// The built server as another process.

import CisternTestKit

typealias ServerProcess = DaemonProcess

extension DaemonProcess {
    /// Returns when the server has printed where it listens.
    convenience init(data: String, listen: [String] = ["127.0.0.1:0"], _ flags: [String] = []) throws {
        let addresses = listen.flatMap { ["--listen", $0] }
        try self.init(["serve", "--data", data, "--log-level", "error"] + addresses + flags, lines: listen.count)
    }
}
