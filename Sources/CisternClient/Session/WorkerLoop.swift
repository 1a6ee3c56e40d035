// A thread that runs a worker's task and its connections: the answer to a request finds the task on the thread that read it, so
// that waiting for the server costs no hand-over between threads, which is most of what a single read would cost else.
//
//   task ── await ──► loop: write frame … read answer ──► task, next turn of the same loop

internal import NIOCore
internal import NIOPosix

/// Runs workers beside their connections. Everything works without it; with it a request that has to ask the server takes about
/// half the time and CPU.
///
/// Sessions attached inside of `run` have their connection on the same thread. What the worker computes holds up the connections
/// of the loop: one that computes for longer than the server's keep-alive allows (30 s) without a call that waits loses its
/// connection, and then attaches again. Blocking calls belong elsewhere.
public final class WorkerLoop: TaskExecutor {
    private let eventLoop: any EventLoop

    /// Takes one of the process's event loops, in turn.
    public init() { eventLoop = MultiThreadedEventLoopGroup.singleton.next() }

    /// Runs `work` and what it calls on the loop's thread, and returns what it returns. Cancelling the caller cancels the work.
    public func run<Success: Sendable>(
        _ work: sending @escaping @isolated(any) () async throws -> Success
    ) async throws -> Success {
        let task = Task(executorPreference: self, operation: work)
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { unsafe job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
