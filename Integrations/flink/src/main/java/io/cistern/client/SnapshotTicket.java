package io.cistern.client;

import io.cistern.wire.Snapshots;

import java.io.IOException;

/** A snapshot that was asked for. Awaited on any thread. */
public final class SnapshotTicket {
    private final TreeLink link;
    final long checkpoint;
    /** Guarded by the link. */
    Snapshots.Taken taken;

    SnapshotTicket(TreeLink link, long checkpoint) {
        this.link = link;
        this.checkpoint = checkpoint;
    }

    /**
     * Waits until the server has recorded the snapshot. Nothing that was written behind it is sent before that, so a lost
     * connection does not change what is in it.
     *
     * @throws CisternException when it cannot be had
     */
    public Snapshots.Taken await() throws IOException {
        link.settle("take snapshot of checkpoint " + checkpoint, () -> taken != null);
        return taken;
    }
}
