package io.cistern.flink;

import io.cistern.client.StateAccess;
import io.cistern.client.StoreKey;
import io.cistern.client.StoredEntry;
import io.cistern.client.TreeSession;
import io.cistern.flink.checkpoint.CisternSnapshotStrategy;
import io.cistern.flink.savepoint.CisternSavepoint;
import io.cistern.flink.savepoint.StoredState;
import io.cistern.flink.state.CisternState;
import io.cistern.flink.state.StateContext;
import io.cistern.flink.state.StateFactory;
import io.cistern.flink.state.StateMigration;
import io.cistern.flink.state.StateSpec;
import io.cistern.flink.timers.CisternTimerQueue;
import io.cistern.wire.StateKind;

import org.apache.flink.api.common.state.State;
import org.apache.flink.api.common.state.StateDescriptor;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSchemaCompatibility;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.checkpoint.SnapshotType;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.KeyGroupedInternalPriorityQueue;
import org.apache.flink.runtime.state.Keyed;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.PriorityComparable;
import org.apache.flink.runtime.state.RegisteredKeyValueStateBackendMetaInfo;
import org.apache.flink.runtime.state.RegisteredPriorityQueueStateBackendMetaInfo;
import org.apache.flink.runtime.state.RegisteredStateMetaInfoBase;
import org.apache.flink.runtime.state.SavepointResources;
import org.apache.flink.runtime.state.SnapshotExecutionType;
import org.apache.flink.runtime.state.SnapshotResult;
import org.apache.flink.runtime.state.SnapshotStrategyRunner;
import org.apache.flink.runtime.state.StateSnapshotTransformer.StateSnapshotTransformFactory;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.heap.HeapPriorityQueueElement;
import org.apache.flink.runtime.state.heap.HeapPriorityQueueSetFactory;
import org.apache.flink.runtime.state.metainfo.StateMetaInfoSnapshot;
import org.apache.flink.util.FlinkRuntimeException;
import org.apache.flink.util.StateMigrationException;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.RunnableFuture;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/**
 * The keyed state of one operator's subtask, in the tree of its key groups. Owned by the task's thread.
 */
public final class CisternKeyedStateBackend<K> extends AbstractKeyedStateBackend<K> {
    private static final String IDENTIFIER = "cistern";
    private static final int QUEUE_CAPACITY = 128;

    private final TreeSession session;
    private final StateContext<K> context;
    private final CisternSnapshotStrategy<K> checkpoints;
    /** By name, in the order in which they came. */
    private final Map<String, RegisteredState> states;
    private final Map<String, CisternState<K, ?, ?>> created = new HashMap<>();
    private final Map<String, CisternTimerQueue<?>> queues = new HashMap<>();
    private final HeapPriorityQueueSetFactory heaps;
    private boolean isDisposed;

    CisternKeyedStateBackend(CisternKeyedStateBackendBuilder<K> builder, TypeSerializer<K> keySerializer, TreeSession session, String store,
            LinkedHashMap<String, RegisteredState> restored) {
        super(builder.kvStateRegistry(), keySerializer, builder.userCodeClassLoader(), builder.executionConfig(), builder.ttlTimeProvider(),
                builder.latencyTracking(), builder.sizeTracking(), builder.ownRegistry(), builder.keyContext());
        this.session = session;
        states = restored;
        context = new StateContext<>(session, new StoreKeyBuilder<>(keySerializer), keySerializer);
        checkpoints = new CisternSnapshotStrategy<>(session, builder.address(), store, keyGroupRange, keySerializer, this::metaInfos);
        heaps = new HeapPriorityQueueSetFactory(keyGroupRange, numberOfKeyGroups, QUEUE_CAPACITY);
    }

    @Override
    public void setCurrentKey(K newKey) {
        super.setCurrentKey(newKey);
        context.keys().setKey(getCurrentKey(), getCurrentKeyGroupIndex());
    }

    @Override
    public void setCurrentKeyAndKeyGroup(K newKey, int newKeyGroup) {
        super.setCurrentKeyAndKeyGroup(newKey, newKeyGroup);
        context.keys().setKey(getCurrentKey(), getCurrentKeyGroupIndex());
    }

    @Override
    public String getBackendTypeIdentifier() {
        return IDENTIFIER;
    }

