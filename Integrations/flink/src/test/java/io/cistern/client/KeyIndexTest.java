package io.cistern.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.test.Seed;

import org.junit.jupiter.api.Test;

import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Random;
import java.util.Set;

final class KeyIndexTest {
    private static long hash(byte[] key) {
        return Hash64.hash(key, key.length);
    }

    @Test
    void holdsExactlyWhatWasInsertedAndNotRemoved() {
        Random random = Seed.random("KeyIndexTest");
        KeyIndex index = new KeyIndex();
        Set<String> model = new HashSet<>();
        for (int step = 0; step < 200_000; step++) {
            String name = "key-" + random.nextInt(20_000) + "x".repeat(random.nextInt(3) * 40);
            byte[] key = name.getBytes(StandardCharsets.UTF_8);
            if (random.nextInt(3) == 0) {
                index.remove(key, key.length, hash(key));
                model.remove(name);
            } else {
                index.insert(key, key.length, hash(key), random.nextBoolean() ? 0 : Long.MAX_VALUE, step);
                model.add(name);
            }
            assertEquals(model.size(), index.count());
        }
        for (int i = 0; i < 20_000; i++) {
            for (int x = 0; x < 3; x++) {
                String name = "key-" + i + "x".repeat(x * 40);
                byte[] key = name.getBytes(StandardCharsets.UTF_8);
                assertEquals(model.contains(name), index.contains(key, key.length, hash(key)), name);
            }
        }
    }

    @Test
    void expiredKeysMakeRoom() {
        KeyIndex index = new KeyIndex();
        for (int i = 0; i < 100_000; i++) {
            byte[] key = ("key-" + i).getBytes(StandardCharsets.UTF_8);
            index.insert(key, key.length, hash(key), i + 100, i);
        }
        assertTrue(index.count() < 2_000, "count " + index.count());
        byte[] last = "key-99999".getBytes(StandardCharsets.UTF_8);
        assertTrue(index.contains(last, last.length, hash(last)));
        byte[] first = "key-0".getBytes(StandardCharsets.UTF_8);
        assertFalse(index.contains(first, first.length, hash(first)));
    }
}
