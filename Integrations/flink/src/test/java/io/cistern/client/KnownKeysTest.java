package io.cistern.client;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.test.Seed;

import org.junit.jupiter.api.Test;

import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Random;
import java.util.Set;

/** A worker's use of known keys, with hashes so short that keys share them all the time. */
final class KnownKeysTest {
    private static final int KEYS = 400;
    private static final int HASHES = 150;

    /** What the server has, what the working set has, and the rules of {@link TreeSession} between them. */
    private static final class Worker {
        final KnownKeys known = new KnownKeys(1 << 30, true);
        /** Key to expiry. */
        final Map<Integer, Long> server = new HashMap<>();
        final Map<Integer, Entry> set = new HashMap<>();
        long now = 1_000_000;
        int certainlyAbsent;

        static long hash(int key) {
            return Hash64.hash(new byte[] {(byte) (key % HASHES)}, 1);
        }

        Entry entry(int key) {
            return new Entry(("key" + key).getBytes(StandardCharsets.US_ASCII), hash(key), null, false);
        }

        void expire() {
            server.values().removeIf(expiry -> expiry != 0 && expiry <= now);
        }

        void read(int key) {
            if (set.containsKey(key)) {
                return;
            }
            if (!known.mayExist(hash(key))) {
                assertTrue(!server.containsKey(key), "key " + key + " is on the server, and was said to be absent");
                certainlyAbsent++;
                return;
            }
            Entry entry = entry(key);
            entry.isPresent = server.containsKey(key);
            if (entry.isPresent) {
                entry.expiry = server.get(key);
                known.found(entry);
            }
            set.put(key, entry);
        }

        void put(int key, long expiry) {
            Entry entry = set.computeIfAbsent(key, this::entry);
            entry.isPresent = true;
            entry.expiry = expiry;
            server.put(key, expiry);
        }

        void delete(int key) {
            if (!set.containsKey(key) && !known.mayExist(hash(key))) {
                assertTrue(!server.containsKey(key), "key " + key + " was not deleted");
                return;
            }
            Entry entry = set.computeIfAbsent(key, this::entry);
            entry.isPresent = false;
            entry.expiry = 0;
            server.remove(key);
        }

        void evict(int key) {
            Entry entry = set.remove(key);
            if (entry != null && entry.isPresent) {
                known.left(entry, now);
            } else if (entry != null) {
                known.gone(entry);
            }
        }

        void loadAnew() {
            known.beginAnew();
            set.values().forEach(entry -> entry.isNamedAlone = false);
            server.forEach((key, expiry) -> {
                if (!set.containsKey(key)) {
                    Entry entry = entry(key);
                    known.named(StoreKey.head(1, 1), entry.hash, false, expiry, now);
                }
            });
            known.finish();
        }
    }

    @Test
    void noKeyOnTheServerIsEverSaidToBeAbsentHoweverManyShareAHash() {
        Random random = Seed.random("KnownKeysTest");
        Set<String> used = new HashSet<>();
        for (int round = 0; round < 60; round++) {
            Worker worker = new Worker();
            boolean expires = round % 2 == 1;
            for (int step = 0; step < 5_000; step++) {
                int key = random.nextInt(KEYS);
                switch (random.nextInt(8)) {
                    case 0, 1 -> worker.read(key);
                    case 2 -> worker.put(key, expires && random.nextBoolean() ? worker.now + random.nextInt(200_000) : 0);
                    case 3 -> worker.delete(key);
                    case 4, 5, 6 -> worker.evict(key);
                    default -> {
                        worker.now += expires ? random.nextInt(1_000) : 0;
                        worker.expire();
                        if (random.nextInt(500) == 0) {
                            worker.loadAnew();
                            used.add("loads");
                        }
                    }
                }
                if (step % 50 == 0) {
                    for (int each = 0; each < KEYS; each++) {
                        boolean isThere = worker.server.containsKey(each) && !worker.set.containsKey(each);
                        assertTrue(!isThere || worker.known.mayExist(Worker.hash(each)), "key " + each + " in step " + step);
                    }
                }
            }
            if (worker.certainlyAbsent > 0) {
                used.add("absent");
            }
        }
        assertTrue(used.size() == 2, "the test tested nothing: " + used);
    }
}