    @Override
    public boolean isSafeToReuseKVState() {
        return true;
    }

    /** Timers are written to the server as they change. */
    @Override
    public boolean requiresLegacySynchronousTimerSnapshots(SnapshotType checkpointType) {
        return false;
    }

    // States.

    @Override
    public <N, SV, SEV, S extends State, IS extends S> IS createOrUpdateInternalState(TypeSerializer<N> namespaceSerializer,
            StateDescriptor<S, SV> descriptor, StateSnapshotTransformFactory<SEV> transform) throws Exception {
        return createOrUpdateInternalState(namespaceSerializer, descriptor, transform, false);
    }

    @Override
    @SuppressWarnings("unchecked")
    public <N, SV, SEV, S extends State, IS extends S> IS createOrUpdateInternalState(TypeSerializer<N> namespaceSerializer,
            StateDescriptor<S, SV> descriptor, StateSnapshotTransformFactory<SEV> transform, boolean allowFutureMetadataUpdates)
            throws Exception {
        StateSpec<N, SV> spec = register(namespaceSerializer, descriptor, allowFutureMetadataUpdates);
        CisternState<K, ?, ?> state = created.get(descriptor.getName());
        if (state == null) {
            state = StateFactory.make(context, descriptor, spec);
            created.put(descriptor.getName(), state);
        } else {
            StateFactory.update(state, descriptor, spec);
        }
        return (IS) state;
    }

    /** The state of a name without what Flink puts around it; null when nobody has asked for it. */
    public CisternState<K, ?, ?> stored(String name) {
        return created.get(name);
    }

    public TreeSession session() {
        return session;
    }

    private <N, V> StateSpec<N, V> register(TypeSerializer<N> namespaceSerializer, StateDescriptor<?, V> descriptor,
            boolean allowFutureMetadataUpdates) throws Exception {
        String name = descriptor.getName();
        long ttl = ttl(descriptor.getTtlConfig());
        StateAccess access = session.register(Naming.state(name), kind(descriptor.getType()), ttl);
        RegisteredState known = states.get(name);
        RegisteredKeyValueStateBackendMetaInfo<N, V> meta;
        if (known == null) {
            meta = new RegisteredKeyValueStateBackendMetaInfo<>(descriptor.getType(), name, namespaceSerializer, descriptor.getSerializer(),
                    StateSnapshotTransformFactory.noTransform());
        } else {
            meta = update(known.meta(), namespaceSerializer, descriptor, access);
        }
        if (allowFutureMetadataUpdates) {
            meta = meta.withSerializerUpgradesAllowed();
        }
        states.put(name, new RegisteredState(meta, access));
        return new StateSpec<>(access, meta.getNamespaceSerializer(), meta.getStateSerializer(), descriptor.getDefaultValue(), ttl);
    }

    /** Whether the new serializers can read what is stored; writes it anew when they could if it were. */
    @SuppressWarnings("unchecked")
    private <N, V> RegisteredKeyValueStateBackendMetaInfo<N, V> update(RegisteredStateMetaInfoBase known, TypeSerializer<N> namespaceSerializer,
            StateDescriptor<?, V> descriptor, StateAccess access) throws StateMigrationException, IOException {
        if (!(known instanceof RegisteredKeyValueStateBackendMetaInfo<?, ?>)) {
            throw new StateMigrationException("\"" + descriptor.getName() + "\" was a timer queue; it cannot be used as a state");
        }
        RegisteredKeyValueStateBackendMetaInfo<N, V> meta = (RegisteredKeyValueStateBackendMetaInfo<N, V>) known;
        TypeSerializer<N> previousNamespaceSerializer = meta.getNamespaceSerializer();
        TypeSerializerSchemaCompatibility<N> namespaces = meta.updateNamespaceSerializer(namespaceSerializer);
        if (namespaces.isCompatibleAfterMigration() || namespaces.isIncompatible()) {
            throw new StateMigrationException("The new namespace serializer (" + namespaceSerializer
                    + ") must be compatible with the old namespace serializer (" + previousNamespaceSerializer + ").");
        }
        meta.checkStateMetaInfo(descriptor);
        TypeSerializer<V> previous = meta.getStateSerializer();
        TypeSerializerSchemaCompatibility<V> values = meta.updateStateSerializer(descriptor.getSerializer());
        if (values.isIncompatible()) {
            throw new StateMigrationException("The new state serializer (" + descriptor.getSerializer()
                    + ") must not be incompatible with the old state serializer (" + previous + ").");
        }
        if (values.isCompatibleAfterMigration()) {
            migrate(meta, descriptor, access);
        }
        return meta;
    }

