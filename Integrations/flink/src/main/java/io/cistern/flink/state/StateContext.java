package io.cistern.flink.state;

import io.cistern.client.TreeSession;
import io.cistern.flink.StoreKeyBuilder;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;

/**
 * What all states of a backend share. Owned by the task's thread.
 *
 * @param output scratch for one value at a time
 * @param input the same for reading
 */
public record StateContext<K>(TreeSession session, StoreKeyBuilder<K> keys, TypeSerializer<K> keySerializer,
        DataOutputSerializer output, DataInputDeserializer input) {
    public StateContext(TreeSession session, StoreKeyBuilder<K> keys, TypeSerializer<K> keySerializer) {
        this(session, keys, keySerializer, new DataOutputSerializer(256), new DataInputDeserializer());
    }
}
