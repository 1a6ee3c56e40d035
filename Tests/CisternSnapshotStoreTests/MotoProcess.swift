// An S3 server that others have written, as a process of its own for a test: https://docs.getmoto.org. It looks at no signature.

import CisternPrimitives
import CisternSnapshotStoreS3
import Foundation
import Glibc
import S3Double

struct MotoProblem: Error, CustomStringConvertible {
    let description: String
}

final class MotoProcess {
    static let program: String? = {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        return folders.map { "\($0)/moto_server" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }()

    private let process: Process
    private let endpoint: String

    private init(_ process: Process, _ endpoint: String) {
        self.process = process
        self.endpoint = endpoint
    }

    static func with(_ body: (MotoProcess) throws -> Void) throws {
        let moto = try start()
        defer { moto.kill() }
        try moto.makeBucket()
        try body(moto)
    }

    private static func start() throws -> MotoProcess {
        guard let program else { throw MotoProblem(description: "there is no moto_server in PATH") }
        let process = Process()
        // It must not outlive a test that crashes.
        process.executableURL = URL(fileURLWithPath: "/usr/bin/setpriv")
        process.arguments = ["--pdeathsig", "KILL", program, "-H", "127.0.0.1", "-p", "0"]
        process.environment = ProcessInfo.processInfo.environment.merging(["PYTHONUNBUFFERED": "1"]) { _, new in new }
        let pipe = Pipe()
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = pipe
        try process.run()
        // It tells its address first, and one line for each request.
        var said = ""
        while true {
            let data = pipe.fileHandleForReading.availableData
            if data.isEmpty { throw MotoProblem(description: "moto_server does not start: \(said.suffix(500))") }
            said += String(decoding: data, as: UTF8.self)
            guard let found = said.firstMatch(of: /Running on (http:\/\/127\.0\.0\.1:[0-9]+)\s/) else { continue }
            pipe.fileHandleForReading.readabilityHandler = { handle in
                if handle.availableData.isEmpty { handle.readabilityHandler = nil }
            }
            return MotoProcess(process, String(found.1))
        }
    }

    private func kill() {
        _ = Glibc.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    private func options() throws -> S3Options {
        guard let location = S3Location("s3://\(S3Double.bucket)/in/it"), let endpoint = S3Endpoint(endpoint) else {
            throw MotoProblem(description: "\(endpoint) is no endpoint")
        }
        var options = S3Options(location: location, endpoint: endpoint, region: "us-east-1", isHostStyle: false)
        options.limits.partBytes = 5 << 20
        return options
    }

    func store() throws -> S3SnapshotStore {
        try S3SnapshotStore(try options(), credentials: S3CredentialSource(S3Double.credentials), time: SystemTime())
    }

    private func makeBucket() throws { try ask(S3Request(.put)) }

    func plantUpload(_ name: String) throws {
        var request = S3Request(.post, key: "in/it/\(name)")
        request.query = [("uploads", "")]
        try ask(request)
    }

    private func ask(_ request: S3Request) throws {
        let client = try S3Client(
            try options(), credentials: S3CredentialSource(S3Double.credentials), time: SystemTime())
        defer { client.close() }
        let answer = try client.call(request)
        guard answer.status == 200 else { throw MotoProblem(description: "moto_server answers \(answer.status)") }
    }
}