    private <N, V> void migrate(RegisteredKeyValueStateBackendMetaInfo<N, V> meta, StateDescriptor<?, V> descriptor, StateAccess access)
            throws StateMigrationException, IOException {
        if (descriptor.getType() == StateDescriptor.Type.MAP) {
            StateMigration.checkMapKeys(meta.getPreviousStateSerializerSnapshot(), meta.getStateSerializer());
        }
        long ttl = ttl(descriptor.getTtlConfig());
        new StateMigration<>(session, access, meta.getPreviousStateSerializer(), meta.getStateSerializer(), ttlTimeProvider)
                .run(keyGroupRange, ttl == 0 ? 0 : System.currentTimeMillis() + ttl);
    }

    private static long ttl(StateTtlConfig config) {
        return config.isEnabled() ? config.getTimeToLive().toMillis() + StateSpec.TTL_SLACK_MILLISECONDS : 0;
    }

    static StateKind kind(StateDescriptor.Type type) {
        return switch (type) {
            case LIST -> StateKind.LIST;
            case MAP -> StateKind.MAP;
            case REDUCING -> StateKind.REDUCING;
            case AGGREGATING -> StateKind.AGGREGATING;
            default -> StateKind.VALUE;
        };
    }

    // Timers.

    @Override
    public <T extends HeapPriorityQueueElement & PriorityComparable<? super T> & Keyed<?>> KeyGroupedInternalPriorityQueue<T> create(
            String name, TypeSerializer<T> serializer) {
        return create(name, serializer, false);
    }

    @Override
    public <T extends HeapPriorityQueueElement & PriorityComparable<? super T> & Keyed<?>> KeyGroupedInternalPriorityQueue<T> create(
            String name, TypeSerializer<T> serializer, boolean allowFutureMetadataUpdates) {
        try {
            return queue(name, serializer, allowFutureMetadataUpdates);
        } catch (IOException | StateMigrationException error) {
            throw new FlinkRuntimeException("could not make the timer queue " + name + ": " + error.getMessage(), error);
        }
    }

    /** A name's queue is always asked for with one type of element. */
    @SuppressWarnings("unchecked")
    private <T extends HeapPriorityQueueElement & PriorityComparable<? super T> & Keyed<?>> CisternTimerQueue<T> queue(String name,
            TypeSerializer<T> serializer, boolean allowFutureMetadataUpdates) throws IOException, StateMigrationException {
        RegisteredState known = states.get(name);
        RegisteredPriorityQueueStateBackendMetaInfo<T> meta;
        boolean isMigration = false;
        TypeSerializer<T> previous = serializer;
        if (known == null) {
            meta = new RegisteredPriorityQueueStateBackendMetaInfo<>(name, serializer);
        } else {
            meta = (RegisteredPriorityQueueStateBackendMetaInfo<T>) known.meta();
            TypeSerializerSchemaCompatibility<T> compatibility = meta.updateElementSerializer(serializer);
            if (compatibility.isIncompatible()) {
                throw new StateMigrationException("the new serializer (" + serializer + ") is incompatible with the old one");
            }
            isMigration = compatibility.isCompatibleAfterMigration();
            previous = isMigration ? meta.getPreviousElementSerializer() : meta.getElementSerializer();
        }
        if (allowFutureMetadataUpdates) {
            meta = meta.withSerializerUpgradesAllowed();
        }
        CisternTimerQueue<T> queue = (CisternTimerQueue<T>) queues.get(name);
        if (queue != null) {
            queue.use(meta.getElementSerializer());
        } else {
            StateAccess access = session.register(Naming.timers(name), StateKind.TIMERS);
            queue = new CisternTimerQueue<>(heaps.create(name, serializer), session, access, numberOfKeyGroups, meta.getElementSerializer());
            if (known != null) {
                queue.load(keyGroupRange, previous, isMigration);
            }
            queues.put(name, queue);
            states.put(name, new RegisteredState(meta, access));
        }
        return queue;
    }

