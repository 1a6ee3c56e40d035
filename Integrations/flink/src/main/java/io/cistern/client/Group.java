package io.cistern.client;

import java.util.Arrays;

/** One map: the entries of one key and namespace that the worker holds. Owned by the worker's thread. */
final class Group {
    /** Key group, state, key and namespace: what the keys of all its entries start with. */
    final byte[] prefix;
    final long hash;
    /** Every entry that exists is among {@link #first} and its successors. */
    boolean isComplete;
    int count;
    Entry first;
    Group chain;

    Group(byte[] prefix, long hash) {
        this.prefix = prefix;
        this.hash = hash;
    }

    boolean hasPrefix(byte[] bytes, int length, long prefixHash) {
        return hash == prefixHash && prefix.length == length && Arrays.equals(prefix, 0, length, bytes, 0, length);
    }

    void add(Entry entry) {
        entry.groupNext = first;
        if (first != null) {
            first.groupPrevious = entry;
        }
        first = entry;
        count++;
    }

    void remove(Entry entry) {
        if (entry.groupPrevious != null) {
            entry.groupPrevious.groupNext = entry.groupNext;
        } else {
            first = entry.groupNext;
        }
        if (entry.groupNext != null) {
            entry.groupNext.groupPrevious = entry.groupPrevious;
        }
        entry.groupNext = null;
        entry.groupPrevious = null;
        count--;
    }
}
