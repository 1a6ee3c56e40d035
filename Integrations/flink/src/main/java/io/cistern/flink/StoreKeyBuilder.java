package io.cistern.flink;

import io.cistern.client.StateAccess;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.state.VoidNamespace;

import java.io.IOException;

/**
 * Builds store keys (proto-spec/entries.md) from Flink's key, namespace and user key. One for each backend; the bytes of a key are in
 * {@link #bytes} until the next one is built. Owned by the task's thread.
 *
 * <p>The void namespace is written as an empty one.
 */
public final class StoreKeyBuilder<K> {
    private final TypeSerializer<K> keySerializer;
    private final DataOutputSerializer output = new DataOutputSerializer(128);
    private final DataOutputSerializer part = new DataOutputSerializer(64);

    private K key;
    private int keyGroup;
    /** Bytes of key group, state and key in {@link #output}; 0 until they are written. */
    private int headBytes;
    /** The state whose key without namespace and user key is in {@link #output}; 0 for none. */
    private int plainState;

    public StoreKeyBuilder(TypeSerializer<K> keySerializer) {
        this.keySerializer = keySerializer;
    }

    public void setKey(K newKey, int newKeyGroup) {
        key = newKey;
        keyGroup = newKeyGroup;
        headBytes = 0;
        plainState = 0;
    }

    /** Builds the key of a value, or the prefix of a map; returns its length. */
    public <N> int build(StateAccess state, N namespace, TypeSerializer<N> namespaceSerializer) throws IOException {
        boolean isVoid = namespace == VoidNamespace.INSTANCE;
        if (isVoid && plainState == state.id()) {
            return output.length();
        }
        head(state.id());
        if (isVoid) {
            output.writeByte(0);
            plainState = state.id();
        } else {
            plainState = 0;
            part.clear();
            namespaceSerializer.serialize(namespace, part);
            sized();
        }
        return output.length();
    }

    /** Builds the key of an entry of a map. */
    public <N, U> int build(StateAccess state, N namespace, TypeSerializer<N> namespaceSerializer, U userKey,
            TypeSerializer<U> userKeySerializer) throws IOException {
        build(state, namespace, namespaceSerializer);
        plainState = 0;
        userKeySerializer.serialize(userKey, output);
        return output.length();
    }

    /** The key that was built last, from the beginning of the array on. */
    public byte[] bytes() {
        return output.getSharedBuffer();
    }

    private void head(int state) throws IOException {
        if (headBytes == 0) {
            if (key == null) {
                throw new NullPointerException("No key set. This method should not be called outside of a keyed context.");
            }
            part.clear();
            keySerializer.serialize(key, part);
            output.clear();
            output.writeShort(keyGroup);
            output.writeShort(state);
            sized();
            headBytes = output.length();
            return;
        }
        output.setPosition(headBytes);
        byte[] bytes = output.getSharedBuffer();
        bytes[2] = (byte) (state >> 8);
        bytes[3] = (byte) state;
    }

    /** Writes what is in {@link #part}, behind its size. */
    private void sized() throws IOException {
        int size = part.length();
        int rest = size;
        while ((rest & ~0x7F) != 0) {
            output.writeByte(rest | 0x80);
            rest >>>= 7;
        }
        output.writeByte(rest);
        output.write(part.getSharedBuffer(), 0, size);
    }
}
