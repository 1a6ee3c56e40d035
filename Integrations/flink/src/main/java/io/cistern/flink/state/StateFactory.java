package io.cistern.flink.state;

import org.apache.flink.api.common.state.AggregatingStateDescriptor;
import org.apache.flink.api.common.state.ReducingStateDescriptor;
import org.apache.flink.api.common.state.StateDescriptor;

/** Makes the state that a descriptor asks for, or gives an existing one what a new descriptor says. */
public final class StateFactory {
    private StateFactory() {}

    /** The descriptor's type says what the type variables are. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    public static <K> CisternState<K, ?, ?> make(StateContext<K> context, StateDescriptor<?, ?> descriptor, StateSpec<?, ?> spec) {
        return switch (descriptor.getType()) {
            case VALUE -> new CisternValueState(context, spec);
            case LIST -> new CisternListState(context, spec);
            case MAP -> new CisternMapState(context, spec);
            case REDUCING -> new CisternReducingState(context, spec, ((ReducingStateDescriptor<?>) descriptor).getReduceFunction());
            case AGGREGATING ->
                    new CisternAggregatingState(context, spec, ((AggregatingStateDescriptor<?, ?, ?>) descriptor).getAggregateFunction());
            default -> throw new UnsupportedOperationException(
                    "state " + descriptor.getName() + " is of type " + descriptor.getType() + ", which the Cistern state backend does not have");
        };
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    public static void update(CisternState state, StateDescriptor<?, ?> descriptor, StateSpec<?, ?> spec) {
        state.use(spec);
        if (state instanceof CisternReducingState reducing) {
            reducing.use(((ReducingStateDescriptor<?>) descriptor).getReduceFunction());
        } else if (state instanceof CisternAggregatingState aggregating) {
            aggregating.use(((AggregatingStateDescriptor<?, ?, ?>) descriptor).getAggregateFunction());
        }
    }
}
