package io.cistern.flink;

import io.cistern.flink.async.CisternAsyncKeyedStateBackend;
import io.cistern.test.ServerProcess;

import org.apache.flink.api.common.ExecutionConfig;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.TaskInfoImpl;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.core.execution.SavepointFormatType;
import org.apache.flink.core.fs.CloseableRegistry;
import org.apache.flink.metrics.groups.UnregisteredMetricsGroup;
import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.checkpoint.SavepointType;
import org.apache.flink.runtime.execution.Environment;
import org.apache.flink.runtime.executiongraph.ExecutionAttemptID;
import org.apache.flink.runtime.jobgraph.JobVertexID;
import org.apache.flink.runtime.query.KvStateRegistry;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.AsyncKeyedStateBackend;
import org.apache.flink.runtime.state.CheckpointStorageLocationReference;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.runtime.state.KeyedStateBackendParametersImpl;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.LocalRecoveryConfig;
import org.apache.flink.runtime.state.SavepointResources;
import org.apache.flink.runtime.state.SavepointSnapshotStrategy;
import org.apache.flink.runtime.state.SnapshotResult;
import org.apache.flink.runtime.state.SnapshotStrategyRunner;
import org.apache.flink.runtime.state.StateBackend;
import org.apache.flink.runtime.state.TaskStateManager;
import org.apache.flink.runtime.state.hashmap.HashMapStateBackend;
import org.apache.flink.runtime.state.memory.MemCheckpointStreamFactory;
import org.apache.flink.runtime.state.ttl.TtlTimeProvider;
import org.apache.flink.util.SimpleUserCodeClassLoader;

import java.lang.reflect.Proxy;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.RunnableFuture;

/** Keyed state backends without a task around them, and their snapshots. */
final class Backends {
    static final int KEY_GROUPS = 16;

    private static final int STREAM_BYTES = 64 << 20;
    private static int attempts;

    private Backends() {}

    static StateBackend cistern(ServerProcess server, Map<String, String> options) {
        Configuration config = Configuration.fromMap(options);
        config.set(CisternOptions.ADDRESS, server.endpoint().toString());
        if (!options.containsKey(CisternOptions.CACHE.key())) {
            // So that values come and go.
            config.set(CisternOptions.CACHE, MemorySize.ofMebiBytes(1));
        }
        return new CisternStateBackendFactory().createFromConfig(config, Backends.class.getClassLoader());
    }

    static StateBackend hashMap() {
        return new HashMapStateBackend();
    }

    /** The backend of the subtask with the range, as a task makes it. */
    static <K> AbstractKeyedStateBackend<K> open(StateBackend backend, JobID job, TypeSerializer<K> keys, KeyGroupRange range,
            Collection<KeyedStateHandle> handles) throws Exception {
        return open(backend, job, keys, range, handles, TtlTimeProvider.DEFAULT);
    }

    static <K> AbstractKeyedStateBackend<K> open(StateBackend backend, JobID job, TypeSerializer<K> keys, KeyGroupRange range,
            Collection<KeyedStateHandle> handles, TtlTimeProvider time) throws Exception {
        return (AbstractKeyedStateBackend<K>) backend.createKeyedStateBackend(new KeyedStateBackendParametersImpl<>(environment(), job,
                "KeyedProcessOperator_cbc357ccb763df2852fee8c4fc7d55f2_(1/1)", keys, KEY_GROUPS, range,
                new KvStateRegistry().createTaskRegistry(job, new JobVertexID()), time, new UnregisteredMetricsGroup(), handles,
                new CloseableRegistry()));
    }

    static <K> CisternAsyncKeyedStateBackend<K> openAsync(StateBackend backend, JobID job, TypeSerializer<K> keys, KeyGroupRange range,
            Collection<KeyedStateHandle> handles, TtlTimeProvider time) throws Exception {
        return (CisternAsyncKeyedStateBackend<K>) backend.<K>createAsyncKeyedStateBackend(new KeyedStateBackendParametersImpl<>(environment(), job,
                "KeyedProcessOperator_cbc357ccb763df2852fee8c4fc7d55f2_(1/1)", keys, KEY_GROUPS, range,
                new KvStateRegistry().createTaskRegistry(job, new JobVertexID()), time, new UnregisteredMetricsGroup(), handles,
                new CloseableRegistry()));
    }

