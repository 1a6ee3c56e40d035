package io.cistern.client;

/** What a session did, in counts. Written by the worker's thread; read by others without promise of the newest. */
public final class SessionFigures {
    public long reads;
    public long mapReads;
    public long absentKnown;
    public long readRequests;
    public long scanRequests;
    public long writes;
    public long writesAbsorbed;
    public long batches;
    public long entriesSent;
    public long bytesSent;
    public long evictions;
    /** How often the keys were loaded anew, because half of the known ones were gone. */
    public long keyLoads;
}
