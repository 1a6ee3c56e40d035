package io.cistern.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.test.Seed;

import org.junit.jupiter.api.Test;

import java.util.HashMap;
import java.util.Map;
import java.util.Random;

final class KeyFingerprintsTest {
    private static long hash(long number) {
        byte[] key = Long.toString(number).getBytes(java.nio.charset.StandardCharsets.US_ASCII);
        return Hash64.hash(key, key.length);
    }

    @Test
    void aKeyThatWasAddedAndNotRemovedMayAlwaysBeThereAndOthersAreAbsent() {
        Random random = Seed.random("KeyFingerprintsTest");
        KeyFingerprints keys = new KeyFingerprints();
        Map<Long, Long> model = new HashMap<>();
        for (int step = 0; step < 300_000; step++) {
            long number = random.nextInt(50_000);
            if (model.remove(number) != null) {
                keys.remove(hash(number));
            } else {
                keys.add(hash(number), 0, step);
                model.put(number, 0L);
            }
            assertEquals(model.size(), keys.count());
        }
        for (long number = 0; number < 60_000; number++) {
            assertEquals(model.containsKey(number), keys.mayContain(hash(number)), "key " + number);
        }
        assertEquals(0, keys.garbage());
    }

    @Test
    void aSharedHashIsNotForgottenWithOneOfItsKeys() {
        KeyFingerprints keys = new KeyFingerprints();
        keys.add(42, 0, 0);
        keys.add(42, 0, 0);
        keys.remove(42);
        assertTrue(keys.mayContain(42));
        assertEquals(1, keys.garbage());
    }

    @Test
    void aSharedHashStaysUntilTheLastOfItsKeysHasExpired() {
        KeyFingerprints keys = new KeyFingerprints();
        long shared = hash(0);
        keys.add(shared, 100_000, 1);
        keys.add(shared, 900_000, 1);
        long forever = hash(1);
        keys.add(forever, 100_000, 1);
        keys.add(forever, 0, 1);
        for (int i = 2; i < 100_000; i++) {
            keys.add(hash(i), 0, 899_999);
        }
        assertTrue(keys.mayContain(shared));
        for (int i = 100_000; i < 200_000; i++) {
            keys.add(hash(i), 0, 900_000);
        }
        assertFalse(keys.mayContain(shared));
        assertTrue(keys.mayContain(forever));
    }

    @Test
    void expiredKeysMakeRoom() {
        KeyFingerprints keys = new KeyFingerprints();
        for (long i = 1; i < 500_000; i++) {
            keys.add(hash(i), i * 1_000 + 1_000_000, i * 1_000);
        }
        assertTrue(keys.count() < 20_000, "count " + keys.count());
        assertTrue(keys.mayContain(hash(499_999)));
    }

    @Test
    void aKeyTakesThirteenBytesOrNineteenWithATimeToLive() {
        for (long expiry : new long[] {0, 1_000_000}) {
            KeyFingerprints keys = new KeyFingerprints();
            int most = expiry == 0 ? 13 : 19;
            for (int i = 0; i < 1_000_000; i++) {
                keys.add(hash(i), expiry, 0);
                if (i > 20_000) {
                    assertTrue(keys.byteCount() <= (long) most * (i + 1), keys.byteCount() + " bytes for " + (i + 1) + " keys");
                }
            }
        }
    }
}
