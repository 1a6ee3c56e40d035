// libFuzzer's way into the targets. `CISTERN_FUZZ_TARGET` says which; with `CISTERN_FUZZ_SEEDS` its seeds are written there and
// nothing else is done; without a target the names are printed.

import Foundation
import FuzzTargets

@_cdecl("LLVMFuzzerInitialize")
public func initialize(
    _ count: UnsafeMutablePointer<Int32>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>>>
) -> Int32 {
    let environment = ProcessInfo.processInfo.environment
    guard let name = environment["CISTERN_FUZZ_TARGET"] else {
        for target in FuzzTarget.all { print(target.name) }
        exit(0)
    }
    guard FuzzTarget.named(name) != nil else { stop("there is no fuzz target \"\(name)\"") }
    if let directory = environment["CISTERN_FUZZ_SEEDS"] { writeSeeds(directory) }
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    chosen.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
    return 0
}

private let chosen: FuzzTarget = {
    let name = ProcessInfo.processInfo.environment["CISTERN_FUZZ_TARGET"] ?? ""
    guard let target = FuzzTarget.named(name) else { stop("there is no fuzz target \"\(name)\"") }
    return target
}()

private func writeSeeds(_ directory: String) -> Never {
    do {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        for (number, seed) in try chosen.seeds().enumerated() {
            try Data(seed).write(to: URL(fileURLWithPath: "\(directory)/seed-\(number)"))
        }
    } catch {
        stop("the seeds of \(chosen.name) could not be written to \(directory): \(error)")
    }
    exit(0)
}

private func stop(_ message: String) -> Never {
    FileHandle.standardError.write(Data((message + "\n").utf8))
    exit(2)
}
