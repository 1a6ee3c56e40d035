// Every name in a data directory, built and parsed in one place. Specification: proto-spec/data-directory.md.
//
//   DIR/LOCK                              flock of the process that has the directory open
//   DIR/CISTERN                           format version of the directory
//   DIR/tables/000000000012.sst           table files, shared by all trees and snapshots
//   DIR/tables/000000000013.val           value files, which table files point into; numbered together with them
//   DIR/trees/000007/CURRENT              which manifest is valid; a tree exists if and only if this file does
//   DIR/trees/000007/MANIFEST-000003
//   DIR/trees/000007/000042.log           log segments; a directory without CURRENT holds those that others still refer to
//   DIR/snapshots/000005.snap             one record a snapshot

internal import CisternFileSystem

/// Number of a tree; never used again in one data directory.
package struct TreeID: Hashable, Sendable, Comparable, CustomStringConvertible {
    package let number: UInt64
    package init(_ number: UInt64) { self.number = number }
    package static func < (left: TreeID, right: TreeID) -> Bool { left.number < right.number }
    package var description: String { "tree \(number)" }
}

package enum DataDirectory {
    package static let lockName = "LOCK"
    package static let formatName = "CISTERN"
    package static let currentName = "CURRENT"

    package static func tables(_ root: String) -> String { root + "/tables" }
    package static func trees(_ root: String) -> String { root + "/trees" }
    package static func snapshots(_ root: String) -> String { root + "/snapshots" }
    package static func tree(_ root: String, _ id: TreeID) -> String { trees(root) + "/" + padded(id.number, 6) }

    static func segmentPath(_ root: String, _ segment: SegmentID) -> String {
        tree(root, segment.tree) + "/" + segmentName(segment.number)
    }

    package static func tableName(_ number: UInt64) -> String { padded(number, 12) + ".sst" }
    package static func valueFileName(_ number: UInt64) -> String { padded(number, 12) + ".val" }
    package static func manifestName(_ number: UInt64) -> String { "MANIFEST-" + padded(number, 6) }
    package static func segmentName(_ number: UInt64) -> String { padded(number, 6) + ".log" }
    package static func snapshotName(_ number: UInt64) -> String { padded(number, 6) + ".snap" }

    package static func treeID(ofName name: String) -> TreeID? { number(name).map { TreeID($0) } }
    package static func tableNumber(ofName name: String) -> UInt64? { number(name, suffix: ".sst") }
    package static func valueFileNumber(ofName name: String) -> UInt64? { number(name, suffix: ".val") }
    package static func manifestNumber(ofName name: String) -> UInt64? { number(name, prefix: "MANIFEST-") }
    package static func segmentNumber(ofName name: String) -> UInt64? { number(name, suffix: ".log") }
    package static func snapshotNumber(ofName name: String) -> UInt64? { number(name, suffix: ".snap") }

    /// A name with more digits is no name of ours: counting on from it could not go on for long.
    private static let nameDigitsMax = 18

    private static func padded(_ number: UInt64, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    private static func number(_ name: String, prefix: String = "", suffix: String = "") -> UInt64? {
        guard name.hasPrefix(prefix), name.hasSuffix(suffix), name.count > prefix.count + suffix.count else {
            return nil
        }
        let digits = name.dropFirst(prefix.count).dropLast(suffix.count)
        guard digits.count <= nameDigitsMax, digits.allSatisfy({ $0.isASCII && $0.isNumber }) else { return nil }
        return UInt64(digits)
    }
}
