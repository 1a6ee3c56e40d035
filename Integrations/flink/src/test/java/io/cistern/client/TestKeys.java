package io.cistern.client;

import io.cistern.wire.Slice;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** Store keys for tests: short parts only, so that every size is one byte. */
final class TestKeys {
    private TestKeys() {}

    static byte[] key(int group, StateAccess state, String key, String userKey) {
        byte[] name = key.getBytes(StandardCharsets.UTF_8);
        byte[] user = userKey.getBytes(StandardCharsets.UTF_8);
        byte[] bytes = Arrays.copyOf(StoreKey.head(group, state.id()), 6 + name.length + user.length);
        bytes[4] = (byte) name.length;
        System.arraycopy(name, 0, bytes, 5, name.length);
        bytes[5 + name.length] = 0;
        System.arraycopy(user, 0, bytes, 6 + name.length, user.length);
        return bytes;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(Slice slice) {
        return slice == null ? null : new String(slice.bytes(), slice.offset(), slice.length(), StandardCharsets.UTF_8);
    }
}
