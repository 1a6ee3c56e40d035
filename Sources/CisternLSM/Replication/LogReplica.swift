// A replicated log as a tree sees it.

/// Where a tree's records are durable when its own disk need not be. The tree gives it what it would write to its segments, and
/// writes it there, and acknowledges it, when it is told that it is durable.
package protocol LogReplica: AnyObject, Sendable {
    /// Appends an item behind all before. Called on the log lane: it must not wait.
    /// - Parameters:
    ///   - position: the last batch among the records; nil where there are none.
    ///   - completed: called once, on any thread, in the order of the calls. After a failure everything fails: the tree takes no
    ///     writes any more, and must be opened again behind a takeover of the log.
    func append(
        _ item: TreeLogItem, through position: LogPosition?,
        completed: @escaping @Sendable (Result<Void, EngineError>) -> Void)
}
