package io.cistern.client;

import java.util.Arrays;
import java.util.function.Consumer;

/**
 * The entries a worker holds: values read or written before, and writes under way, in one table, so that a read looks once.
 * Bounded in bytes; entries with writes under way stay, so it may be larger for a moment. Owned by the worker's thread.
 *
 * <p>Eviction is SIEVE (Zhang et al., NSDI '24): a queue in order of insertion, a mark set by each hit, and a hand that moves from
 * the oldest to the newest, clearing marks and evicting the first entry without one. A hit moves nothing.
 */
final class WorkingSet {
    private static final int GROUP_OVERHEAD_BYTES = 80;
    /** Entries looked at by one call: marked ones and those under way must not make one write slow. */
    private static final int LOOKS_MAX = 256;

    private final long capacityBytes;
    private final Consumer<Entry> onEvict;
    private Entry[] slots = new Entry[1024];
    private Group[] groupSlots = new Group[256];
    private int count;
    private int groupCount;
    private long byteCount;
    private Entry newest;
    private Entry oldest;
    private Entry hand;

    /** @param onEvict is told of an entry that goes for want of room, before it is unlinked */
    WorkingSet(long capacityBytes, Consumer<Entry> onEvict) {
        this.capacityBytes = capacityBytes;
        this.onEvict = onEvict;
    }

    int count() {
        return count;
    }

    long byteCount() {
        return byteCount;
    }

    Entry find(byte[] key, int length, long hash) {
        Entry entry = slots[(int) hash & slots.length - 1];
        while (entry != null && !entry.hasKey(key, length, hash)) {
            entry = entry.chain;
        }
        return entry;
    }

    /** The entry is new. Evicts others when there is no room. */
    void add(Entry entry) {
        if (count >= slots.length) {
            grow();
        }
        int slot = (int) entry.hash & slots.length - 1;
        entry.chain = slots[slot];
        slots[slot] = entry;
        entry.older = newest;
        if (newest != null) {
            newest.newer = entry;
        } else {
            oldest = entry;
        }
        newest = entry;
        count++;
        byteCount += entry.byteCount();
        if (entry.group != null) {
            entry.group.add(entry);
        }
    }

    /** The entry's value has another size than before. */
    void resized(int bytesBefore, Entry entry) {
        byteCount += entry.byteCount() - bytesBefore;
    }

    void remove(Entry entry) {
        unlink(entry);
        byteCount -= entry.byteCount();
    }

    void forEach(Consumer<Entry> visitor) {
        for (Entry entry = oldest; entry != null; entry = entry.newer) {
            visitor.accept(entry);
        }
    }

    /** Makes room. */
    void evict() {
        for (int looks = LOOKS_MAX; byteCount > capacityBytes && count > 0 && looks > 0; looks--) {
            Entry candidate = hand != null ? hand : oldest;
            hand = candidate.newer;
            if (candidate.pins > 0) {
                continue;
            }
            if (candidate.isVisited) {
                candidate.isVisited = false;
            } else {
                onEvict.accept(candidate);
                remove(candidate);
            }
        }
    }

    private void unlink(Entry entry) {
        int slot = (int) entry.hash & slots.length - 1;
        if (slots[slot] == entry) {
            slots[slot] = entry.chain;
        } else {
            Entry before = slots[slot];
            while (before.chain != entry) {
                before = before.chain;
            }
            before.chain = entry.chain;
        }
        if (entry.newer != null) {
            entry.newer.older = entry.older;
        } else {
            newest = entry.older;
        }
        if (entry.older != null) {
            entry.older.newer = entry.newer;
        } else {
            oldest = entry.newer;
        }
        if (hand == entry) {
            hand = entry.newer;
        }
        count--;
        if (entry.group != null) {
            entry.group.remove(entry);
        }
    }

    private void grow() {
        Entry[] old = slots;
        slots = new Entry[old.length * 2];
        for (Entry head : old) {
            Entry entry = head;
            while (entry != null) {
                Entry next = entry.chain;
                int slot = (int) entry.hash & slots.length - 1;
                entry.chain = slots[slot];
                slots[slot] = entry;
                entry = next;
            }
        }
    }

    // Groups.

    Group findGroup(byte[] prefix, int length, long hash) {
        Group group = groupSlots[(int) hash & groupSlots.length - 1];
        while (group != null && !group.hasPrefix(prefix, length, hash)) {
            group = group.chain;
        }
        return group;
    }

    Group addGroup(byte[] prefix, int length, long hash) {
        if (groupCount >= groupSlots.length) {
            growGroups();
        }
        Group group = new Group(Arrays.copyOf(prefix, length), hash);
        int slot = (int) hash & groupSlots.length - 1;
        group.chain = groupSlots[slot];
        groupSlots[slot] = group;
        groupCount++;
        byteCount += GROUP_OVERHEAD_BYTES + length;
        return group;
    }

    void removeGroup(Group group) {
        int slot = (int) group.hash & groupSlots.length - 1;
        if (groupSlots[slot] == group) {
            groupSlots[slot] = group.chain;
        } else {
            Group before = groupSlots[slot];
            while (before.chain != group) {
                before = before.chain;
            }
            before.chain = group.chain;
        }
        groupCount--;
        byteCount -= GROUP_OVERHEAD_BYTES + group.prefix.length;
    }

    private void growGroups() {
        Group[] old = groupSlots;
        groupSlots = new Group[old.length * 2];
        for (Group head : old) {
            Group group = head;
            while (group != null) {
                Group next = group.chain;
                int slot = (int) group.hash & groupSlots.length - 1;
                group.chain = groupSlots[slot];
                groupSlots[slot] = group;
                group = next;
            }
        }
    }
}
