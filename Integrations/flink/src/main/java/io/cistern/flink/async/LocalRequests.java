package io.cistern.flink.async;

import org.apache.flink.api.common.state.v2.State;
import org.apache.flink.core.asyncprocessing.CompletedAsyncFuture;
import org.apache.flink.core.asyncprocessing.InternalAsyncFuture;
import org.apache.flink.runtime.asyncprocessing.AsyncExecutionController;
import org.apache.flink.runtime.asyncprocessing.RecordContext;
import org.apache.flink.runtime.asyncprocessing.StateRequestHandler;
import org.apache.flink.runtime.asyncprocessing.StateRequestType;
import org.apache.flink.runtime.state.v2.internal.InternalPartitionedState;
import org.apache.flink.util.FlinkRuntimeException;

import java.io.IOException;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.reflect.Method;

/**
 * Answers requests at once while the current record is the only one in flight: then nobody is before it, whatever its key, and what the
 * worker knows need not wait for a batch. As soon as one record had to ask, all go through Flink's controller, which keeps records of a
 * key in order, until it has none left.
 *
 * <p>The record must hold its key, as records do that operators process in order: Flink counts one that never held it as in progress for
 * ever, and watermarks would wait for it.
 */
final class LocalRequests<K> implements StateRequestHandler {
    /** {@code RecordContext.isKeyOccupied}, which Flink does not show; null when this Flink has none, and nothing is answered at once. */
    private static final MethodHandle HOLDS_KEY = holdsKey();

    private final CisternAsyncKeyedStateBackend<K> backend;
    private final StateRequestHandler inBatches;
    private final AsyncExecutionController<K, ?> controller;
    /** The request that was put into a batch last: what the same record does after it waits for it. Null for none. */
    private InternalAsyncFuture<?> last;

    /** @param controller is both */
    @SuppressWarnings("unchecked")
    LocalRequests(CisternAsyncKeyedStateBackend<K> backend, StateRequestHandler controller) {
        this.backend = backend;
        inBatches = controller;
        this.controller = (AsyncExecutionController<K, ?>) controller;
    }

    private static MethodHandle holdsKey() {
        try {
            Method method = RecordContext.class.getDeclaredMethod("isKeyOccupied");
            method.setAccessible(true);
            return MethodHandles.lookup().unreflect(method);
        } catch (ReflectiveOperationException | RuntimeException error) {
            return null;
        }
    }

    private static boolean holdsKey(RecordContext<?> context) {
        try {
            return (boolean) HOLDS_KEY.invokeExact(context);
        } catch (Throwable error) {
            throw new IllegalStateException("a record cannot be asked whether it holds its key", error);
        }
    }

    @Override
    @SuppressWarnings("unchecked")
    public <IN, OUT> InternalAsyncFuture<OUT> handleRequest(State state, StateRequestType type, IN payload) {
        Target<?, ?> target = targetNow(state);
        try {
            if (target != null && target.isLocal(type, payload)) {
                return new CompletedAsyncFuture<>((OUT) target.run(type, payload));
            }
        } catch (Exception error) {
            throw failed(error);
        }
        InternalAsyncFuture<OUT> answer = inBatches.handleRequest(state, type, payload);
        last = answer;
        return answer;
    }

    @Override
    @SuppressWarnings("unchecked")
    public <IN, OUT> OUT handleRequestSync(State state, StateRequestType type, IN payload) {
        Target<?, ?> target = targetNow(state);
        if (target == null) {
            RecordContext<K> context = controller.getCurrentContext();
            OUT result = inBatches.handleRequestSync(state, type, payload);
            // While it waits, it runs what other records have left to do, and leaves the last one's context behind: the caller's next
            // request would be taken as that one's, and wait for the caller.
            controller.setCurrentContext(context);
            return result;
        }
        try {
            return (OUT) target.run(type, payload);
        } catch (Exception error) {
            throw failed(error);
        }
    }

    /** The state with the current record's key and namespace; null when other records are in flight. */
    private Target<?, ?> targetNow(State state) {
        RecordContext<K> context = controller.getCurrentContext();
        boolean isAlone = HOLDS_KEY != null && context != null && controller.getInFlightRecordNum() == 1 && holdsKey(context)
                && (last == null || last.isDone());
        if (!isAlone || !(state instanceof AsyncStates.Targeted targeted)) {
            return null;
        }
        backend.enter(context);
        enter(targeted.target(), context, state);
        return targeted.target();
    }

    @SuppressWarnings("unchecked")
    private static <N> void enter(Target<?, N> target, RecordContext<?> context, State state) {
        target.enter(context.getNamespace((InternalPartitionedState<N>) state));
    }

    private static RuntimeException failed(Exception error) {
        if (error instanceof RuntimeException unchecked) {
            return unchecked;
        }
        return new FlinkRuntimeException(error instanceof IOException ? error.getMessage() : error.toString(), error);
    }

    @Override
    public <N> void setCurrentNamespaceForState(InternalPartitionedState<N> state, N namespace) {
        inBatches.setCurrentNamespaceForState(state, namespace);
    }
}
