package io.cistern.flink;

import io.cistern.client.CisternException;
import io.cistern.client.ClientSettings;
import io.cistern.client.Endpoint;
import io.cistern.client.StateAccess;
import io.cistern.client.TreeSession;
import io.cistern.flink.checkpoint.CheckpointMeta;
import io.cistern.flink.savepoint.SavepointReader;
import io.cistern.flink.savepoint.StoredState;
import io.cistern.wire.Attach;
import io.cistern.wire.StateKind;

import org.apache.flink.api.common.ExecutionConfig;
import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.common.state.StateDescriptor;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSchemaCompatibility;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.fs.CloseableRegistry;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.memory.DataInputViewStreamWrapper;
import org.apache.flink.runtime.query.TaskKvStateRegistry;
import org.apache.flink.runtime.state.BackendBuildingException;
import org.apache.flink.runtime.state.IncrementalRemoteKeyedStateHandle;
import org.apache.flink.runtime.state.InternalKeyContext;
import org.apache.flink.runtime.state.InternalKeyContextImpl;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupsStateHandle;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.RegisteredKeyValueStateBackendMetaInfo;
import org.apache.flink.runtime.state.RegisteredStateMetaInfoBase;
import org.apache.flink.runtime.state.StateBackend.KeyedStateBackendParameters;
import org.apache.flink.runtime.state.StateSerializerProvider;
import org.apache.flink.runtime.state.metainfo.StateMetaInfoSnapshot;
import org.apache.flink.runtime.state.metrics.LatencyTrackingStateConfig;
import org.apache.flink.runtime.state.metrics.SizeTrackingStateConfig;
import org.apache.flink.runtime.state.restore.FullSnapshotRestoreOperation;
import org.apache.flink.runtime.state.restore.KeyGroup;
import org.apache.flink.runtime.state.restore.SavepointRestoreResult;
import org.apache.flink.runtime.state.restore.ThrowingIterator;
import org.apache.flink.runtime.state.ttl.TtlTimeProvider;
import org.apache.flink.util.StateMigrationException;

import java.io.Closeable;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Objects;

/**
 * Attaches to the tree of a subtask: empty, from snapshots of the server, or from a canonical savepoint of any backend; and makes the
 * backend on it.
 */
final class CisternKeyedStateBackendBuilder<K> {
    /** Bits of an epoch below the time: the number of the attempt. */
    private static final int ATTEMPT_BITS = 16;
    /** Others of the same range that were newer, before it is given up. */
    private static final int FENCED_MAX = 4;

    private final String address;
    private final ClientSettings settings;
    private final KeyedStateBackendParameters<K> parameters;
    private final LatencyTrackingStateConfig latencyTracking;
    private final SizeTrackingStateConfig sizeTracking;
    private final StateSerializerProvider<K> keySerializer;
    private final KeyGroupRange keyGroups;
    private final ClassLoader classLoader;
    /** The one in the parameters is for the restore only. */
    private final CloseableRegistry ownRegistry = new CloseableRegistry();

    CisternKeyedStateBackendBuilder(String address, ClientSettings settings, KeyedStateBackendParameters<K> parameters,
            LatencyTrackingStateConfig latencyTracking, SizeTrackingStateConfig sizeTracking) {
        this.address = address;
        this.settings = settings;
        this.parameters = parameters;
        this.latencyTracking = latencyTracking;
        this.sizeTracking = sizeTracking;
        keySerializer = StateSerializerProvider.fromNewRegisteredSerializer(parameters.getKeySerializer());
        keyGroups = parameters.getKeyGroupRange();
        classLoader = parameters.getEnv().getUserCodeClassLoader().asClassLoader();
    }

