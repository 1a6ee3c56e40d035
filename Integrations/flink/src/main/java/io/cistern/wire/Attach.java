package io.cistern.wire;

import java.util.ArrayList;
import java.util.List;

/** ATTACH: become the writer of a key-group range. The newest epoch wins and fences the others. */
public final class Attach {
    private Attach() {}

    /**
     * @param writer the same writer may attach again with the same epoch: it reconnects
     * @param restore snapshots whose union, clipped to the range, becomes the content
     * @param restoring true: the content becomes exactly {@code restore}; false: go on with what is there
     */
    public record Request(String store, int keyGroupCount, int keyGroupFirst, int keyGroupLast, long epoch, String writer,
            List<String> restore, boolean restoring) {
        public byte[] encode() {
            ProtoWriter message = new ProtoWriter(128)
                    .string(1, store).unsigned(2, keyGroupCount).unsigned(3, keyGroupFirst).unsigned(4, keyGroupLast)
                    .unsigned(5, epoch).string(6, writer);
            for (String handle : restore) {
                message.element(7, handle);
            }
            return message.bool(8, restoring).toByteArray();
        }

        /** The same writer coming back: it goes on where it was. */
        public Request again() {
            return new Request(store, keyGroupCount, keyGroupFirst, keyGroupLast, epoch, writer, List.of(), false);
        }
    }

    /**
     * @param tree handle for the headers of requests, valid on this connection
     * @param lastSequence newest batch of this epoch that the tree holds
     * @param resumed the tree was there with this epoch and writer
     */
    public record Reply(int tree, long lastSequence, boolean resumed, List<StateDescriptor> states, long restoreMicroseconds) {
        public static Reply decode(byte[] body) throws WireException {
            int tree = 0;
            long lastSequence = 0;
            boolean resumed = false;
            List<StateDescriptor> states = new ArrayList<>();
            long restoreMicroseconds = 0;
            ProtoReader reader = new ProtoReader(body);
            while (reader.next()) {
                switch (reader.field()) {
                    case 1 -> tree = (int) reader.unsigned();
                    case 2 -> lastSequence = reader.unsigned();
                    case 3 -> resumed = reader.bool();
                    case 4 -> states.add(StateDescriptor.decode(reader.message()));
                    case 7 -> restoreMicroseconds = reader.unsigned();
                    default -> reader.skip();
                }
            }
            return new Reply(tree, lastSequence, resumed, states, restoreMicroseconds);
        }
    }

    /** DETACH: the tree is given back in order. */
    public static byte[] detach(long epoch) {
        return new ProtoWriter(16).unsigned(1, epoch).toByteArray();
    }
}
