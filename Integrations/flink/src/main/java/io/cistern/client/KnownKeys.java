package io.cistern.client;

import java.util.HashSet;
import java.util.Set;

/**
 * Which keys, and which maps, may exist on the server. Owned by the worker's thread.
 *
 * <p>Complete from the start for a tree that starts empty; otherwise when the server has named all its keys. Until then, and when
 * the keys need more memory than they may have, it says of every key that it may exist.
 *
 * <p>Once complete, every key that exists on the server and is not in the working set has been added. An entry stays named while it is
 * in the working set; {@link Entry#isNamedAlone} tells that it can be forgotten when it is gone.
 */
final class KnownKeys {
    /** Fewer names of keys that are gone are not worth loading all keys anew. */
    private static final int GARBAGE_MIN = 1 << 16;

    private final long bytesMax;
    private KeyFingerprints keys = new KeyFingerprints();
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

    /** Half of the names are of keys that are gone: the owner begins anew and loads what exists. Asked for each operation. */
    boolean isWorthLoading() {
        return keys != null && keys.garbage() > GARBAGE_MIN && keys.garbage() > keys.count() / 2 && isComplete;
    }

    /** Forgets everything; the owner resets {@link Entry#isNamedAlone} of all entries. */
    void beginAnew() {
        isComplete = false;
        keys = new KeyFingerprints();
        maps = new KeyIndex();
    }

    long byteCount() {
        return keys == null ? 0 : keys.byteCount() + maps.byteCount();
    }

    /** False is certain. */
    boolean mayExist(long hash) {
        return !isComplete || keys == null || keys.mayContain(hash);
    }

    /** False is certain: the map has no entries outside of the working set. */
    boolean mapMayExist(byte[] prefix, int length, long hash) {
        return !isComplete || keys == null || maps.contains(prefix, length, hash);
    }

    /** The server has said that the entry's key exists, which was not in the working set: then it has been added. */
    void found(Entry entry) {
        entry.isNamedAlone = isComplete && entry.expiry == 0;
    }

    /** An entry leaves the working set and stays on the server. */
    void left(Entry entry, long now) {
        if (keys == null) {
            return;
        }
        if (!entry.isNamedAlone || entry.expiry != 0) {
            keys.add(entry.hash, Math.max(entry.expiry, 0), now);
        }
        if (entry.group != null) {
            // Entries of a map expire one by one, so the map itself has no expiry here.
            maps.insert(entry.group.prefix, entry.group.prefix.length, entry.group.hash, 0, now);
        }
        limit();
    }

    /** An entry leaves the working set whose key is not on the server. */
    void gone(Entry entry) {
        if (keys == null) {
            return;
        }
        if (entry.isNamedAlone) {
            keys.remove(entry.hash);
        } else {
            keys.leave(entry.hash);
        }
    }

    /** All entries of the map are in the working set. */
    void mapGone(Group group) {
        if (keys != null) {
            maps.remove(group.prefix, group.prefix.length, group.hash);
        }
    }

    /** A key the server has named. */
    void named(byte[] key, long hash, boolean isMap, long expiry, long now) {
        if (keys == null || timerStates.contains(StoreKey.state(key))) {
            return;
        }
        // Event time is another clock than `now`: such a key is kept until it is known to be gone.
        keys.add(hash, Math.max(expiry, 0), now);
        if (isMap) {
            int prefix = StoreKey.prefixLength(key);
            maps.insert(key, prefix, Hash64.hash(key, prefix), 0, now);
        }
        limit();
    }

    private void limit() {
        if (byteCount() > bytesMax) {
            giveUp();
        }
    }

    private void giveUp() {
        keys = null;
        maps = null;
    }
}
