package io.cistern.flink.timers;

import io.cistern.client.CisternException;
import io.cistern.client.StateAccess;
import io.cistern.client.StoreKey;
import io.cistern.client.StoredEntry;
import io.cistern.client.TreeSession;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.runtime.state.KeyGroupedInternalPriorityQueue;
import org.apache.flink.runtime.state.Keyed;
import org.apache.flink.runtime.state.heap.HeapPriorityQueueElement;
import org.apache.flink.runtime.state.heap.HeapPriorityQueueSet;
import org.apache.flink.util.CloseableIterator;
import org.apache.flink.util.FlinkRuntimeException;

import java.io.IOException;
import java.util.Collection;
import java.util.Set;

/**
 * A timer queue: Flink's heap answers, and each change is written to the server too, so timers are part of the snapshot, incremental
 * as all else, and come back at any parallelism. A timer that is added and removed soon never leaves the write buffer.
 *
 * <pre>store key:  u16 BE key group | u16 BE state | the element as its serializer writes it (for timers: in the order of time)</pre>
 */
public final class CisternTimerQueue<T extends HeapPriorityQueueElement & Keyed<?>> implements KeyGroupedInternalPriorityQueue<T> {
    private static final byte[] NOTHING = new byte[0];

    private final HeapPriorityQueueSet<T> heap;
    private final TreeSession session;
    private final StateAccess state;
    private final int numberOfKeyGroups;
    private final DataOutputSerializer output = new DataOutputSerializer(64);
    private TypeSerializer<T> serializer;

    public CisternTimerQueue(HeapPriorityQueueSet<T> heap, TreeSession session, StateAccess state, int numberOfKeyGroups,
            TypeSerializer<T> serializer) {
        this.heap = heap;
        this.session = session;
        this.state = state;
        this.numberOfKeyGroups = numberOfKeyGroups;
        this.serializer = serializer;
    }

    /** The job has asked for the queue again, with a serializer that reads and writes the same bytes. */
    public void use(TypeSerializer<T> newSerializer) {
        serializer = newSerializer;
    }

    /**
     * Reads all timers of the key groups from the server.
     *
     * @param previous reads what is stored; when it is not the serializer of the queue, timers are written anew
     */
    public void load(KeyGroupRange keyGroups, TypeSerializer<T> previous, boolean isMigration) throws IOException {
        DataInputDeserializer input = new DataInputDeserializer();
        for (int group = keyGroups.getStartKeyGroup(); group <= keyGroups.getEndKeyGroup(); group++) {
            TreeSession.Cursor cursor = session.cursor(state, group);
            for (StoredEntry entry = cursor.next(); entry != null; entry = cursor.next()) {
                byte[] key = entry.key();
                input.setBuffer(key, StoreKey.HEAD_BYTES, key.length - StoreKey.HEAD_BYTES);
                T element = previous.deserialize(input);
                heap.add(element);
                if (isMigration) {
                    session.delete(state, key, key.length);
                    write(element, true);
                }
            }
        }
    }

    @Override
    public boolean add(T element) {
        int before = heap.size();
        boolean isHead = heap.add(element);
        if (heap.size() != before) {
            write(element, true);
        }
        return isHead;
    }

    @Override
    public T poll() {
        T element = heap.poll();
        if (element != null) {
            write(element, false);
        }
        return element;
    }

    @Override
    public boolean remove(T element) {
        int before = heap.size();
        boolean wasHead = heap.remove(element);
        if (heap.size() != before) {
            write(element, false);
        }
        return wasHead;
    }

    @Override
    public void addAll(Collection<? extends T> elements) {
        if (elements != null) {
            elements.forEach(this::add);
        }
    }

    @Override
    public T peek() {
        return heap.peek();
    }

    @Override
    public boolean isEmpty() {
        return heap.isEmpty();
    }

    @Override
    public int size() {
        return heap.size();
    }

    @Override
    public CloseableIterator<T> iterator() {
        return heap.iterator();
    }

    @Override
    public Set<T> getSubsetForKeyGroup(int keyGroup) {
        return heap.getSubsetForKeyGroup(keyGroup);
    }

    private void write(T element, boolean isThere) {
        try {
            output.clear();
            output.writeShort(KeyGroupRangeAssignment.assignToKeyGroup(element.getKey(), numberOfKeyGroups));
            output.writeShort(state.id());
            serializer.serialize(element, output);
            byte[] key = output.getSharedBuffer();
            if (isThere) {
                session.put(state, key, output.length(), NOTHING, 0, 0, 0);
            } else {
                session.delete(state, key, output.length());
            }
        } catch (CisternException error) {
            throw new FlinkRuntimeException(error.getMessage(), error);
        } catch (IOException error) {
            throw new FlinkRuntimeException("a timer of " + state.name() + " cannot be serialized", error);
        }
    }
}
