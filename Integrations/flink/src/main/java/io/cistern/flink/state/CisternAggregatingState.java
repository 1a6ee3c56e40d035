package io.cistern.flink.state;

import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.runtime.state.internal.InternalAggregatingState;

import java.io.IOException;
import java.util.Collection;

/** As a reducing state, with an accumulator between what goes in and what comes out. */
public final class CisternAggregatingState<K, N, I, A, O> extends CisternState<K, N, A>
        implements InternalAggregatingState<K, N, I, A, O> {
    private AggregateFunction<I, A, O> aggregate;

    public CisternAggregatingState(StateContext<K> context, StateSpec<N, A> spec, AggregateFunction<I, A, O> aggregate) {
        super(context, spec);
        this.aggregate = aggregate;
    }

    public void use(AggregateFunction<I, A, O> newAggregate) {
        aggregate = newAggregate;
    }

    @Override
    public O get() throws IOException {
        A accumulator = readValue(namespace);
        return accumulator == null ? null : aggregate.getResult(accumulator);
    }

    @Override
    public void add(I value) throws IOException {
        A accumulator = readValue(namespace);
        writeValue(namespace, aggregate.add(value, accumulator == null ? aggregate.createAccumulator() : accumulator));
    }

    @Override
    public A getInternal() throws IOException {
        return readValue(namespace);
    }

    @Override
    public void updateInternal(A accumulator) throws IOException {
        if (accumulator == null) {
            clear();
        } else {
            writeValue(namespace, accumulator);
        }
    }

    @Override
    public void mergeNamespaces(N target, Collection<N> sources) throws IOException {
        if (sources == null || sources.isEmpty()) {
            return;
        }
        A merged = null;
        for (N source : sources) {
            A accumulator = source == null ? null : readValue(source);
            if (accumulator != null) {
                delete(source);
                merged = merged == null ? accumulator : aggregate.merge(merged, accumulator);
            }
        }
        if (merged != null) {
            A before = readValue(target);
            writeValue(target, before == null ? merged : aggregate.merge(before, merged));
        }
    }
}
