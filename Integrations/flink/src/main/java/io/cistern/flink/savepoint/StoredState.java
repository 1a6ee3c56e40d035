package io.cistern.flink.savepoint;

import io.cistern.client.StateAccess;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.base.ListSerializer;

/**
 * A state whose stored bytes are to be read, for a canonical savepoint.
 *
 * @param namespaceSerializer null for timers
 * @param valueSerializer that wrote what is stored; null for timers
 */
public record StoredState(StateAccess access, TypeSerializer<?> namespaceSerializer, TypeSerializer<?> valueSerializer) {
    TypeSerializer<?> elementSerializer() {
        return ((ListSerializer<?>) valueSerializer).getElementSerializer();
    }
}
