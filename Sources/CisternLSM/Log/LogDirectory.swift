// The log segments of a data directory, and when they are deleted.
//
// A segment is needed by its own tree from the tree's first segment on (its floor), and by whoever else refers to it: snapshots
// and manifests on disk, and jobs that are about to write such a reference. It lies in its tree's directory, which outlives the
// tree as long as a segment in it is needed.
//
// Like owners of table files, owners of segments are counted only after what they stand for is durable, and given up only after
// its end is. Threading: any thread; files are removed on lanes, never while the lock is held.

internal import CisternFileSystem
internal import CisternPrimitives
internal import Synchronization

final class LogDirectory: Sendable {
    private struct State {
        var owners: [SegmentID: Int] = [:]
        /// Segments below are not needed by their tree; `gone` for a tree that is no more.
        var floors: [TreeID: UInt64] = [:]
        var isClosed = false
    }

    private static let gone = UInt64.max

    private let root: String
    private let fileSystem: any FileSystem
    private let lane: any BackgroundLane
    private let state = Mutex(State())

    /// - Parameter lane: where files are removed that their last owner has left.
    init(root: String, fileSystem: any FileSystem, lane: any BackgroundLane) {
        self.root = root
        self.fileSystem = fileSystem
        self.lane = lane
    }

    /// A tree that was found or made.
    func begin(_ tree: TreeID, floor: UInt64) { state.withLock { $0.floors[tree] = floor } }

    /// The tree needs none of its segments any more. Whoever calls removes those that nobody owns.
    func end(_ tree: TreeID) { state.withLock { $0.floors[tree] = LogDirectory.gone } }

    func retain(_ segments: [SegmentID]) {
        state.withLock { state in
            for segment in segments { state.owners[segment, default: 0] += 1 }
        }
    }

    func release(_ segments: [SegmentID]) {
        let dead = state.withLock { state -> [SegmentID] in
            var dead: [SegmentID] = []
            for segment in segments {
                let owners = state.owners[segment] ?? 0
                invariant(owners > 0, "log segment \(segment.number) of \(segment.tree) was released too often")
                state.owners[segment] = owners == 1 ? nil : owners - 1
                if owners == 1, segment.number < state.floors[segment.tree] ?? 0 { dead.append(segment) }
            }
            return state.isClosed ? [] : dead
        }
        if !dead.isEmpty { lane.submit { [self] in remove(dead) } }
    }

    func isOwned(_ segment: SegmentID) -> Bool { state.withLock { $0.owners[segment] != nil } }

    /// Removes the tree's segments below `floor` that nobody else refers to. Blocks.
    func prune(_ tree: TreeID, below floor: UInt64) {
        state.withLock { $0.floors[tree] = max(floor, $0.floors[tree] ?? 0) }
        let directory = DataDirectory.tree(root, tree)
        // What cannot be removed is removed by the next recovery, so errors are dropped.
        do throws(FileError) {
            for name in try fileSystem.list(directory) {
                guard let number = DataDirectory.segmentNumber(ofName: name), number < floor,
                    !isOwned(SegmentID(tree: tree, number: number))
                else { continue }
                try fileSystem.remove(directory + "/" + name)
            }
        } catch {
            return
        }
    }

    /// The log of a tree that is retired writes no more: what it began after the tree's directory was cleared goes, too.
    func sweep(_ tree: TreeID) {
        lane.submit { [self] in
            guard isGone(tree), state.withLock({ !$0.isClosed }) else { return }
            TreeManifest.removeContents(of: DataDirectory.tree(root, tree), fileSystem: fileSystem) {
                isOwned(SegmentID(tree: tree, number: $0))
            }
        }
    }

    /// From here on nothing is deleted.
    func close() { state.withLock { $0.isClosed = true } }

    func path(_ segment: SegmentID) -> String { DataDirectory.segmentPath(root, segment) }

    private func remove(_ segments: [SegmentID]) {
        for segment in segments where !isGone(segment.tree) {
            // What cannot be removed is found and removed at the next start.
            fileSystem.removeLeftover(path(segment))
        }
        for tree in Set(segments.map(\.tree)) where isGone(tree) {
            TreeManifest.removeContents(of: DataDirectory.tree(root, tree), fileSystem: fileSystem) {
                isOwned(SegmentID(tree: tree, number: $0))
            }
        }
    }

    private func isGone(_ tree: TreeID) -> Bool { state.withLock { $0.floors[tree] == LogDirectory.gone } }
}

/// Owns segments as long as it lives: between the moment a job decides on a reference and the moment it is durable.
final class LogHold: Sendable {
    private let directory: LogDirectory
    private let segments: [SegmentID]

    init(_ directory: LogDirectory, _ segments: [SegmentID]) {
        self.directory = directory
        self.segments = segments
        directory.retain(segments)
    }

    deinit { directory.release(segments) }
}
