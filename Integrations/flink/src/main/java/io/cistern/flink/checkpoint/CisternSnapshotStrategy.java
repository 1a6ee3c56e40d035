package io.cistern.flink.checkpoint;

import io.cistern.client.SnapshotTicket;
import io.cistern.client.TreeSession;
import io.cistern.wire.Snapshots;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.core.fs.CloseableRegistry;
import org.apache.flink.core.memory.DataOutputViewStreamWrapper;
import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.state.CheckpointStateOutputStream;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.CheckpointedStateScope;
import org.apache.flink.runtime.state.IncrementalKeyedStateHandle.HandleAndLocalPath;
import org.apache.flink.runtime.state.IncrementalRemoteKeyedStateHandle;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyedBackendSerializationProxy;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.SnapshotResources;
import org.apache.flink.runtime.state.SnapshotResult;
import org.apache.flink.runtime.state.SnapshotStrategy;
import org.apache.flink.runtime.state.StreamStateHandle;
import org.apache.flink.runtime.state.filesystem.FileStateHandle;
import org.apache.flink.runtime.state.metainfo.StateMetaInfoSnapshot;

import java.io.IOException;
import java.util.List;
import java.util.UUID;
import java.util.function.Supplier;

/**
 * A checkpoint: in the task's thread the write buffer is sent and the snapshot asked for; beside it the answer is awaited and the
 * {@link CheckpointMeta} written. The task goes on meanwhile.
 *
 * <p>The handle is Flink's own, because checkpoint metadata takes no other: its private state is the snapshot's path, whose deletion
 * releases the snapshot.
 */
public final class CisternSnapshotStrategy<K> implements SnapshotStrategy<KeyedStateHandle, CisternSnapshotStrategy.Resources> {
    private static final String LOCAL_PATH = "snapshot";

    private final TreeSession session;
    private final String address;
    private final String store;
    private final KeyGroupRange keyGroups;
    private final TypeSerializer<K> keySerializer;
    private final Supplier<List<StateMetaInfoSnapshot>> states;
    private final UUID backend = UUID.randomUUID();

    public CisternSnapshotStrategy(TreeSession session, String address, String store, KeyGroupRange keyGroups,
            TypeSerializer<K> keySerializer, Supplier<List<StateMetaInfoSnapshot>> states) {
        this.session = session;
        this.address = address;
        this.store = store;
        this.keyGroups = keyGroups;
        this.keySerializer = keySerializer;
        this.states = states;
    }

    /** What the synchronous part hands to the asynchronous one. */
    public record Resources(SnapshotTicket ticket, List<StateMetaInfoSnapshot> states) implements SnapshotResources {
        @Override
        public void release() {}
    }

    @Override
    public Resources syncPrepareResources(long checkpointId) throws Exception {
        return new Resources(session.snapshot(checkpointId), states.get());
    }

    @Override
    public SnapshotResultSupplier<KeyedStateHandle> asyncSnapshot(Resources resources, long checkpointId, long timestamp,
            CheckpointStreamFactory streamFactory, CheckpointOptions options) {
        return registry -> {
            Snapshots.Taken taken = resources.ticket().await();
            FileStateHandle snapshot = new FileStateHandle(SnapshotPath.of(address, taken.handle()), taken.bytesTotal());
            StreamStateHandle meta = null;
            boolean isDone = false;
            try {
                meta = writeMeta(resources, taken.handle(), streamFactory, registry);
                SnapshotResult<KeyedStateHandle> result = SnapshotResult.of(new IncrementalRemoteKeyedStateHandle(backend, keyGroups,
                        checkpointId, List.of(), List.of(HandleAndLocalPath.of(snapshot, LOCAL_PATH)), meta,
                        taken.bytesNew() + meta.getStateSize()));
                isDone = true;
                return result;
            } finally {
                if (!isDone) {
                    // Nobody will ever name them.
                    snapshot.discardState();
                    if (meta != null) {
                        meta.discardState();
                    }
                }
            }
        };
    }

    private StreamStateHandle writeMeta(Resources resources, String handle, CheckpointStreamFactory streamFactory,
            CloseableRegistry registry) throws IOException {
        CheckpointStateOutputStream stream = streamFactory.createCheckpointStateOutputStream(CheckpointedStateScope.EXCLUSIVE);
        registry.registerCloseable(stream);
        try (stream) {
            new CheckpointMeta(address, store, handle, new KeyedBackendSerializationProxy<>(keySerializer, resources.states(), false))
                    .write(new DataOutputViewStreamWrapper(stream));
            if (!registry.unregisterCloseable(stream)) {
                throw new IOException("the checkpoint was cancelled while its metadata was written");
            }
            StreamStateHandle written = stream.closeAndGetHandle();
            if (written == null) {
                throw new IOException("the checkpoint's stream gave no handle");
            }
            return written;
        }
    }
}