    CisternKeyedStateBackend<K> build() throws BackendBuildingException {
        Collection<KeyedStateHandle> handles = parameters.getStateHandles().stream().filter(Objects::nonNull).toList();
        try {
            if (!handles.isEmpty() && handles.iterator().next() instanceof KeyGroupsStateHandle) {
                return fromSavepoint(handles);
            }
            return fromSnapshots(handles);
        } catch (CisternException error) {
            throw new BackendBuildingException(error.getMessage(), error);
        } catch (Exception error) {
            throw new BackendBuildingException("could not make the keyed state of " + parameters.getOperatorIdentifier() + " on " + address
                    + ": " + error.getMessage(), error);
        }
    }

    // From nothing, or from snapshots of the server.

    private CisternKeyedStateBackend<K> fromSnapshots(Collection<KeyedStateHandle> handles) throws Exception {
        String store = Naming.store(parameters.getJobID(), parameters.getOperatorIdentifier());
        List<String> restore = new ArrayList<>();
        LinkedHashMap<String, RegisteredState> states = new LinkedHashMap<>();
        for (KeyedStateHandle handle : handles) {
            CheckpointMeta meta = read(handle);
            if (!restore.isEmpty() && !meta.store().equals(store)) {
                throw new IOException("snapshots of " + store + " and of " + meta.store() + " do not go together");
            }
            // A job that comes from another one's checkpoint goes on in its store: there the snapshots are.
            store = meta.store();
            restore.add(meta.handle());
            checkKeySerializer(meta.states().getKeySerializerSnapshot());
            for (StateMetaInfoSnapshot state : meta.states().getStateMetaInfoSnapshots()) {
                states.putIfAbsent(state.getName(), new RegisteredState(RegisteredStateMetaInfoBase.fromMetaInfoSnapshot(state), null));
            }
        }
        return make(attach(store, restore), store, states);
    }

    private CheckpointMeta read(KeyedStateHandle handle) throws IOException {
        if (!(handle instanceof IncrementalRemoteKeyedStateHandle incremental)) {
            throw new IOException("a checkpoint has a " + handle.getClass().getSimpleName()
                    + ", which is of another state backend: take a savepoint in the canonical format with that, and start from it");
        }
        try (FSDataInputStream stream = incremental.getMetaDataStateHandle().openInputStream();
                Closeable registered = parameters.getCancelStreamRegistry().registerCloseableTemporarily(stream)) {
            Objects.requireNonNull(registered);
            return CheckpointMeta.read(new DataInputViewStreamWrapper(stream), classLoader);
        }
    }

    /** All handles have the same one. */
    @SuppressWarnings("unchecked")
    private void checkKeySerializer(TypeSerializerSnapshot<?> snapshot) throws StateMigrationException {
        if (keySerializer.getPreviousSerializerSnapshot() != null) {
            return;
        }
        TypeSerializer<K> current = keySerializer.currentSchemaSerializer();
        TypeSerializerSchemaCompatibility<K> compatibility =
                keySerializer.setPreviousSerializerSnapshotForRestoredState((TypeSerializerSnapshot<K>) snapshot);
        if (compatibility.isCompatibleAfterMigration() || compatibility.isIncompatible()) {
            throw new StateMigrationException("The new key serializer (" + current
                    + ") must be compatible with the previous key serializer (" + keySerializer.previousSchemaSerializer() + ").");
        }
    }

    // From a canonical savepoint.

