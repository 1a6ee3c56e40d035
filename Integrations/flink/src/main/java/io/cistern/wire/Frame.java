package io.cistern.wire;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.zip.CRC32C;

/**
 * One frame: 24 bytes of header, then the body.
 *
 * <pre>
 *  0        4      5       6        8                 16           20           24
 *  | length | magic| opcode| flags  | request id      | CRC-32C    | tree or    | body ...
 *  | u32    | 0xB7 | u8    | u16    | u64             | u32        | credit u32 | length - 20
 * </pre>
 *
 * Little-endian; the checksum covers bytes 4 to 15 and 20 to the end. Specified in proto-spec/wire.md.
 *
 * @param treeOrCredit in a request the tree, in the last frame of a reply the KiB of body bytes granted back
 */
public record Frame(int opcode, int flags, long requestId, int treeOrCredit, byte[] body) {
    public static final int HEADER_BYTES = 24;
    /** What {@code length} counts of the header: all but itself. */
    private static final int COUNTED_HEADER_BYTES = 20;

    private static final int MAGIC = 0xB7;

    public static final int CHECKSUM = 1;
    public static final int ERROR = 1 << 1;
    public static final int MORE = 1 << 2;
    private static final int KNOWN_FLAGS = CHECKSUM | ERROR | MORE;

    public static Frame request(int opcode, long requestId, int tree, byte[] body) {
        return new Frame(opcode, CHECKSUM, requestId, tree, body);
    }

    public boolean isReply() {
        return (opcode & Opcode.REPLY) != 0;
    }

    public boolean isError() {
        return (flags & ERROR) != 0;
    }

    /** True when further frames of the same reply follow. */
    public boolean hasMore() {
        return (flags & MORE) != 0;
    }

    /** The header, checksum included; the body follows it on the wire as it is. */
    public ByteBuffer encodeHeader() {
        ByteBuffer header = ByteBuffer.allocate(HEADER_BYTES).order(ByteOrder.LITTLE_ENDIAN);
        header.putInt(COUNTED_HEADER_BYTES + body.length);
        header.put((byte) MAGIC).put((byte) opcode).putShort((short) flags);
        header.putLong(requestId);
        header.putInt(0).putInt(treeOrCredit);
        if ((flags & CHECKSUM) != 0) {
            header.putInt(16, checksum(header.array(), body, 0, body.length));
        }
        return header.flip();
    }

    /**
     * The number of body bytes behind a header. Checks the magic, then the length against the limit, before memory is taken.
     *
     * @param frameBytesMax largest frame that is taken, as {@code length} counts it
     */
    public static int bodyBytes(byte[] header, int frameBytesMax) throws WireException {
        ByteBuffer buffer = ByteBuffer.wrap(header).order(ByteOrder.LITTLE_ENDIAN);
        int magic = header[4] & 0xFF;
        if (magic != MAGIC) {
            throw new WireException(
                    String.format("a frame starts with 0x%02x where 0xb7 was expected: is this a cistern server's port?", magic));
        }
        int length = buffer.getInt(0);
        if (length < COUNTED_HEADER_BYTES || length > frameBytesMax) {
            throw new WireException("a frame of " + Integer.toUnsignedString(length) + " bytes; 20 to " + frameBytesMax + " are taken");
        }
        return length - COUNTED_HEADER_BYTES;
    }

    /** Reads a frame from its header and body, which have been received whole. */
    public static Frame decode(byte[] header, byte[] body) throws WireException {
        ByteBuffer buffer = ByteBuffer.wrap(header).order(ByteOrder.LITTLE_ENDIAN);
        int flags = buffer.getShort(6) & 0xFFFF;
        if ((flags & CHECKSUM) != 0) {
            int stored = buffer.getInt(16);
            int computed = checksum(header, body, 0, body.length);
            if (stored != computed) {
                throw new WireException(
                        String.format("a frame's checksum is %08x, its bytes give %08x: damaged on the way", stored, computed));
            }
        }
        if ((flags & ~KNOWN_FLAGS) != 0) {
            throw new WireException(String.format("a frame has unknown flags %04x", flags));
        }
        return new Frame(header[5] & 0xFF, flags, buffer.getLong(8), buffer.getInt(20), body);
    }

    private static int checksum(byte[] header, byte[] body, int offset, int length) {
        CRC32C crc = new CRC32C();
        crc.update(header, 4, 12);
        crc.update(header, 20, 4);
        crc.update(body, offset, length);
        return (int) crc.getValue();
    }
}
