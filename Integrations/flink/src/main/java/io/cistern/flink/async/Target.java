package io.cistern.flink.async;

import io.cistern.flink.state.CisternMapState;
import io.cistern.flink.state.CisternState;

import org.apache.flink.api.common.state.v2.StateIterator;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.runtime.asyncprocessing.StateRequestType;
import org.apache.flink.runtime.state.internal.InternalAggregatingState;
import org.apache.flink.runtime.state.internal.InternalKvState;
import org.apache.flink.runtime.state.internal.InternalListState;
import org.apache.flink.runtime.state.internal.InternalMapState;
import org.apache.flink.runtime.state.internal.InternalReducingState;
import org.apache.flink.runtime.state.internal.InternalValueState;
import org.apache.flink.runtime.state.v2.adaptor.CompleteStateIterator;

import java.io.IOException;
import java.util.List;
import java.util.Map;

/**
 * The synchronous state that carries out an asynchronous one's requests, under the key and namespace that are current.
 *
 * @param state with its time to live around it, when it has one
 * @param stored the same without
 * @param defaultNamespace of records that name none
 */
record Target<K, N>(InternalKvState<K, N, ?> state, CisternState<K, N, ?> stored, N defaultNamespace) {
    /** @param namespace null for the default one */
    void enter(N namespace) {
        state.setCurrentNamespace(namespace == null ? defaultNamespace : namespace);
    }

    /** Whether carrying out a request asks the server. */
    boolean isLocal(StateRequestType type, Object payload) throws IOException {
        return switch (type) {
            case VALUE_GET, LIST_GET, REDUCING_GET, AGGREGATING_GET -> stored.isKnown();
            case MAP_GET, MAP_CONTAINS -> map().isEntryKnown(payload);
            case MAP_ITER, MAP_ITER_KEY, MAP_ITER_VALUE, MAP_IS_EMPTY -> map().isKnown();
            case CLEAR -> !(stored instanceof CisternMapState<?, ?, ?, ?>) || stored.isKnown();
            default -> true;
        };
    }

    /** Has what a request reads read together with what others do, where that can be. */
    void wish(StateRequestType type, Object payload) throws IOException {
        switch (type) {
            case VALUE_GET, LIST_GET, REDUCING_GET, AGGREGATING_GET -> stored.wish();
            case MAP_GET, MAP_CONTAINS -> map().wishEntry(payload);
            default -> { }
        }
    }

    @SuppressWarnings("unchecked")
    private CisternMapState<K, N, Object, Object> map() {
        return (CisternMapState<K, N, Object, Object>) stored;
    }

    /** The descriptor says what the state's type variables and a request's payload are. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    Object run(StateRequestType type, Object payload) throws Exception {
        switch (type) {
            case CLEAR -> state.clear();
            case VALUE_GET -> {
                return ((InternalValueState) state).value();
            }
            case VALUE_UPDATE -> ((InternalValueState) state).update(payload);
            case LIST_GET -> {
                return iterator((Iterable<?>) ((InternalListState) state).get());
            }
            case LIST_ADD -> ((InternalListState) state).add(payload);
            case LIST_UPDATE -> ((InternalListState) state).update((List<?>) payload);
            case LIST_ADD_ALL -> ((InternalListState) state).addAll((List<?>) payload);
            case MAP_GET -> {
                return ((InternalMapState) state).get(payload);
            }
            case MAP_CONTAINS -> {
                return ((InternalMapState) state).contains(payload);
            }
            case MAP_PUT -> ((InternalMapState) state).put(((Tuple2<?, ?>) payload).f0, ((Tuple2<?, ?>) payload).f1);
            case MAP_PUT_ALL -> ((InternalMapState) state).putAll((Map<?, ?>) payload);
            case MAP_REMOVE -> ((InternalMapState) state).remove(payload);
            case MAP_ITER -> {
                return iterator(((InternalMapState) state).entries());
            }
            case MAP_ITER_KEY -> {
                return iterator(((InternalMapState) state).keys());
            }
            case MAP_ITER_VALUE -> {
                return iterator(((InternalMapState) state).values());
            }
            case MAP_IS_EMPTY -> {
                return ((InternalMapState) state).isEmpty();
            }
            case REDUCING_GET -> {
                return ((InternalReducingState) state).getInternal();
            }
            case REDUCING_ADD -> ((InternalReducingState) state).updateInternal(payload);
            case AGGREGATING_GET -> {
                return ((InternalAggregatingState) state).getInternal();
            }
            case AGGREGATING_ADD -> ((InternalAggregatingState) state).updateInternal(payload);
            default -> throw new UnsupportedOperationException("the Cistern state backend has no request of type " + type);
        }
        return null;
    }

    private static <T> StateIterator<T> iterator(Iterable<T> elements) {
        return new CompleteStateIterator<>(elements == null ? List.of() : elements);
    }
}