    private static Environment environment() {
        TaskStateManager tasks = (TaskStateManager) Proxy.newProxyInstance(Backends.class.getClassLoader(),
                new Class<?>[] {TaskStateManager.class}, (proxy, method, arguments) -> switch (method.getName()) {
                    case "createLocalRecoveryConfig" -> LocalRecoveryConfig.BACKUP_AND_RECOVERY_DISABLED;
                    default -> throw new UnsupportedOperationException(method.getName());
                });
        int attempt = attempts++;
        return (Environment) Proxy.newProxyInstance(Backends.class.getClassLoader(), new Class<?>[] {Environment.class},
                (proxy, method, arguments) -> switch (method.getName()) {
                    case "getUserCodeClassLoader" -> SimpleUserCodeClassLoader.create(Backends.class.getClassLoader());
                    case "getExecutionConfig" -> new ExecutionConfig();
                    case "getTaskInfo" -> new TaskInfoImpl("test", KEY_GROUPS, 0, 1, attempt);
                    case "getExecutionId" -> ExecutionAttemptID.randomId();
                    case "getTaskStateManager" -> tasks;
                    default -> throw new UnsupportedOperationException(method.getName());
                });
    }

    static KeyGroupRange all() {
        return KeyGroupRange.of(0, KEY_GROUPS - 1);
    }

    static boolean isIn(KeyGroupRange range, Object key) {
        return range.contains(KeyGroupRangeAssignment.assignToKeyGroup(key, KEY_GROUPS));
    }

    /** Handle of a checkpoint. */
    static KeyedStateHandle checkpoint(AbstractKeyedStateBackend<?> backend, long id) throws Exception {
        return start(backend, id).get();
    }

    static KeyedStateHandle checkpoint(AsyncKeyedStateBackend<?> backend, long id) throws Exception {
        RunnableFuture<SnapshotResult<KeyedStateHandle>> future = backend.snapshot(id, id, new MemCheckpointStreamFactory(STREAM_BYTES),
                CheckpointOptions.forCheckpointWithDefaultLocation());
        future.run();
        return future.get().getJobManagerOwnedSnapshot();
    }

    /** What is called to have the handle, with everything done that the task's thread does. */
    interface Started {
        KeyedStateHandle get() throws Exception;
    }

    static Started start(AbstractKeyedStateBackend<?> backend, long id) throws Exception {
        RunnableFuture<? extends SnapshotResult<KeyedStateHandle>> future = backend.snapshot(id, id,
                new MemCheckpointStreamFactory(STREAM_BYTES), CheckpointOptions.forCheckpointWithDefaultLocation());
        return () -> {
            future.run();
            return future.get().getJobManagerOwnedSnapshot();
        };
    }

    /** Handle of a savepoint in the canonical format. */
    static <K> KeyedStateHandle savepoint(AbstractKeyedStateBackend<K> backend) throws Exception {
        SavepointResources<K> resources = backend.savepoint();
        var future = new SnapshotStrategyRunner<>("savepoint", new SavepointSnapshotStrategy<>(resources.getSnapshotResources()),
                new CloseableRegistry(), resources.getPreferredSnapshotExecutionType()).snapshot(1, 1,
                        new MemCheckpointStreamFactory(STREAM_BYTES), new CheckpointOptions(
                                SavepointType.savepoint(SavepointFormatType.CANONICAL), CheckpointStorageLocationReference.getDefault()));
        future.run();
        return future.get().getJobManagerOwnedSnapshot();
    }

    static void close(AbstractKeyedStateBackend<?> backend) throws Exception {
        backend.close();
        backend.dispose();
    }

    static List<KeyedStateHandle> handles(KeyedStateHandle... handles) {
        return List.of(handles);
    }
}
