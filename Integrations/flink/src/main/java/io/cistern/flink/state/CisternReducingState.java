package io.cistern.flink.state;

import org.apache.flink.api.common.functions.ReduceFunction;
import org.apache.flink.runtime.state.internal.InternalReducingState;

import java.io.IOException;
import java.util.Collection;

/** One value that additions are combined into. */
public final class CisternReducingState<K, N, V> extends CisternState<K, N, V> implements InternalReducingState<K, N, V> {
    private ReduceFunction<V> reduce;

    public CisternReducingState(StateContext<K> context, StateSpec<N, V> spec, ReduceFunction<V> reduce) {
        super(context, spec);
        this.reduce = reduce;
    }

    public void use(ReduceFunction<V> newReduce) {
        reduce = newReduce;
    }

    @Override
    public V get() throws IOException {
        return readValue(namespace);
    }

    @Override
    public void add(V value) throws Exception {
        V before = readValue(namespace);
        writeValue(namespace, before == null ? value : reduce.reduce(before, value));
    }

    @Override
    public V getInternal() throws IOException {
        return readValue(namespace);
    }

    @Override
    public void updateInternal(V value) throws IOException {
        if (value == null) {
            clear();
        } else {
            writeValue(namespace, value);
        }
    }

    @Override
    public void mergeNamespaces(N target, Collection<N> sources) throws Exception {
        if (sources == null || sources.isEmpty()) {
            return;
        }
        V merged = null;
        for (N source : sources) {
            V value = source == null ? null : readValue(source);
            if (value != null) {
                delete(source);
                merged = merged == null ? value : reduce.reduce(merged, value);
            }
        }
        if (merged != null) {
            V before = readValue(target);
            writeValue(target, before == null ? merged : reduce.reduce(before, merged));
        }
    }
}
