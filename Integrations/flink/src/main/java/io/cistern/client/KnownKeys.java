package io.cistern.client;

import java.util.HashSet;
import java.util.Set;

/**
 * Which keys, and which maps, may exist on the server without being in the working set. Owned by the worker's thread.
 *
 * <p>Complete from the start for a tree that starts empty; otherwise when the server has named all its keys. Until then, and when
 * the keys need more memory than they may have, it says of every key that it may exist.
 */
final class KnownKeys {
    private final long bytesMax;
    private KeyIndex keys = new KeyIndex();
    private KeyIndex maps = new KeyIndex();
    private boolean isComplete;
    private final Set<Integer> timerStates = new HashSet<>();

    /** @param startsEmpty the tree holds nothing */
    KnownKeys(long bytesMax, boolean startsEmpty) {
        this.bytesMax = bytesMax;
        isComplete = startsEmpty;
        if (bytesMax == 0) {
            giveUp();
        }
    }

    /** Nobody asks for keys of such a state one by one. */
    void ignore(int timerState) {
        timerStates.add(timerState);
    }

    boolean isWanted() {
        return keys != null;
    }

    void finish() {
        isComplete = true;
    }

    /** False is certain. */
    boolean mayExist(byte[] key, int length, long hash) {
        return !isComplete || keys == null || keys.contains(key, length, hash);
    }

    /** False is certain: the map has no entries outside of the working set. */
    boolean mapMayExist(byte[] prefix, int length, long hash) {
        return !isComplete || keys == null || maps.contains(prefix, length, hash);
    }

    /** An entry leaves the working set and stays on the server. */
    void left(Entry entry, long now) {
        if (keys == null) {
            return;
        }
        keys.insert(entry.key, entry.key.length, entry.hash, entry.expiry, now);
        if (entry.group != null) {
            // Entries of a map expire one by one, so the map itself has no expiry here.
            maps.insert(entry.group.prefix, entry.group.prefix.length, entry.group.hash, 0, now);
        }
        if (keys.byteCount() + maps.byteCount() > bytesMax) {
            giveUp();
        }
    }

    /** The server does not have the key, or the working set has it. */
    void gone(byte[] key, int length, long hash) {
        if (keys != null) {
            keys.remove(key, length, hash);
        }
    }

    /** All entries of the map are in the working set. */
    void mapGone(Group group) {
        if (keys != null) {
            maps.remove(group.prefix, group.prefix.length, group.hash);
        }
    }

    /** A key the server has named. */
    void named(byte[] key, boolean isMap, long expiry, long now) {
        if (keys == null || timerStates.contains(StoreKey.state(key))) {
            return;
        }
        // Event time is another clock than `now`: such a key is kept until it is known to be gone.
        keys.insert(key, key.length, Hash64.hash(key, key.length), Math.max(expiry, 0), now);
        if (isMap) {
            int prefix = StoreKey.prefixLength(key);
            maps.insert(key, prefix, Hash64.hash(key, prefix), 0, now);
        }
        if (keys.byteCount() + maps.byteCount() > bytesMax) {
            giveUp();
        }
    }

    private void giveUp() {
        keys = null;
        maps = null;
    }
}
