package io.cistern.flink.state;

import io.cistern.client.ListFormat;
import io.cistern.client.StateAccess;
import io.cistern.client.StoredEntry;
import io.cistern.client.TreeSession;
import io.cistern.wire.Slice;
import io.cistern.wire.StateKind;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.base.MapSerializer;
import org.apache.flink.api.common.typeutils.base.MapSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.ttl.TtlAwareSerializer;
import org.apache.flink.runtime.state.ttl.TtlTimeProvider;
import org.apache.flink.util.StateMigrationException;

import java.io.IOException;

/**
 * Writes every value of a state anew, because its serializer has another schema now, or the state was given a time to live or lost it.
 * Keys and namespaces stay as they are: Flink allows no migration of them.
 */
public final class StateMigration<V> {
    private final TreeSession session;
    private final StateAccess access;
    private final TtlAwareSerializer<?, ?> previous;
    private final TtlAwareSerializer<?, ?> current;
    private final TtlTimeProvider time;
    private final DataInputDeserializer input = new DataInputDeserializer();
    private final DataOutputSerializer output = new DataOutputSerializer(256);
    private final DataOutputSerializer element = new DataOutputSerializer(128);

    public StateMigration(TreeSession session, StateAccess access, TypeSerializer<V> previous, TypeSerializer<V> current,
            TtlTimeProvider time) {
        this.session = session;
        this.access = access;
        this.previous = TtlAwareSerializer.wrapTtlAwareSerializer(previous);
        this.current = TtlAwareSerializer.wrapTtlAwareSerializer(current);
        this.time = time;
    }

    /** @throws StateMigrationException when the keys of a map have another schema: those cannot be migrated */
    public static void checkMapKeys(TypeSerializerSnapshot<?> previous, TypeSerializer<?> current) throws StateMigrationException {
        if (!(previous instanceof MapSerializerSnapshot<?, ?> before) || !(current instanceof MapSerializer<?, ?> now)) {
            throw new StateMigrationException("a map state's serializer is " + current + ", and its snapshot " + previous
                    + ": both must be those of a map");
        }
        if (!isCompatible(before.getKeySerializerSnapshot(), now.getKeySerializer())) {
            throw new StateMigrationException("the schema of the keys of a MapState has changed; only that of its values can be migrated");
        }
    }

    @SuppressWarnings("unchecked")
    private static <U> boolean isCompatible(TypeSerializerSnapshot<?> before, TypeSerializer<U> now) {
        return now.snapshotConfiguration().resolveSchemaCompatibility((TypeSerializerSnapshot<U>) before).isCompatibleAsIs();
    }

    /** @param expiry of what is written, as the state has it now */
    public void run(KeyGroupRange keyGroups, long expiry) throws IOException {
        for (int group = keyGroups.getStartKeyGroup(); group <= keyGroups.getEndKeyGroup(); group++) {
            TreeSession.Cursor cursor = session.cursor(access, group);
            for (StoredEntry entry = cursor.next(); entry != null; entry = cursor.next()) {
                output.clear();
                migrate(entry.value());
                session.put(access, entry.key(), entry.key().length, output.getSharedBuffer(), 0, output.length(), expiry);
            }
        }
    }

    private void migrate(Slice value) throws IOException {
        if (access.kind() == StateKind.LIST) {
            TtlAwareSerializer<?, ?> before = ((TtlAwareSerializer.TtlAwareListSerializer<?>) previous).getElementSerializer();
            TtlAwareSerializer<?, ?> now = ((TtlAwareSerializer.TtlAwareListSerializer<?>) current).getElementSerializer();
            ListFormat.forEach(value.bytes(), value.offset(), value.length(), (bytes, offset, length) -> {
                element.clear();
                element.write(new byte[ListFormat.HEAD_BYTES_MAX]);
                input.setBuffer(bytes, offset, length);
                one(before, now, element);
                CisternListState.frame(element, output);
            });
            return;
        }
        input.setBuffer(value.bytes(), value.offset(), value.length());
        if (access.kind() != StateKind.MAP) {
            one(previous, current, output);
            return;
        }
        boolean isNull = input.readBoolean();
        output.writeBoolean(isNull);
        if (!isNull) {
            one(((TtlAwareSerializer.TtlAwareMapSerializer<?, ?>) previous).getValueSerializer(),
                    ((TtlAwareSerializer.TtlAwareMapSerializer<?, ?>) current).getValueSerializer(), output);
        }
    }

    /** The two serializers are of one type: Flink has found them compatible. */
    @SuppressWarnings("unchecked")
    private <T> void one(TtlAwareSerializer<?, ?> before, TtlAwareSerializer<T, ?> now, DataOutputSerializer to) throws IOException {
        TtlAwareSerializer<T, ?> same = (TtlAwareSerializer<T, ?>) before;
        now.migrateValueFromPriorSerializer(same, () -> same.deserialize(input), to, time);
    }
}
