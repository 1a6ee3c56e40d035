package io.cistern.flink.state;

import io.cistern.client.ListFormat;
import io.cistern.wire.Slice;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.base.ListSerializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.state.internal.InternalListState;
import org.apache.flink.util.Preconditions;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;

/** A list. Adding appends and does not read. */
public final class CisternListState<K, N, T> extends CisternState<K, N, List<T>> implements InternalListState<K, N, T> {
    /** Room in front of an element for its head, whose size depends on the element's. */
    private static final byte[] ROOM = new byte[ListFormat.HEAD_BYTES_MAX];

    private final DataOutputSerializer element = new DataOutputSerializer(128);
    private TypeSerializer<T> elementSerializer;

    public CisternListState(StateContext<K> context, StateSpec<N, List<T>> spec) {
        super(context, spec);
        elementSerializer = elementSerializer(spec);
    }

    private static <N, T> TypeSerializer<T> elementSerializer(StateSpec<N, List<T>> spec) {
        return ((ListSerializer<T>) spec.valueSerializer()).getElementSerializer();
    }

    @Override
    public void use(StateSpec<N, List<T>> newSpec) {
        super.use(newSpec);
        elementSerializer = elementSerializer(newSpec);
    }

    @Override
    public Iterable<T> get() throws IOException {
        return getInternal();
    }

    /** Null when there are no elements. */
    @Override
    public List<T> getInternal() throws IOException {
        Slice bytes = read(namespace);
        if (bytes == null) {
            return null;
        }
        List<T> elements = new ArrayList<>();
        ListFormat.forEach(bytes.bytes(), bytes.offset(), bytes.length(),
                (from, offset, length) -> elements.add(deserialize(new Slice(from, offset, length), elementSerializer)));
        return elements;
    }

    @Override
    public void add(T value) throws IOException {
        Preconditions.checkNotNull(value, "You cannot add null to a ListState.");
        DataOutputSerializer output = context.output();
        output.clear();
        frame(value, output);
        append(output);
    }

    @Override
    public void addAll(List<T> values) throws IOException {
        if (!frameAll(values)) {
            return;
        }
        append(context.output());
    }

    @Override
    public void update(List<T> values) throws IOException {
        updateInternal(values);
    }

    @Override
    public void updateInternal(List<T> values) throws IOException {
        if (!frameAll(values)) {
            clear();
            return;
        }
        DataOutputSerializer output = context.output();
        int length = key(namespace);
        session.put(spec.access(), context.keys().bytes(), length, output.getSharedBuffer(), 0, output.length(), spec.expiry());
    }

    private void append(DataOutputSerializer output) throws IOException {
        int length = key(namespace);
        session.append(spec.access(), context.keys().bytes(), length, output.getSharedBuffer(), 0, output.length(), spec.expiry());
    }

    @Override
    public void mergeNamespaces(N target, Collection<N> sources) throws IOException {
        if (sources == null) {
            return;
        }
        for (N source : sources) {
            Slice bytes = source == null ? null : read(source);
            if (bytes != null) {
                byte[] elements = bytes.copy();
                delete(source);
                int length = key(target);
                session.append(spec.access(), context.keys().bytes(), length, elements, 0, elements.length, spec.expiry());
            }
        }
    }

    /** False when there are none. */
    private boolean frameAll(List<T> values) throws IOException {
        Preconditions.checkNotNull(values, "List of values to add cannot be null.");
        DataOutputSerializer output = context.output();
        output.clear();
        for (T value : values) {
            Preconditions.checkNotNull(value, "You cannot add null to a ListState.");
            frame(value, output);
        }
        return !values.isEmpty();
    }

    private void frame(T value, DataOutputSerializer output) throws IOException {
        element.clear();
        element.write(ROOM);
        elementSerializer.serialize(value, element);
        frame(element, output);
    }

    /** Writes an element that stands behind {@link ListFormat#HEAD_BYTES_MAX} bytes of room, with its head. */
    static void frame(DataOutputSerializer element, DataOutputSerializer output) throws IOException {
        byte[] buffer = element.getSharedBuffer();
        int start = ListFormat.frame(buffer, ListFormat.HEAD_BYTES_MAX, element.length() - ListFormat.HEAD_BYTES_MAX);
        output.write(buffer, start, element.length() - start);
    }
}
