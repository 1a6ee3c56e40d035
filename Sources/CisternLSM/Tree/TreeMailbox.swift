// How background lanes reach a tree: through its owner. Nobody else calls a tree.

internal import CisternPrimitives
internal import Synchronization

/// The owner of a tree: an event loop in the server, a queue in tests. Runs work one at a time, in order.
package protocol TreeExecutor: AnyObject, Sendable {
    func execute(_ work: @escaping @Sendable () -> Void)
}

/// Delivers completions to the tree's current owner; one that arrives at a former owner is sent on.
final class TreeMailbox: Sendable {
    private struct State {
        var executor: any TreeExecutor
        weak var tree: Tree?
    }

    private let state: Mutex<State>

    init(executor: any TreeExecutor) { state = Mutex(State(executor: executor)) }

    func attach(_ tree: Tree) { state.withLock { $0.tree = tree } }

    func moveTo(_ executor: any TreeExecutor) { state.withLock { $0.executor = executor } }

    /// Runs the end of a job on the owner. The tree is kept until then: what the job made is the tree's to publish or to give
    /// up, even when everybody else has let go of it.
    func post(to tree: Tree, _ work: @escaping @Sendable (Tree) -> Void) {
        post { _ in work(tree) }
    }

    /// Runs `work` on the owner; drops it when the tree is gone.
    func post(_ work: @escaping @Sendable (Tree) -> Void) {
        let executor = state.withLock { $0.executor }
        executor.execute { [self] in
            let (owner, tree) = state.withLock { ($0.executor, $0.tree) }
            guard let tree else { return }
            if owner === executor { work(tree) } else { post(work) }
        }
    }
}