    // Enumeration.

    @Override
    public <N> Stream<K> getKeys(String state, N namespace) {
        RegisteredState known = states.get(state);
        StateAccess access = known == null ? null : stored(known);
        if (access == null || !(known.meta() instanceof RegisteredKeyValueStateBackendMetaInfo<?, ?> meta)) {
            return Stream.empty();
        }
        byte[] wanted = namespaceBytes(namespace, namespaceSerializer(known, meta));
        return groups().mapToObj(group -> keys(access, group, wanted)).flatMap(Set::stream);
    }

    @Override
    public <N> Stream<K> getKeys(List<String> names, N namespace) {
        return groups().mapToObj(group -> {
            Set<K> keys = new LinkedHashSet<>();
            for (String name : names) {
                RegisteredState known = states.get(name);
                StateAccess access = known == null ? null : stored(known);
                if (access != null && known.meta() instanceof RegisteredKeyValueStateBackendMetaInfo<?, ?> meta) {
                    keys.addAll(keys(access, group, namespaceBytes(namespace, namespaceSerializer(known, meta))));
                }
            }
            return keys;
        }).flatMap(Set::stream);
    }

    @Override
    @SuppressWarnings("unchecked")
    public <N> Stream<Tuple2<K, N>> getKeysAndNamespaces(String state) {
        RegisteredState known = states.get(state);
        StateAccess access = known == null ? null : stored(known);
        if (access == null || !(known.meta() instanceof RegisteredKeyValueStateBackendMetaInfo<?, ?> meta)) {
            return Stream.empty();
        }
        TypeSerializer<N> serializer = (TypeSerializer<N>) namespaceSerializer(known, meta);
        return groups().mapToObj(group -> keysAndNamespaces(access, group, serializer)).flatMap(List::stream);
    }

    private IntStream groups() {
        return IntStream.rangeClosed(keyGroupRange.getStartKeyGroup(), keyGroupRange.getEndKeyGroup());
    }

    private static TypeSerializer<?> namespaceSerializer(RegisteredState state, RegisteredKeyValueStateBackendMetaInfo<?, ?> meta) {
        return state.access() == null ? meta.getPreviousNamespaceSerializer() : meta.getNamespaceSerializer();
    }

    /** As in a store key. */
    @SuppressWarnings("unchecked")
    private static <N> byte[] namespaceBytes(N namespace, TypeSerializer<?> serializer) {
        if (namespace == VoidNamespace.INSTANCE) {
            return new byte[0];
        }
        DataOutputSerializer output = new DataOutputSerializer(32);
        try {
            ((TypeSerializer<N>) serializer).serialize(namespace, output);
        } catch (IOException error) {
            throw new FlinkRuntimeException("a namespace cannot be serialized", error);
        }
        return output.getCopyOfBuffer();
    }

    /** A key group's keys at once: whoever enumerates them may change the state meanwhile. */
    private Set<K> keys(StateAccess access, int group, byte[] namespace) {
        Set<K> keys = new LinkedHashSet<>();
        byte[][] before = new byte[1][];
        forEach(access, group, key -> {
            int start = StoreKey.partStart(key, StoreKey.HEAD_BYTES);
            int end = start + StoreKey.partSize(key, StoreKey.HEAD_BYTES);
            int namespaceStart = StoreKey.partStart(key, end);
            int namespaceEnd = namespaceStart + StoreKey.partSize(key, end);
            boolean isWanted = Arrays.equals(key, namespaceStart, namespaceEnd, namespace, 0, namespace.length);
            // Entries of one map are neighbours.
            boolean isSame = before[0] != null && Arrays.equals(key, 0, end, before[0], 0, before[0].length);
            if (isWanted && !isSame) {
                before[0] = Arrays.copyOf(key, end);
                keys.add(deserialize(key, start, end, keySerializer));
            }
        });
        return keys;
    }

