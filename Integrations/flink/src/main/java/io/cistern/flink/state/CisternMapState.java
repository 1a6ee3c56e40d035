package io.cistern.flink.state;

import io.cistern.client.StoreKey;
import io.cistern.client.StoredEntry;
import io.cistern.wire.Slice;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.base.MapSerializer;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.apache.flink.runtime.state.internal.InternalMapState;

import java.io.IOException;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Objects;

/**
 * A map whose entries are read and written one by one.
 *
 * <pre>value:  u8 1 when it is null, else 0 | the value as its serializer writes it</pre>
 */
public final class CisternMapState<K, N, U, V> extends CisternState<K, N, Map<U, V>> implements InternalMapState<K, N, U, V> {
    private TypeSerializer<U> userKeySerializer;
    private TypeSerializer<V> userValueSerializer;

    public CisternMapState(StateContext<K> context, StateSpec<N, Map<U, V>> spec) {
        super(context, spec);
        takeSerializers();
    }

    @Override
    public void use(StateSpec<N, Map<U, V>> newSpec) {
        super.use(newSpec);
        takeSerializers();
    }

    private void takeSerializers() {
        MapSerializer<U, V> serializer = (MapSerializer<U, V>) spec.valueSerializer();
        userKeySerializer = serializer.getKeySerializer();
        userValueSerializer = serializer.getValueSerializer();
    }

    private int entryKey(U userKey) throws IOException {
        return context.keys().build(spec.access(), namespace, spec.namespaceSerializer(), userKey, userKeySerializer);
    }

    /** Of the whole map. */
    @Override
    public boolean isKnown() throws IOException {
        int length = key(namespace);
        return session.isMapKnown(context.keys().bytes(), length);
    }

    public boolean isEntryKnown(U userKey) throws IOException {
        int length = entryKey(userKey);
        return session.isKnown(spec.access(), context.keys().bytes(), length);
    }

    public void wishEntry(U userKey) throws IOException {
        int length = entryKey(userKey);
        session.wish(spec.access(), context.keys().bytes(), length);
    }

    @Override
    public V get(U userKey) throws IOException {
        int length = entryKey(userKey);
        Slice bytes = session.get(spec.access(), context.keys().bytes(), length);
        return bytes == null ? null : userValue(bytes);
    }

    @Override
    public boolean contains(U userKey) throws IOException {
        int length = entryKey(userKey);
        return session.get(spec.access(), context.keys().bytes(), length) != null;
    }

    @Override
    public void put(U userKey, V value) throws IOException {
        DataOutputSerializer output = context.output();
        serialize(value, output);
        int length = entryKey(userKey);
        session.put(spec.access(), context.keys().bytes(), length, output.getSharedBuffer(), 0, output.length(), spec.expiry());
    }

    @Override
    public void putAll(Map<U, V> map) throws IOException {
        if (map != null) {
            for (Map.Entry<U, V> entry : map.entrySet()) {
                put(entry.getKey(), entry.getValue());
            }
        }
    }

    @Override
    public void remove(U userKey) throws IOException {
        int length = entryKey(userKey);
        session.delete(spec.access(), context.keys().bytes(), length);
    }

    @Override
    public void clear() {
        try {
            for (StoredEntry entry : stored()) {
                session.delete(spec.access(), entry.key(), entry.key().length);
            }
        } catch (IOException error) {
            throw failed("clear", error);
        }
    }

    @Override
    public boolean isEmpty() throws IOException {
        return stored().isEmpty();
    }

    @Override
    public Iterator<Map.Entry<U, V>> iterator() throws IOException {
        return new EntryIterator(stored());
    }

    @Override
    public Iterable<Map.Entry<U, V>> entries() throws IOException {
        List<StoredEntry> stored = stored();
        return () -> new EntryIterator(stored);
    }

