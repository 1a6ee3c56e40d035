package io.cistern.flink.savepoint;

import io.cistern.client.StoreKey;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.state.CompositeKeySerializationUtils;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;

import java.io.IOException;

/**
 * Store keys to and from the keys of Flink's canonical savepoints, which are those of RocksDB:
 *
 * <pre>
 *   key group, 1 or 2 bytes | key | namespace | user key
 * </pre>
 *
 * where key and namespace are followed by their size when both have serializers of no fixed size. Timers are the key group and the
 * element in both.
 */
final class CanonicalKeys {
    private final TypeSerializer<?> keySerializer;
    private final int prefixBytes;
    private final DataOutputSerializer output = new DataOutputSerializer(128);
    private final DataInputDeserializer input = new DataInputDeserializer();

    CanonicalKeys(TypeSerializer<?> keySerializer, int numberOfKeyGroups) {
        this.keySerializer = keySerializer;
        prefixBytes = CompositeKeySerializationUtils.computeRequiredBytesInKeyGroupPrefix(numberOfKeyGroups);
    }

    byte[] toCanonical(byte[] key, StoredState state) throws IOException {
        output.clear();
        CompositeKeySerializationUtils.writeKeyGroup(StoreKey.keyGroup(key), prefixBytes, output);
        if (state.namespaceSerializer() == null) {
            output.write(key, StoreKey.HEAD_BYTES, key.length - StoreKey.HEAD_BYTES);
            return output.getCopyOfBuffer();
        }
        boolean isAmbiguous = isAmbiguous(state);
        int keyStart = StoreKey.partStart(key, StoreKey.HEAD_BYTES);
        int keySize = StoreKey.partSize(key, StoreKey.HEAD_BYTES);
        output.write(key, keyStart, keySize);
        if (isAmbiguous) {
            CompositeKeySerializationUtils.writeVariableIntBytes(keySize, output);
        }
        int namespaceAt = keyStart + keySize;
        int namespaceStart = StoreKey.partStart(key, namespaceAt);
        int namespaceSize = StoreKey.partSize(key, namespaceAt);
        if (isVoid(state)) {
            output.writeByte(0);
        } else {
            output.write(key, namespaceStart, namespaceSize);
            if (isAmbiguous) {
                CompositeKeySerializationUtils.writeVariableIntBytes(namespaceSize, output);
            }
        }
        int userKey = namespaceStart + namespaceSize;
        output.write(key, userKey, key.length - userKey);
        return output.getCopyOfBuffer();
    }

    byte[] toStoreKey(int keyGroup, byte[] canonical, StoredState state) throws IOException {
        output.clear();
        output.write(StoreKey.head(keyGroup, state.access().id()));
        if (state.namespaceSerializer() == null) {
            output.write(canonical, prefixBytes, canonical.length - prefixBytes);
            return output.getCopyOfBuffer();
        }
        boolean isAmbiguous = isAmbiguous(state);
        input.setBuffer(canonical);
        input.skipBytesToRead(prefixBytes);
        part(canonical, keySerializer, isAmbiguous, false);
        part(canonical, state.namespaceSerializer(), isAmbiguous, isVoid(state));
        int userKey = input.getPosition();
        output.write(canonical, userKey, canonical.length - userKey);
        return output.getCopyOfBuffer();
    }

    /** Copies one part; only its serializer knows where it ends. */
    private void part(byte[] canonical, TypeSerializer<?> serializer, boolean isAmbiguous, boolean isEmpty) throws IOException {
        int start = input.getPosition();
        serializer.deserialize(input);
        int size = input.getPosition() - start;
        if (isAmbiguous) {
            CompositeKeySerializationUtils.readVariableIntBytes(input, size);
        }
        int rest = isEmpty ? 0 : size;
        while ((rest & ~0x7F) != 0) {
            output.writeByte(rest | 0x80);
            rest >>>= 7;
        }
        output.writeByte(rest);
        if (!isEmpty) {
            output.write(canonical, start, size);
        }
    }

    private boolean isAmbiguous(StoredState state) {
        return CompositeKeySerializationUtils.isAmbiguousKeyPossible(keySerializer, state.namespaceSerializer());
    }

    private static boolean isVoid(StoredState state) {
        return state.namespaceSerializer() instanceof VoidNamespaceSerializer;
    }
}
