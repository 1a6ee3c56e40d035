package io.cistern.wire;

/** Bounds of the protocol that a client keeps to (proto-spec/wire.md, Limits). */
public final class WireLimits {
    public static final int KEY_BYTES_MAX = 32_768;
    public static final int VALUE_BYTES_MAX = 16_777_216;
    /** Keys and values of a batch of more than one entry. */
    public static final int BATCH_BYTES_MAX = 8_388_608;
    public static final int BATCH_ENTRIES_MAX = 65_536;
    /** Keys of a multi-get. */
    public static final int MULTI_GET_KEYS_MAX = 65_536;
    /** A frame under any configuration; longer ones are refused before memory is taken. */
    public static final int FRAME_BYTES_MAX_HARD = 67_108_864;
    /** Bytes of a name in the server's catalog. */
    public static final int NAME_BYTES_MAX = 200;

    private WireLimits() {}
}
