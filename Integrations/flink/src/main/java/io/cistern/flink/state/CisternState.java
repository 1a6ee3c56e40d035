package io.cistern.flink.state;

import io.cistern.client.CisternException;
import io.cistern.client.TreeSession;
import io.cistern.wire.Slice;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.state.internal.InternalKvState;
import org.apache.flink.util.FlinkRuntimeException;

import java.io.IOException;

/** What the five kinds of state have in common: a key of the current key and namespace, and bytes behind it. */
public abstract class CisternState<K, N, V> implements InternalKvState<K, N, V> {
    final StateContext<K> context;
    final TreeSession session;
    StateSpec<N, V> spec;
    N namespace;

    CisternState(StateContext<K> context, StateSpec<N, V> spec) {
        this.context = context;
        this.session = context.session();
        this.spec = spec;
    }

    /** The job has asked for the state again. */
    public void use(StateSpec<N, V> newSpec) {
        spec = newSpec;
    }

    @Override
    public TypeSerializer<K> getKeySerializer() {
        return context.keySerializer();
    }

    @Override
    public TypeSerializer<N> getNamespaceSerializer() {
        return spec.namespaceSerializer();
    }

    @Override
    public TypeSerializer<V> getValueSerializer() {
        return spec.valueSerializer();
    }

    @Override
    public void setCurrentNamespace(N newNamespace) {
        namespace = newNamespace;
    }

    @Override
    public void clear() {
        try {
            delete(namespace);
        } catch (IOException error) {
            throw failed("clear", error);
        }
    }

    /** State cannot be read from beside the task: the session is the task's. */
    @Override
    public byte[] getSerializedValue(byte[] serializedKeyAndNamespace, TypeSerializer<K> safeKeySerializer,
            TypeSerializer<N> safeNamespaceSerializer, TypeSerializer<V> safeValueSerializer) {
        throw new UnsupportedOperationException("queryable state is not supported by the Cistern state backend");
    }

    @Override
    public StateIncrementalVisitor<K, N, V> getStateIncrementalVisitor(int recommendedMaxNumberOfReturnedRecords) {
        throw new UnsupportedOperationException("a global iterator over entries is not supported by the Cistern state backend");
    }

    /** Whether a read of the current key and namespace asks nobody. */
    public boolean isKnown() throws IOException {
        int length = key(namespace);
        return session.isKnown(spec.access(), context.keys().bytes(), length);
    }

    /** Has the current key and namespace read by the next {@link io.cistern.client.TreeSession#readWished}. */
    public void wish() throws IOException {
        int length = key(namespace);
        session.wish(spec.access(), context.keys().bytes(), length);
    }

    /** Builds the key of a namespace under the current key; its bytes are in {@link StateContext#keys}. */
    int key(N of) throws IOException {
        return context.keys().build(spec.access(), of, spec.namespaceSerializer());
    }

    /** The stored bytes of a namespace's value; null when there are none. */
    Slice read(N of) throws IOException {
        int length = key(of);
        return session.get(spec.access(), context.keys().bytes(), length);
    }

    <T> T deserialize(Slice bytes, TypeSerializer<T> serializer) throws IOException {
        DataInputDeserializer input = context.input();
        input.setBuffer(bytes.bytes(), bytes.offset(), bytes.length());
        return serializer.deserialize(input);
    }

    V readValue(N of) throws IOException {
        Slice bytes = read(of);
        return bytes == null ? null : deserialize(bytes, spec.valueSerializer());
    }

    void writeValue(N of, V value) throws IOException {
        DataOutputSerializer output = context.output();
        output.clear();
        spec.valueSerializer().serialize(value, output);
        int length = key(of);
        session.put(spec.access(), context.keys().bytes(), length, output.getSharedBuffer(), 0, output.length(), spec.expiry());
    }

    void delete(N of) throws IOException {
        int length = key(of);
        session.delete(spec.access(), context.keys().bytes(), length);
    }

    FlinkRuntimeException failed(String what, IOException error) {
        String message = error instanceof CisternException ? error.getMessage() : "could not " + what + " state " + spec.access().name();
        return new FlinkRuntimeException(message, error);
    }
}