    private <N> List<Tuple2<K, N>> keysAndNamespaces(StateAccess access, int group, TypeSerializer<N> serializer) {
        List<Tuple2<K, N>> result = new ArrayList<>();
        byte[][] before = new byte[1][];
        forEach(access, group, key -> {
            int start = StoreKey.partStart(key, StoreKey.HEAD_BYTES);
            int end = start + StoreKey.partSize(key, StoreKey.HEAD_BYTES);
            int namespaceStart = StoreKey.partStart(key, end);
            int namespaceEnd = namespaceStart + StoreKey.partSize(key, end);
            if (before[0] != null && Arrays.equals(key, 0, namespaceEnd, before[0], 0, before[0].length)) {
                return;
            }
            before[0] = Arrays.copyOf(key, namespaceEnd);
            N namespace = namespaceStart == namespaceEnd ? serializer.createInstance() : deserialize(key, namespaceStart, namespaceEnd, serializer);
            result.add(Tuple2.of(deserialize(key, start, end, keySerializer), namespace));
        });
        return result;
    }

    private interface KeyVisitor {
        void key(byte[] key);
    }

    private void forEach(StateAccess access, int group, KeyVisitor visitor) {
        try {
            TreeSession.Cursor cursor = session.cursor(access, group);
            for (StoredEntry entry = cursor.next(); entry != null; entry = cursor.next()) {
                visitor.key(entry.key());
            }
        } catch (IOException error) {
            throw new FlinkRuntimeException(error.getMessage(), error);
        }
    }

    private static <T> T deserialize(byte[] bytes, int start, int end, TypeSerializer<T> serializer) {
        try {
            return serializer.deserialize(new DataInputDeserializer(bytes, start, end - start));
        } catch (IOException error) {
            throw new FlinkRuntimeException("a key or namespace cannot be deserialized by " + serializer, error);
        }
    }

    @Override
    public int numKeyValueStateEntries() {
        int[] count = new int[1];
        for (RegisteredState state : states.values()) {
            StateAccess access = stored(state);
            if (access != null && state.meta() instanceof RegisteredKeyValueStateBackendMetaInfo<?, ?>) {
                groups().forEach(group -> forEach(access, group, key -> count[0]++));
            }
        }
        return count[0];
    }

    // Checkpoints.

    @Override
    public RunnableFuture<SnapshotResult<KeyedStateHandle>> snapshot(long checkpointId, long timestamp, CheckpointStreamFactory streamFactory,
            CheckpointOptions options) throws Exception {
        return new SnapshotStrategyRunner<>("Cistern snapshot", checkpoints, cancelStreamRegistry, SnapshotExecutionType.ASYNCHRONOUS)
                .snapshot(checkpointId, timestamp, streamFactory, options);
    }

    @Override
    public SavepointResources<K> savepoint() {
        List<StoredState> stored = states.values().stream().map(this::forSavepoint).toList();
        return new SavepointResources<>(
                new CisternSavepoint<>(session, keyGroupRange, numberOfKeyGroups, keySerializer, keyGroupCompressionDecorator, metaInfos(),
                        new ArrayList<>(stored)),
                SnapshotExecutionType.SYNCHRONOUS);
    }

    private StoredState forSavepoint(RegisteredState state) {
        StateAccess access = stored(state);
        Objects.requireNonNull(access, "a state without an id on the server");
        if (state.meta() instanceof RegisteredKeyValueStateBackendMetaInfo<?, ?> meta) {
            TypeSerializer<?> values = state.access() == null ? meta.getPreviousStateSerializer() : meta.getStateSerializer();
            return new StoredState(access, namespaceSerializer(state, meta), values);
        }
        return new StoredState(access, null, null);
    }

    /** Its number on the server, also when the job has not asked for the state. */
    private StateAccess stored(RegisteredState state) {
        if (state.access() != null) {
            return state.access();
        }
        String name = state.meta().getName();
        return session.state(state.meta() instanceof RegisteredKeyValueStateBackendMetaInfo<?, ?> ? Naming.state(name) : Naming.timers(name));
    }

    private List<StateMetaInfoSnapshot> metaInfos() {
        return states.values().stream().map(state -> state.meta().snapshot()).toList();
    }

    /** The server snapshots are counted by the handles. */
    @Override
    public void notifyCheckpointComplete(long checkpointId) {}

    @Override
    public void notifyCheckpointAborted(long checkpointId) {}

    @Override
    public void dispose() {
        if (!isDisposed) {
            isDisposed = true;
            super.dispose();
            session.discard();
        }
    }
}
