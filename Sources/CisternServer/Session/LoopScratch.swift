// Buffers that requests are answered from. One set an event loop, not one a connection: a loop answers one request at a time,
// and a buffer keeps the size of the largest answer it ever held.

internal import CisternFileSystem
internal import CisternLSM
internal import CisternWire

/// Owned by its event loop.
package final class LoopScratch: @unchecked Sendable {
    // Sendable: made before the loop's first connection, used on the loop only.
    var lookup = LookupResult()
    var values = MultiGetReplyEncoder()
    var page = ScanPageEncoder()
    let waits = DiskWaits()

    package init() {}
}
