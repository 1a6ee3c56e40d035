package io.cistern.flink.state;

import org.apache.flink.runtime.state.internal.InternalValueState;

import java.io.IOException;

/** One value. */
public final class CisternValueState<K, N, V> extends CisternState<K, N, V> implements InternalValueState<K, N, V> {
    public CisternValueState(StateContext<K> context, StateSpec<N, V> spec) {
        super(context, spec);
    }

    @Override
    public V value() throws IOException {
        V value = readValue(namespace);
        if (value != null) {
            return value;
        }
        return spec.defaultValue() == null ? null : spec.valueSerializer().copy(spec.defaultValue());
    }

    @Override
    public void update(V value) throws IOException {
        if (value == null) {
            clear();
        } else {
            writeValue(namespace, value);
        }
    }
}
