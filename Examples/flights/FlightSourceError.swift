// What can be wrong with the input file. Each case says where, what was found, and what to do.

package enum FlightSourceError: Error, Equatable, CustomStringConvertible {
    case cannotOpen(path: String, reason: String)
    case damaged(path: String, offset: UInt64, reason: String)
    case truncated(path: String, offset: UInt64)
    case unexpectedHeader(path: String, found: String)
    case badRecord(path: String, line: Int, reason: String)

    package var description: String {
        switch self {
        case .cannotOpen(let path, let reason):
            "cannot read the flights from \(path): \(reason); name the file with --input"
        case .damaged(let path, let offset, let reason):
            "\(path) is damaged near compressed byte \(offset): \(reason); take a fresh copy of the file"
        case .truncated(let path, let offset):
            "\(path) ends at byte \(offset) inside a zstd frame: the copy is not complete; take a fresh copy of the file"
        case .unexpectedHeader(let path, let found):
            "\(path) does not start with the header of the flights table (found \"\(found.prefix(80))\"); "
                + "it must be the file that Examples/flights/README.md describes"
        case .badRecord(let path, let line, let reason):
            "\(path) line \(line): \(reason)"
        }
    }
}
