package io.cistern.flink;

import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.state.AggregatingStateDescriptor;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ReducingStateDescriptor;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.internal.InternalAggregatingState;
import org.apache.flink.runtime.state.internal.InternalKvState;
import org.apache.flink.runtime.state.internal.InternalListState;
import org.apache.flink.runtime.state.internal.InternalMapState;
import org.apache.flink.runtime.state.internal.InternalReducingState;
import org.apache.flink.runtime.state.internal.InternalValueState;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;

/** All five kinds of state of one backend, and an operation on them as a function of random numbers, with an answer to compare. */
final class StateSet {
    static final int KEYS = 300;
    static final int NAMESPACES = 4;

    final AbstractKeyedStateBackend<String> backend;
    /** Maps have null values too. The heap backend cannot write them to a savepoint when the serializer does not take null. */
    boolean hasNulls;
    private final InternalValueState<String, String, String> value;
    private final InternalListState<String, String, String> list;
    private final InternalMapState<String, String, String, Long> map;
    private final InternalReducingState<String, String, Long> reducing;
    private final InternalAggregatingState<String, String, Long, List<String>, String> aggregating;

    StateSet(AbstractKeyedStateBackend<String> backend) throws Exception {
        this.backend = backend;
        TypeSerializer<String> text = StringSerializer.INSTANCE;
        value = backend.createOrUpdateInternalState(text, new ValueStateDescriptor<>("value", text));
        list = backend.createOrUpdateInternalState(text, new ListStateDescriptor<>("list", text));
        map = backend.createOrUpdateInternalState(text, new MapStateDescriptor<>("map", text, LongSerializer.INSTANCE));
        reducing = backend.createOrUpdateInternalState(text, new ReducingStateDescriptor<>("reducing", Long::sum, LongSerializer.INSTANCE));
        aggregating = backend.createOrUpdateInternalState(text, new AggregatingStateDescriptor<Long, List<String>, String>("aggregating", new Join(),
                new org.apache.flink.api.common.typeutils.base.ListSerializer<>(text)));
    }

    static String key(int number) {
        return "key-" + number;
    }

    /** One operation; what it answered as text. */
    String step(Random random) throws Exception {
        backend.setCurrentKey(key(random.nextInt(KEYS)));
        String namespace = "n" + random.nextInt(NAMESPACES);
        for (InternalKvState<String, String, ?> state : List.of(value, list, map, reducing, aggregating)) {
            state.setCurrentNamespace(namespace);
        }
        String text = "t" + random.nextInt(1000) + "x".repeat(random.nextInt(60));
        String user = random.nextInt(20) == 0 ? "" : "u" + random.nextInt(5);
        switch (random.nextInt(20)) {
            case 0, 1 -> value.update(text);
            case 2 -> {
                return value.value();
            }
            case 3 -> value.clear();
            case 4, 5 -> list.add(text);
            case 6 -> list.addAll(List.of(text, "second"));
            case 7 -> list.update(random.nextInt(4) == 0 ? List.of() : List.of(text));
            case 8 -> {
                return list.get() == null ? "[]" : list.get().toString();
            }
            case 9 -> map.put(user, random.nextInt(9) == 0 && hasNulls ? null : (Long) random.nextLong());
            case 10 -> {
                return map.get(user) + " " + map.contains(user) + " " + map.isEmpty();
            }
            case 11 -> map.remove(user);
            case 12 -> {
                return sorted();
            }
            case 13 -> {
                return edit(random);
            }
            case 14 -> {
                if (random.nextInt(4) == 0) {
                    map.clear();
                }
                map.putAll(Map.of(user, 1L, "another", 2L));
            }
            case 15 -> {
                reducing.add(random.nextLong());
                return String.valueOf(reducing.get());
            }
            case 16 -> {
                aggregating.add((long) random.nextInt(100));
                return aggregating.get();
            }
            case 17 -> {
                reducing.clear();
                aggregating.clear();
                list.clear();
            }
            default -> merge(random);
        }
        return "";
    }

    private String sorted() throws Exception {
        Map<String, Long> sorted = new TreeMap<>();
        for (Map.Entry<String, Long> entry : map.entries()) {
            sorted.put(entry.getKey(), entry.getValue());
        }
        Set<String> keys = new HashSet<>();
        map.keys().forEach(keys::add);
        List<Long> values = new ArrayList<>();
        map.values().forEach(values::add);
        return sorted + " " + sorted.keySet().equals(keys) + " " + values.size();
    }

    /** Through the iterator. */
    private String edit(Random random) throws Exception {
        int salt = random.nextInt();
        Iterator<Map.Entry<String, Long>> entries = map.iterator();
        while (entries.hasNext()) {
            Map.Entry<String, Long> entry = entries.next();
            switch ((entry.getKey().hashCode() ^ salt) & 3) {
                case 0 -> entries.remove();
                case 1 -> entry.setValue(entry.getKey().hashCode() + (long) salt);
                default -> { }
            }
        }
        if (map.isEmpty()) {
            // The heap backend would name the key of a map that an iterator has emptied.
            map.clear();
        }
        return sorted();
    }

    /** As session windows do. */
    private void merge(Random random) throws Exception {
        String target = "n" + random.nextInt(NAMESPACES);
        List<String> sources = new ArrayList<>();
        for (int i = 0; i < NAMESPACES; i++) {
            if (!target.equals("n" + i) && random.nextBoolean()) {
                sources.add("n" + i);
            }
        }
        list.mergeNamespaces(target, sources);
        reducing.mergeNamespaces(target, sources);
        aggregating.mergeNamespaces(target, sources);
    }

    /** Everything under the keys that are asked for. */
    Map<String, String> content(Iterable<String> keys) throws Exception {
        Map<String, String> content = new TreeMap<>();
        for (String key : keys) {
            backend.setCurrentKey(key);
            for (int i = 0; i < NAMESPACES; i++) {
                String namespace = "n" + i;
                for (InternalKvState<String, String, ?> state : List.of(value, list, map, reducing, aggregating)) {
                    state.setCurrentNamespace(namespace);
                }
                content.put(key + " " + namespace, value.value() + " " + (list.get() == null ? List.of() : list.get()) + " " + sorted() + " "
                        + reducing.get() + " " + aggregating.get());
            }
        }
        return content;
    }

    /** Keys of each state in each namespace, as the backend enumerates them. */
    Map<String, Set<String>> enumerated() {
        Map<String, Set<String>> result = new TreeMap<>();
        for (String state : List.of("value", "list", "map", "reducing", "aggregating")) {
            for (int i = 0; i < NAMESPACES; i++) {
                result.put(state + " n" + i, backend.getKeys(state, "n" + i).collect(Collectors.toSet()));
            }
            result.put(state, backend.<String>getKeysAndNamespaces(state).map(pair -> pair.f0 + " " + pair.f1).collect(Collectors.toSet()));
        }
        return result;
    }

    /** Numbers as text, joined. */
    private static final class Join implements AggregateFunction<Long, List<String>, String> {
        private static final long serialVersionUID = 1L;

        @Override
        public List<String> createAccumulator() {
            return new ArrayList<>();
        }

        @Override
        public List<String> add(Long value, List<String> accumulator) {
            accumulator.add(value.toString());
            return accumulator;
        }

        @Override
        public String getResult(List<String> accumulator) {
            return accumulator.stream().sorted().collect(Collectors.joining(","));
        }

        @Override
        public List<String> merge(List<String> a, List<String> b) {
            List<String> all = new ArrayList<>(a);
            all.addAll(b);
            return all;
        }
    }
}
