// Bounds how many files are open for reading. A store refers to more table files than a process may open (32,000 at 1 TB), so a
// file keeps its descriptor only while the pool has room: one that was not read lately gives its own up, and its next read opens
// it again. Files are removed only after their last reader is gone, so a path that was opened once can be opened again.
//
// Threading: any thread. A read holds its file's descriptor (`users`), which no sweep closes. Locks are taken in one order: the
// pool's, then a descriptor's.

internal import Glibc
internal import Synchronization

/// One file's descriptor, open or not.
final class PooledDescriptor: Sendable {
    fileprivate struct State {
        var descriptor: Int32
        /// Reads under way.
        var users = 0
        /// Read since the last sweep came by.
        var wasRead = true
    }

    fileprivate let path: String
    fileprivate let state: Mutex<State>

    fileprivate init(path: String, descriptor: Int32) {
        self.path = path
        state = Mutex(State(descriptor: descriptor))
    }

    /// The descriptor, held until `leave`; nil when it is not open.
    fileprivate func enter() -> Int32? {
        state.withLock { state in
            guard state.descriptor >= 0 else { return nil }
            state.users += 1
            state.wasRead = true
            return state.descriptor
        }
    }

    func leave() { state.withLock { $0.users -= 1 } }
}

final class DescriptorPool: Sendable {
    private struct State {
        /// Those that are open, in the order of the sweep's hand.
        var open: [PooledDescriptor] = []
        var hand = 0
    }

    /// Descriptors that stay open between reads. Reads under way may exceed it by one for each thread.
    let openFilesMax: Int
    private let state = Mutex(State())

    /// - Parameter openFilesMax: nil: half of what the process may open, which leaves the rest to sockets and logs.
    init(openFilesMax: Int?) {
        self.openFilesMax = max(1, openFilesMax ?? DescriptorPool.processLimit() / 2)
    }

    var openCount: Int { state.withLock { $0.open.count } }

    /// Takes over an open descriptor.
    func adopt(_ descriptor: Int32, path: String) -> PooledDescriptor {
        let pooled = PooledDescriptor(path: path, descriptor: descriptor)
        admit(pooled)
        return pooled
    }

    /// The descriptor, held until `leave`. Opens the file again when it was closed meanwhile.
    func enter(_ pooled: PooledDescriptor) throws(FileError) -> Int32 {
        if let descriptor = pooled.enter() { return descriptor }
        let fresh = try openDescriptor(pooled.path, O_RDONLY, operation: "open again")
        let (descriptor, isFirst) = pooled.state.withLock { state -> (Int32, Bool) in
            state.users += 1
            state.wasRead = true
            // Another read was faster.
            if state.descriptor >= 0 { return (state.descriptor, false) }
            state.descriptor = fresh
            return (fresh, true)
        }
        if isFirst { admit(pooled) } else { _ = Glibc.close(fresh) }
        return descriptor
    }

    /// Nobody reads the file any more.
    func close(_ pooled: PooledDescriptor) {
        let descriptor = state.withLock { state -> Int32 in
            if let index = state.open.firstIndex(where: { $0 === pooled }) {
                state.open.swapAt(index, state.open.count - 1)
                state.open.removeLast()
            }
            return pooled.state.withLock { state in
                defer { state.descriptor = -1 }
                return state.descriptor
            }
        }
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
    }

    private func admit(_ pooled: PooledDescriptor) {
        let surplus = state.withLock { state -> [Int32] in
            state.open.append(pooled)
            var closed: [Int32] = []
            // Twice around: the first round may only take the marks away.
            var steps = 2 * state.open.count
            while state.open.count > openFilesMax && steps > 0 {
                steps -= 1
                if state.hand >= state.open.count { state.hand = 0 }
                if let descriptor = giveUp(state.open[state.hand]) {
                    closed.append(descriptor)
                    state.open.swapAt(state.hand, state.open.count - 1)
                    state.open.removeLast()
                } else {
                    state.hand += 1
                }
            }
            return closed
        }
        for descriptor in surplus { _ = Glibc.close(descriptor) }
    }

    /// The descriptor of a file that was not read since the hand came by; nil when it keeps it.
    private func giveUp(_ pooled: PooledDescriptor) -> Int32? {
        pooled.state.withLock { state in
            guard state.users == 0 else { return nil }
            if state.wasRead {
                state.wasRead = false
                return nil
            }
            defer { state.descriptor = -1 }
            return state.descriptor
        }
    }

    private static func processLimit() -> Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }
}
