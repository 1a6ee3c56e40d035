package io.cistern.flink.savepoint;

import io.cistern.client.TreeSession;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.runtime.state.restore.KeyGroup;
import org.apache.flink.runtime.state.restore.KeyGroupEntry;
import org.apache.flink.runtime.state.restore.ThrowingIterator;

import java.io.IOException;
import java.util.List;

/** Writes a canonical savepoint, of whatever backend it is, into a fresh tree. */
public final class SavepointReader {
    private final TreeSession session;
    private final CanonicalKeys keys;
    private final CanonicalValues values = new CanonicalValues();

    public SavepointReader(TreeSession session, TypeSerializer<?> keySerializer, int numberOfKeyGroups) {
        this.session = session;
        keys = new CanonicalKeys(keySerializer, numberOfKeyGroups);
    }

    /** @param states in the order of the savepoint's numbers */
    public void read(ThrowingIterator<KeyGroup> keyGroups, List<StoredState> states) throws Exception {
        while (keyGroups.hasNext()) {
            KeyGroup group = keyGroups.next();
            try (ThrowingIterator<KeyGroupEntry> entries = group.getKeyGroupEntries()) {
                while (entries.hasNext()) {
                    write(group.getKeyGroupId(), entries.next(), states);
                }
            }
        }
    }

    private void write(int keyGroup, KeyGroupEntry entry, List<StoredState> states) throws IOException {
        StoredState state = states.get(entry.getKvStateId());
        byte[] key = keys.toStoreKey(keyGroup, entry.getKey(), state);
        byte[] value = state.namespaceSerializer() == null ? new byte[0] : values.toStored(entry.getValue(), state);
        session.put(state.access(), key, key.length, value, 0, value.length, 0);
    }
}
