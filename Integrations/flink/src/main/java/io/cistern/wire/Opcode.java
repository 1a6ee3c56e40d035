package io.cistern.wire;

/** What a frame asks for. Sent: never renumber (proto-spec/wire.md). */
public final class Opcode {
    public static final int CONNECTION = 0x00;
    public static final int HELLO = 0x01;
    public static final int GO_AWAY = 0x02;
    public static final int PING = 0x03;
    public static final int ATTACH = 0x10;
    public static final int DETACH = 0x11;
    public static final int REGISTER_STATE = 0x12;
    public static final int SNAPSHOT = 0x15;
    public static final int RELEASE_SNAPSHOT = 0x16;
    public static final int LIST_SNAPSHOTS = 0x17;
    public static final int WRITE_BATCH = 0x40;
    public static final int MULTI_GET = 0x41;
    public static final int SCAN = 0x42;
    public static final int KEY_INDEX = 0x43;

    /** Marks a reply, which carries the opcode of its request. */
    public static final int REPLY = 0x80;

    private Opcode() {}
}