    private CisternKeyedStateBackend<K> fromSavepoint(Collection<KeyedStateHandle> handles) throws Exception {
        String store = Naming.store(parameters.getJobID(), parameters.getOperatorIdentifier());
        TreeSession session = attach(store, List.of());
        LinkedHashMap<String, RegisteredState> states = new LinkedHashMap<>();
        try (Closeable registered = parameters.getCancelStreamRegistry().registerCloseableTemporarily(session::close);
                ThrowingIterator<SavepointRestoreResult> results =
                        new FullSnapshotRestoreOperation<>(keyGroups, classLoader, handles, keySerializer).restore()) {
            Objects.requireNonNull(registered);
            while (results.hasNext()) {
                SavepointRestoreResult result = results.next();
                List<StoredState> stored = new ArrayList<>();
                for (StateMetaInfoSnapshot snapshot : result.getStateMetaInfoSnapshots()) {
                    RegisteredStateMetaInfoBase meta = RegisteredStateMetaInfoBase.fromMetaInfoSnapshot(snapshot);
                    states.putIfAbsent(snapshot.getName(), new RegisteredState(meta, null));
                    stored.add(register(session, meta));
                }
                try (ThrowingIterator<KeyGroup> groups = result.getRestoredKeyGroups()) {
                    new SavepointReader(session, keySerializer.previousSchemaSerializer(), parameters.getNumberOfKeyGroups()).read(groups, stored);
                }
            }
        } catch (Exception error) {
            session.close();
            throw error;
        }
        return make(session, store, states);
    }

    private static StoredState register(TreeSession session, RegisteredStateMetaInfoBase meta) throws CisternException {
        if (meta instanceof RegisteredKeyValueStateBackendMetaInfo<?, ?> values) {
            StateDescriptor.Type type = values.getStateType();
            StateAccess access = session.register(Naming.state(meta.getName()), CisternKeyedStateBackend.kind(type));
            return new StoredState(access, values.getPreviousNamespaceSerializer(), values.getPreviousStateSerializer());
        }
        return new StoredState(session.register(Naming.timers(meta.getName()), StateKind.TIMERS), null, null);
    }

    // Common.

    private TreeSession attach(String store, List<String> restore) throws CisternException {
        TaskInfo task = parameters.getEnv().getTaskInfo();
        String writer = Naming.writer(parameters.getEnv().getExecutionId() + " " + task.getTaskNameWithSubtasks());
        long time = System.currentTimeMillis();
        for (int attempt = 1; ; attempt++) {
            Attach.Request request = new Attach.Request(store, parameters.getNumberOfKeyGroups(), keyGroups.getStartKeyGroup(),
                    keyGroups.getEndKeyGroup(), epoch(time, task.getAttemptNumber()), writer, restore, true);
            try {
                return TreeSession.open(Endpoint.parse(address), settings, request);
            } catch (CisternException error) {
                if (error.kind() != CisternException.Kind.FENCED || attempt == FENCED_MAX) {
                    throw error;
                }
                // Of another machine, whose clock is ahead. Whoever attaches last wins, the other one finds itself fenced.
                time = (error.currentEpoch() >>> ATTEMPT_BITS) + 1;
            }
        }
    }

    /** Grows with every attempt, also when a new job manager counts attempts from 0 again. */
    private static long epoch(long time, int attempt) {
        return time << ATTEMPT_BITS | attempt & (1 << ATTEMPT_BITS) - 1;
    }

    private CisternKeyedStateBackend<K> make(TreeSession session, String store, LinkedHashMap<String, RegisteredState> states) {
        SessionMetrics.register(session, parameters.getMetricGroup());
        return new CisternKeyedStateBackend<>(this, keySerializer.currentSchemaSerializer(), session, store, states);
    }

    TaskKvStateRegistry kvStateRegistry() {
        return parameters.getKvStateRegistry();
    }

    ClassLoader userCodeClassLoader() {
        return classLoader;
    }

    ExecutionConfig executionConfig() {
        return parameters.getEnv().getExecutionConfig();
    }

    TtlTimeProvider ttlTimeProvider() {
        return parameters.getTtlTimeProvider();
    }

    LatencyTrackingStateConfig latencyTracking() {
        return latencyTracking;
    }

    SizeTrackingStateConfig sizeTracking() {
        return sizeTracking;
    }

    CloseableRegistry ownRegistry() {
        return ownRegistry;
    }

    String address() {
        return address;
    }

    InternalKeyContext<K> keyContext() {
        return new InternalKeyContextImpl<>(keyGroups, parameters.getNumberOfKeyGroups());
    }
}
