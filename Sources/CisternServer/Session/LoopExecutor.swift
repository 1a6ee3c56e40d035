// The event loop as the engine sees it: the owner of a tree.

internal import CisternLSM
package import NIOCore

package final class LoopExecutor: TreeExecutor {
    package let eventLoop: any EventLoop

    package init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    package func execute(_ work: @escaping @Sendable () -> Void) { eventLoop.execute(work) }

    /// Runs `work` on the loop and comes back with its result.
    func run<Result: Sendable>(_ work: @escaping @Sendable () -> Result) async -> Result {
        await withCheckedContinuation { continuation in
            eventLoop.execute { continuation.resume(returning: work()) }
        }
    }
}
