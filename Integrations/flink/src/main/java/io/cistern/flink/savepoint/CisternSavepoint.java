package io.cistern.flink.savepoint;

import io.cistern.client.StoredEntry;
import io.cistern.client.TreeSession;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.runtime.state.FullSnapshotResources;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyValueStateIterator;
import org.apache.flink.runtime.state.StreamCompressionDecorator;
import org.apache.flink.runtime.state.metainfo.StateMetaInfoSnapshot;

import java.io.IOException;
import java.util.List;

/**
 * Everything a backend holds, in Flink's canonical format, which every state backend reads. Read from the live tree in the task's
 * thread: the task stands still meanwhile.
 *
 * @param states what is stored of each of {@code metaInfos}, in the same order; null for one that nothing was ever stored of
 */
public record CisternSavepoint<K>(TreeSession session, KeyGroupRange keyGroups, int numberOfKeyGroups, TypeSerializer<K> keySerializer,
        StreamCompressionDecorator compression, List<StateMetaInfoSnapshot> metaInfos, List<StoredState> states)
        implements FullSnapshotResources<K> {
    @Override
    public List<StateMetaInfoSnapshot> getMetaInfoSnapshots() {
        return metaInfos;
    }

    @Override
    public KeyValueStateIterator createKVStateIterator() throws IOException {
        return new Entries();
    }

    @Override
    public KeyGroupRange getKeyGroupRange() {
        return keyGroups;
    }

    @Override
    public TypeSerializer<K> getKeySerializer() {
        return keySerializer;
    }

    @Override
    public StreamCompressionDecorator getStreamCompressionDecorator() {
        return compression;
    }

    @Override
    public void release() {}

    /** By key group, then by state. */
    private final class Entries implements KeyValueStateIterator {
        private final CanonicalKeys keys = new CanonicalKeys(keySerializer, numberOfKeyGroups);
        private final CanonicalValues values = new CanonicalValues();
        private int group = keyGroups.getStartKeyGroup();
        private int state = -1;
        private TreeSession.Cursor cursor;
        private byte[] key;
        private byte[] value;
        private boolean isNewGroup = true;
        private boolean isNewState = true;

        Entries() throws IOException {
            next();
        }

        @Override
        public void next() throws IOException {
            isNewGroup = false;
            isNewState = false;
            while (true) {
                StoredEntry entry = cursor == null ? null : cursor.next();
                if (entry != null) {
                    key = keys.toCanonical(entry.key(), states.get(state));
                    value = values.toCanonical(entry.value(), states.get(state));
                    return;
                }
                if (!advance()) {
                    key = null;
                    return;
                }
            }
        }

        /** Goes to the next state of the group, or to the first of the next group; false behind the last. */
        private boolean advance() throws IOException {
            do {
                state++;
                isNewState = true;
                if (state == states.size()) {
                    state = 0;
                    group++;
                    isNewGroup = true;
                    if (group > keyGroups.getEndKeyGroup() || states.isEmpty()) {
                        return false;
                    }
                }
            } while (states.get(state) == null);
            cursor = session.cursor(states.get(state).access(), group);
            return true;
        }

        @Override
        public int keyGroup() {
            return group;
        }

        @Override
        public byte[] key() {
            return key;
        }

        @Override
        public byte[] value() {
            return value;
        }

        @Override
        public int kvStateId() {
            return state;
        }

        @Override
        public boolean isNewKeyValueState() {
            return isNewState;
        }

        @Override
        public boolean isNewKeyGroup() {
            return isNewGroup;
        }

        @Override
        public boolean isValid() {
            return key != null;
        }

        @Override
        public void close() {}
    }
}
