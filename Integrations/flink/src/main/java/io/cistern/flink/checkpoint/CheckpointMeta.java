package io.cistern.flink.checkpoint;

import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.runtime.state.KeyedBackendSerializationProxy;

import java.io.IOException;

/**
 * What the checkpoint storage keeps of a snapshot: where it is, and what Flink needs to read the state behind it. A few KB.
 *
 * <pre>
 *   u32 magic | u32 version | UTF address | UTF store | UTF handle | KeyedBackendSerializationProxy
 * </pre>
 *
 * Numbers are big-endian, as Java's data streams write them. Version 1 since 0.1.
 */
public record CheckpointMeta(String address, String store, String handle, KeyedBackendSerializationProxy<?> states) {
    /** "CSFL". */
    private static final int MAGIC = 0x4353464C;

    private static final int VERSION = 1;

    public void write(DataOutputView output) throws IOException {
        output.writeInt(MAGIC);
        output.writeInt(VERSION);
        output.writeUTF(address);
        output.writeUTF(store);
        output.writeUTF(handle);
        states.write(output);
    }

    public static <K> CheckpointMeta read(DataInputView input, ClassLoader classLoader) throws IOException {
        int magic = input.readInt();
        if (magic != MAGIC) {
            throw new IOException("a checkpoint is of another state backend than Cistern: take a savepoint in the canonical format with the"
                    + " old backend, and start from that");
        }
        int version = input.readInt();
        if (version != VERSION) {
            throw new IOException("a checkpoint has version " + version + ", this cistern-flink.jar reads " + VERSION + ": use a newer one");
        }
        String address = input.readUTF();
        String store = input.readUTF();
        String handle = input.readUTF();
        KeyedBackendSerializationProxy<K> states = new KeyedBackendSerializationProxy<>(classLoader);
        states.read(input);
        return new CheckpointMeta(address, store, handle, states);
    }
}
