package io.cistern.wire;

import java.util.List;

/** SNAPSHOT and RELEASE_SNAPSHOT. */
public final class Snapshots {
    private Snapshots() {}

    /**
     * @param checkpoint the job's number of the checkpoint
     * @param sequence the newest batch that the snapshot must hold
     */
    public static byte[] take(long epoch, long checkpoint, long sequence) {
        return new ProtoWriter(32).unsigned(1, epoch).unsigned(2, checkpoint).unsigned(3, sequence).toByteArray();
    }

    /** @param bytesNew bytes that no earlier snapshot has */
    public record Taken(String handle, long bytesTotal, long bytesNew, int files) {
        public static Taken decode(byte[] body) throws WireException {
            String handle = "";
            long bytesTotal = 0;
            long bytesNew = 0;
            int files = 0;
            ProtoReader reader = new ProtoReader(body);
            while (reader.next()) {
                switch (reader.field()) {
                    case 1 -> handle = reader.string();
                    case 2 -> bytesTotal = reader.unsigned();
                    case 3 -> bytesNew = reader.unsigned();
                    case 4 -> files = (int) reader.unsigned();
                    default -> reader.skip();
                }
            }
            return new Taken(handle, bytesTotal, bytesNew, files);
        }
    }

    /** Handles that are not known are fine. */
    public static byte[] release(String store, List<String> handles) {
        ProtoWriter message = new ProtoWriter(128).string(1, store);
        for (String handle : handles) {
            message.element(2, handle);
        }
        return message.toByteArray();
    }

    /** How many of the handles were there. */
    public static int decodeReleased(byte[] body) throws WireException {
        int released = 0;
        ProtoReader reader = new ProtoReader(body);
        while (reader.next()) {
            switch (reader.field()) {
                case 1 -> released = (int) reader.unsigned();
                default -> reader.skip();
            }
        }
        return released;
    }
}
