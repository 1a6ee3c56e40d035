package io.cistern.flink.async;

import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.ReduceFunction;
import org.apache.flink.api.common.state.v2.AggregatingStateDescriptor;
import org.apache.flink.api.common.state.v2.ReducingStateDescriptor;
import org.apache.flink.api.common.state.v2.State;
import org.apache.flink.api.common.state.v2.StateDescriptor;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.runtime.asyncprocessing.StateRequestHandler;
import org.apache.flink.runtime.state.v2.AbstractAggregatingState;
import org.apache.flink.runtime.state.v2.AbstractListState;
import org.apache.flink.runtime.state.v2.AbstractMapState;
import org.apache.flink.runtime.state.v2.AbstractReducingState;
import org.apache.flink.runtime.state.v2.AbstractValueState;

/** The five kinds of asynchronous state: Flink's, which turn calls into requests, with the {@link Target} of the requests. */
final class AsyncStates {
    private AsyncStates() {}

    /** A state whose requests somebody carries out. */
    interface Targeted {
        Target<?, ?> target();
    }

    /** The descriptor's type says what the type variables are. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    static State make(StateRequestHandler handler, StateDescriptor descriptor, Target<?, ?> target) {
        TypeSerializer serializer = descriptor.getSerializer();
        return switch (descriptor.getType()) {
            case VALUE -> new OfValue(handler, serializer, target);
            case LIST -> new OfList(handler, serializer, target);
            case MAP -> new OfMap(handler, serializer, target);
            case REDUCING -> new OfReducing(handler, ((ReducingStateDescriptor) descriptor).getReduceFunction(), serializer, target);
            case AGGREGATING ->
                    new OfAggregating(handler, ((AggregatingStateDescriptor) descriptor).getAggregateFunction(), serializer, target);
        };
    }

    private static final class OfValue<K, N, V> extends AbstractValueState<K, N, V> implements Targeted {
        private final Target<?, ?> target;

        OfValue(StateRequestHandler handler, TypeSerializer<V> serializer, Target<?, ?> target) {
            super(handler, serializer);
            this.target = target;
        }

        @Override
        public Target<?, ?> target() {
            return target;
        }
    }

    private static final class OfList<K, N, V> extends AbstractListState<K, N, V> implements Targeted {
        private final Target<?, ?> target;

        OfList(StateRequestHandler handler, TypeSerializer<V> serializer, Target<?, ?> target) {
            super(handler, serializer);
            this.target = target;
        }

        @Override
        public Target<?, ?> target() {
            return target;
        }
    }

    private static final class OfMap<K, N, U, V> extends AbstractMapState<K, N, U, V> implements Targeted {
        private final Target<?, ?> target;

        OfMap(StateRequestHandler handler, TypeSerializer<V> serializer, Target<?, ?> target) {
            super(handler, serializer);
            this.target = target;
        }

        @Override
        public Target<?, ?> target() {
            return target;
        }
    }

    private static final class OfReducing<K, N, V> extends AbstractReducingState<K, N, V> implements Targeted {
        private final Target<?, ?> target;

        OfReducing(StateRequestHandler handler, ReduceFunction<V> reduce, TypeSerializer<V> serializer, Target<?, ?> target) {
            super(handler, reduce, serializer);
            this.target = target;
        }

        @Override
        public Target<?, ?> target() {
            return target;
        }
    }

    private static final class OfAggregating<K, N, I, A, O> extends AbstractAggregatingState<K, N, I, A, O> implements Targeted {
        private final Target<?, ?> target;

        OfAggregating(StateRequestHandler handler, AggregateFunction<I, A, O> aggregate, TypeSerializer<A> serializer, Target<?, ?> target) {
            super(handler, aggregate, serializer);
            this.target = target;
        }

        @Override
        public Target<?, ?> target() {
            return target;
        }
    }
}
