// RocksDB's C API (rocksdb/c.h), opened at run time, so that nobody needs it to build or test.

import Foundation
import Glibc

package struct RocksLibrary {
    package typealias Handle = OpaquePointer
    package typealias ErrorSlot = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
    package typealias Bytes = UnsafePointer<UInt8>

    package let name: String
    private let handle: UnsafeMutableRawPointer

    /// `CISTERN_ROCKSDB` names the library; else the one `Benchmarks/Peers/frocksdb.sh` fetched; else Debian's.
    package static func load() throws -> RocksLibrary {
        var candidates = ["Benchmarks/out/peers/librocksdbjni-linux64.so", "librocksdb.so.7.8", "librocksdb.so"]
        if let named = ProcessInfo.processInfo.environment["CISTERN_ROCKSDB"] { candidates = [named] }
        for candidate in candidates {
            if let handle = dlopen(candidate, RTLD_NOW | RTLD_LOCAL) {
                let file = (candidate as NSString).lastPathComponent
                return RocksLibrary(name: label(file), handle: handle)
            }
        }
        let reason = dlerror().map { String(cString: $0) } ?? ""
        throw BenchFailure(
            "no RocksDB among \(candidates): \(reason). Run Benchmarks/Peers/frocksdb.sh, install librocksdb7.8, or name "
                + "one with CISTERN_ROCKSDB")
    }

    private static func label(_ file: String) -> String {
        if file.hasPrefix("librocksdbjni") { return "FRocksDB 8.10 (Flink's own)" }
        if file.contains("7.8") { return "RocksDB 7.8 (Debian: no hardware CRC, no AVX; XXH3 checksums)" }
        return "RocksDB (\(file))"
    }

    /// Debian's build computes CRC-32C in software; XXH3 is fair to it.
    package var wantsXXH3: Bool { name.contains("Debian") }

    package func function<F>(_ symbol: String, as type: F.Type = F.self) throws -> F {
        guard let found: F = optionalFunction(symbol) else { throw BenchFailure("\(name) has no function \(symbol)") }
        return found
    }

    /// A function that older builds lack.
    package func optionalFunction<F>(_ symbol: String, as type: F.Type = F.self) -> F? {
        guard let address = dlsym(handle, symbol) else { return nil }
        return unsafeBitCast(address, to: type)
    }

    // Shorthands for what options are made of.

    package func create(_ symbol: String) throws -> Handle {
        try function(symbol, as: (@convention(c) () -> Handle).self)()
    }
    package func set(_ symbol: String, _ target: Handle, byte: UInt8) throws {
        try function(symbol, as: (@convention(c) (Handle, UInt8) -> Void).self)(target, byte)
    }
    package func set(_ symbol: String, _ target: Handle, int: Int32) throws {
        try function(symbol, as: (@convention(c) (Handle, Int32) -> Void).self)(target, int)
    }
    package func set(_ symbol: String, _ target: Handle, size: Int) throws {
        try function(symbol, as: (@convention(c) (Handle, Int) -> Void).self)(target, size)
    }
    package func set(_ symbol: String, _ target: Handle, handle: Handle) throws {
        try function(symbol, as: (@convention(c) (Handle, Handle) -> Void).self)(target, handle)
    }
}
