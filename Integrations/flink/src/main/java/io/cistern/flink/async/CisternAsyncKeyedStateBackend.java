package io.cistern.flink.async;

import io.cistern.client.TreeSession;
import io.cistern.flink.CisternKeyedStateBackend;
import io.cistern.flink.state.CisternState;

import org.apache.flink.api.common.ExecutionConfig;
import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.api.common.state.v2.State;
import org.apache.flink.api.common.state.v2.StateDescriptor;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.runtime.asyncprocessing.AsyncExecutionController;
import org.apache.flink.runtime.asyncprocessing.RecordContext;
import org.apache.flink.runtime.asyncprocessing.StateExecutor;
import org.apache.flink.runtime.asyncprocessing.StateRequestHandler;
import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.checkpoint.SnapshotType;
import org.apache.flink.runtime.state.AsyncKeyedStateBackend;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupedInternalPriorityQueue;
import org.apache.flink.runtime.state.Keyed;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.PriorityComparable;
import org.apache.flink.runtime.state.SnapshotResult;
import org.apache.flink.runtime.state.heap.HeapPriorityQueueElement;
import org.apache.flink.runtime.state.internal.InternalKvState;
import org.apache.flink.runtime.state.v2.StateDescriptorUtils;
import org.apache.flink.runtime.state.v2.internal.InternalKeyedState;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.RunnableFuture;

/**
 * Keyed state for jobs of the asynchronous state API. States, their bytes, timers and checkpoints are those of
 * {@link CisternKeyedStateBackend}, so a checkpoint of one is a checkpoint of the other; what differs is how a request comes to the
 * state: at once when no record waits and the worker knows the answer, otherwise in Flink's batches, for which the server is asked once.
 * Owned by the task's thread.
 */
public final class CisternAsyncKeyedStateBackend<K> implements AsyncKeyedStateBackend<K> {
    private final CisternKeyedStateBackend<K> states;
    private final ExecutionConfig config;
    private final Map<String, State> created = new HashMap<>();
    private StateRequestHandler handler;
    /** Runs what arrives in the task's thread; null when Flink's controller is not there, and the executor waits. */
    private MailboxExecutor mailbox;
    /** Whose key the states have. */
    private RecordContext<K> current;

    public CisternAsyncKeyedStateBackend(CisternKeyedStateBackend<K> states, ExecutionConfig config) {
        this.states = states;
        this.config = config;
    }

    @Override
    public void setup(StateRequestHandler stateRequestHandler) {
        if (stateRequestHandler instanceof AsyncExecutionController<?, ?> controller) {
            handler = new LocalRequests<>(this, stateRequestHandler);
            mailbox = controller.getMailboxExecutor();
        } else {
            handler = stateRequestHandler;
        }
    }

    @Override
    public StateExecutor createStateExecutor() {
        return new BatchExecutor<>(this);
    }

    public TreeSession session() {
        return states.session();
    }

    MailboxExecutor mailbox() {
        return mailbox;
    }

    /** Makes a record's key the current one. */
    void enter(RecordContext<K> context) {
        if (context != current) {
            states.setCurrentKeyAndKeyGroup(context.getKey(), context.getKeyGroup());
            current = context;
        }
    }

    // States.

    @Override
    @SuppressWarnings("unchecked")
    public <N, S extends State, SV> S getOrCreateKeyedState(N defaultNamespace, TypeSerializer<N> namespaceSerializer,
            StateDescriptor<SV> descriptor) throws Exception {
        State state = created.get(descriptor.getStateId());
        if (state == null) {
            state = createStateInternal(defaultNamespace, namespaceSerializer, descriptor);
            created.put(descriptor.getStateId(), state);
        }
        return (S) state;
    }

    /** Times to live are Flink's wrapping of the synchronous state, so that what is stored does not depend on the API. */
    @Override
    @SuppressWarnings({"unchecked", "rawtypes"})
    public <N, S extends InternalKeyedState, SV> S createStateInternal(N defaultNamespace, TypeSerializer<N> namespaceSerializer,
            StateDescriptor<SV> descriptor) throws Exception {
        if (!descriptor.isSerializerInitialized()) {
            descriptor.initializeSerializerUnlessSet(config);
        }
        org.apache.flink.api.common.state.StateDescriptor synchronous = StateDescriptorUtils.transformFromV2ToV1(descriptor);
        if (descriptor.getTtlConfig().isEnabled()) {
            synchronous.enableTimeToLive(descriptor.getTtlConfig());
        }
        InternalKvState<K, N, SV> state = (InternalKvState<K, N, SV>) states.getOrCreateKeyedState(namespaceSerializer, synchronous);
        CisternState<K, N, ?> stored = (CisternState<K, N, ?>) states.stored(descriptor.getStateId());
        return (S) AsyncStates.make(handler, descriptor, new Target<>(state, stored, defaultNamespace));
    }

    // What the synchronous backend does.

    @Override
    public KeyGroupRange getKeyGroupRange() {
        return states.getKeyGroupRange();
    }

    @Override
    public <T extends HeapPriorityQueueElement & PriorityComparable<? super T> & Keyed<?>> KeyGroupedInternalPriorityQueue<T> create(
            String name, TypeSerializer<T> serializer) {
        return states.create(name, serializer);
    }

    @Override
    public <T extends HeapPriorityQueueElement & PriorityComparable<? super T> & Keyed<?>> KeyGroupedInternalPriorityQueue<T> create(
            String name, TypeSerializer<T> serializer, boolean allowFutureMetadataUpdates) {
        return states.create(name, serializer, allowFutureMetadataUpdates);
    }

    @Override
    public RunnableFuture<SnapshotResult<KeyedStateHandle>> snapshot(long checkpointId, long timestamp, CheckpointStreamFactory streamFactory,
            CheckpointOptions options) throws Exception {
        return states.snapshot(checkpointId, timestamp, streamFactory, options);
    }

    @Override
    public boolean requiresLegacySynchronousTimerSnapshots(SnapshotType checkpointType) {
        return states.requiresLegacySynchronousTimerSnapshots(checkpointType);
    }

    @Override
    public boolean isSafeToReuseKVState() {
        return states.isSafeToReuseKVState();
    }

    @Override
    public String getBackendTypeIdentifier() {
        return states.getBackendTypeIdentifier();
    }

    @Override
    public void notifyCheckpointComplete(long checkpointId) {
        states.notifyCheckpointComplete(checkpointId);
    }

    @Override
    public void notifyCheckpointAborted(long checkpointId) {
        states.notifyCheckpointAborted(checkpointId);
    }

    @Override
    public void notifyCheckpointSubsumed(long checkpointId) throws Exception {
        states.notifyCheckpointSubsumed(checkpointId);
    }

    @Override
    public void dispose() {
        states.dispose();
    }

    @Override
    public void close() throws IOException {
        states.close();
    }
}