    @Override
    public Iterable<U> keys() throws IOException {
        List<StoredEntry> stored = stored();
        return () -> {
            Iterator<Map.Entry<U, V>> entries = new EntryIterator(stored);
            return new Iterator<>() {
                @Override
                public boolean hasNext() {
                    return entries.hasNext();
                }

                @Override
                public U next() {
                    return entries.next().getKey();
                }

                @Override
                public void remove() {
                    entries.remove();
                }
            };
        };
    }

    @Override
    public Iterable<V> values() throws IOException {
        List<StoredEntry> stored = stored();
        return () -> {
            Iterator<Map.Entry<U, V>> entries = new EntryIterator(stored);
            return new Iterator<>() {
                @Override
                public boolean hasNext() {
                    return entries.hasNext();
                }

                @Override
                public V next() {
                    return entries.next().getValue();
                }

                @Override
                public void remove() {
                    entries.remove();
                }
            };
        };
    }

    /** The entries of the current key and namespace, at this moment. */
    private List<StoredEntry> stored() throws IOException {
        int length = key(namespace);
        return session.map(context.keys().bytes(), length);
    }

    private V userValue(Slice bytes) throws IOException {
        DataInputDeserializer input = context.input();
        input.setBuffer(bytes.bytes(), bytes.offset(), bytes.length());
        return input.readBoolean() ? null : userValueSerializer.deserialize(input);
    }

    private void serialize(V value, DataOutputSerializer output) throws IOException {
        output.clear();
        output.writeBoolean(value == null);
        if (value != null) {
            userValueSerializer.serialize(value, output);
        }
    }

    private final class EntryIterator implements Iterator<Map.Entry<U, V>> {
        private final List<StoredEntry> stored;
        private int next;

        EntryIterator(List<StoredEntry> stored) {
            this.stored = stored;
        }

        @Override
        public boolean hasNext() {
            return next < stored.size();
        }

        @Override
        public Map.Entry<U, V> next() {
            if (!hasNext()) {
                throw new NoSuchElementException();
            }
            return new LazyEntry(stored.get(next++));
        }

        @Override
        public void remove() {
            if (next == 0) {
                throw new IllegalStateException("remove was called before next");
            }
            byte[] key = stored.get(next - 1).key();
            try {
                session.delete(spec.access(), key, key.length);
            } catch (IOException error) {
                throw failed("remove an entry of", error);
            }
        }
    }

    /** Deserialized where it is looked at; a new value is written to the state. */
    private final class LazyEntry implements Map.Entry<U, V> {
        private final StoredEntry stored;
        private U key;
        private V value;
        private boolean hasValue;

        LazyEntry(StoredEntry stored) {
            this.stored = stored;
        }

        @Override
        public U getKey() {
            if (key == null) {
                byte[] bytes = stored.key();
                int start = StoreKey.prefixLength(bytes);
                try {
                    key = deserialize(new Slice(bytes, start, bytes.length - start), userKeySerializer);
                } catch (IOException error) {
                    throw failed("read a key of", error);
                }
            }
            return key;
        }

        @Override
        public V getValue() {
            if (!hasValue) {
                try {
                    value = userValue(stored.value());
                } catch (IOException error) {
                    throw failed("read a value of", error);
                }
                hasValue = true;
            }
            return value;
        }

        @Override
        public V setValue(V newValue) {
            V before = getValue();
            DataOutputSerializer output = context.output();
            try {
                serialize(newValue, output);
                byte[] bytes = stored.key();
                session.put(spec.access(), bytes, bytes.length, output.getSharedBuffer(), 0, output.length(), spec.expiry());
            } catch (IOException error) {
                throw failed("write an entry of", error);
            }
            value = newValue;
            return before;
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Map.Entry<?, ?> entry && Objects.equals(getKey(), entry.getKey())
                    && Objects.equals(getValue(), entry.getValue());
        }

        @Override
        public int hashCode() {
            return Objects.hashCode(getKey()) ^ Objects.hashCode(getValue());
        }

        @Override
        public String toString() {
            return getKey() + "=" + getValue();
        }
    }
}
