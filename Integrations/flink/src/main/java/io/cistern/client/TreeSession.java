package io.cistern.client;

import io.cistern.wire.Attach;
import io.cistern.wire.MultiGet;
import io.cistern.wire.Opcode;
import io.cistern.wire.RegisterState;
import io.cistern.wire.Scan;
import io.cistern.wire.Slice;
import io.cistern.wire.StateDescriptor;
import io.cistern.wire.StateKind;
import io.cistern.wire.WireException;
import io.cistern.wire.WireLimits;
import io.cistern.wire.WriteBatch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A worker attached to its tree: reads and writes of store keys, batched and cached, and snapshots.
 *
 * <p>Reads see all writes before them. Writes wait in the buffer, where the last one of a key wins and appends stay appends, until a
 * batch is full or a snapshot needs them. A read asks the server only when neither the working set nor {@link KnownKeys} knows.
 *
 * <p>Threads: one, the worker's; {@link SnapshotTicket#await} and {@link #close} may be called from any.
 */
public final class TreeSession implements AutoCloseable {
    /** A value from this size on has a batch for itself. */
    private static final int LARGE_VALUE_BYTES = 1 << 20;
    private static final int SCAN_ENTRIES = 4096;
    /** A map with more entries than one page of so many is not kept whole. */
    private static final int MAP_ENTRIES_KEPT = 1024;

    /** So that a request's keys, of 32 KiB at most, fit into a frame. */
    private static final int READ_KEYS_MAX = 1024;

    private record Sealed(Entry[] entries, int count) {}

    private final TreeLink link;
    private final ClientSettings settings;
    private final Attach.Reply attached;
    private final WorkingSet set;
    private final KnownKeys known;
    private final KeyIndexLoader loader;
    private final SessionFigures figures = new SessionFigures();
    /** By name, in milliseconds, as the server has them. */
    private final Map<String, Long> timesToLive = new HashMap<>();
    /** By id; nulls between. */
    private StateAccess[] states = new StateAccess[16];

    /** Entries of the next batch. */
    private Entry[] dirty = new Entry[256];
    private int dirtyCount;
    private int dirtyBytes;
    private final WriteBatch batch = new WriteBatch();
    private boolean isClosed;
    /** Keys that {@link #readWished} will ask for. */
    private List<byte[]> wished = new ArrayList<>();

    private TreeSession(TreeLink link, ClientSettings settings, Attach.Reply attached, boolean startsEmpty) {
        this.link = link;
        this.settings = settings;
        this.attached = attached;
        known = new KnownKeys(settings.keyIndexBytes(), startsEmpty);
        set = new WorkingSet(settings.cacheBytes(), this::evicted);
        for (StateDescriptor state : attached.states()) {
            know(new StateAccess(state.id(), state.name(), StateKind.of(state.kind())));
            timesToLive.put(state.name(), state.ttlMilliseconds());
        }
        loader = new KeyIndexLoader(link);
        if (startsEmpty || !known.isWanted()) {
            loader.stop();
        }
    }

    /**
     * Becomes the writer of a range.
     *
     * @throws CisternException of kind FENCED when the epoch is not the newest
     */
    public static TreeSession open(Endpoint endpoint, ClientSettings settings, Attach.Request request) throws CisternException {
        TreeLink link = new TreeLink(endpoint, settings);
        try {
            Attach.Reply reply = link.attach(request);
            return new TreeSession(link, settings, reply, request.restoring() && request.restore().isEmpty());
        } catch (CisternException error) {
            link.close();
            throw error;
        }
    }

    /** The state of a name; null when the store had none when the worker attached, and none was registered since. */
    public StateAccess state(String name) {
        for (StateAccess state : states) {
            if (state != null && state.name().equals(name)) {
                return state;
            }
        }
        return null;
    }

    /** Time the server took to build the tree. */
    public long restoreMicroseconds() {
        return attached.restoreMicroseconds();
    }

    /** Memory of the known keys. */
    public long keyIndexBytes() {
        return known.byteCount();
    }

    public SessionFigures figures() {
        return figures;
    }

    /** Registers a state without a word about times to live: what is stored keeps the expiries it has. */
    public StateAccess register(String name, StateKind kind) throws CisternException {
        return register(new StateDescriptor(0, name, kind.number, 0, 0), kind);
    }

    /**
     * Registers a state, or finds it again by its name, and gives it a time to live, which holds for what is stored too.
     *
     * @param ttlMilliseconds after which the server forgets entries; 0 for never
     */
    public StateAccess register(String name, StateKind kind, long ttlMilliseconds) throws CisternException {
        return register(new StateDescriptor(0, name, kind.number, ttlMilliseconds, StateDescriptor.CLOCK_PROCESSING), kind);
    }

    private StateAccess register(StateDescriptor asked, StateKind kind) throws CisternException {
        if (asked.ttlClock() == StateDescriptor.CLOCK_PROCESSING) {
            Long before = timesToLive.put(asked.name(), asked.ttlMilliseconds());
            if (before != null && before != asked.ttlMilliseconds()) {
                expiriesMove(asked.name());
            }
        }
        byte[] reply = link.call("register state " + asked.name(), Opcode.REGISTER_STATE, RegisterState.encode(asked));
        try {
            return know(new StateAccess(RegisterState.decodeReply(reply).id(), asked.name(), kind));
        } catch (WireException error) {
            throw damaged("the answer to a registration", error);
        }
    }

    /** The server will give stored entries other expiries: those that the worker knows say nothing any more. */
    private void expiriesMove(String name) throws CisternException {
        flush();
        link.awaitIdle("register state " + name);
        takeRetired();
        int id = state(name).id();
        set.forEach(entry -> {
            if (StoreKey.state(entry.key) == id) {
                entry.expiry = 0;
            }
        });
        loadKeysAnew();
    }

    private void loadKeysAnew() {
        if (known.isWanted()) {
            known.beginAnew();
            set.forEach(entry -> entry.isNamedAlone = false);
            loader.restart();
            figures.keyLoads++;
        }
    }

    private StateAccess know(StateAccess state) {
        if (state.kind() == StateKind.TIMERS) {
            known.ignore(state.id());
        }
        if (state.id() >= states.length) {
            states = Arrays.copyOf(states, Math.max(state.id() + 1, states.length * 2));
        }
        states[state.id()] = state;
        return state;
    }

    // Reading.

    /** The value of a key; null when it is absent. The bytes are the session's: they are read before the next call. */
    public Slice get(StateAccess state, byte[] key, int length) throws CisternException {
        takeArrivals();
        figures.reads++;
        long hash = Hash64.hash(key, length);
        Entry entry = set.find(key, length, hash);
        if (entry != null) {
            entry.isVisited = true;
            if (!entry.isBaseKnown) {
                readBase(entry);
            }
        } else if (!known.mayExist(hash)) {
            figures.absentKnown++;
            return null;
        } else {
            entry = fetch(state, key, length, hash);
        }
        return entry != null && entry.isPresent ? new Slice(entry.value, 0, entry.size) : null;
    }

    private Entry fetch(StateAccess state, byte[] key, int length, long hash) throws CisternException {
        Group group = null;
        if (state.kind() == StateKind.MAP) {
            int prefix = StoreKey.prefixLength(key);
            group = group(key, prefix);
            if (group.isComplete) {
                figures.absentKnown++;
                return null;
            }
        }
        Entry entry = new Entry(Arrays.copyOf(key, length), hash, group, false);
        keep(state, entry, ask(entry.key), 0);
        set.evict();
        return entry;
    }

    /** Whether {@link #get} would ask nobody. */
    public boolean isKnown(StateAccess state, byte[] key, int length) throws CisternException {
        takeArrivals();
        long hash = Hash64.hash(key, length);
        Entry entry = set.find(key, length, hash);
        if (entry != null) {
            return entry.isBaseKnown;
        }
        if (!known.mayExist(hash)) {
            return true;
        }
        return state.kind() == StateKind.MAP && isMapKnown(key, StoreKey.prefixLength(key));
    }

    /** Whether {@link #map} would ask nobody. */
    public boolean isMapKnown(byte[] prefix, int length) {
        long hash = Hash64.hash(prefix, length);
        Group group = set.findGroup(prefix, length, hash);
        return group == null ? !known.mapMayExist(prefix, length, hash) : group.isComplete;
    }

    /** Has a key that is not known read by {@link #readWished}, which asks for many at once. */
    public void wish(StateAccess state, byte[] key, int length) throws CisternException {
        // A list of which only additions are known is read behind their acknowledgement, by itself.
        if (!isKnown(state, key, length) && set.find(key, length, Hash64.hash(key, length)) == null) {
            wished.add(Arrays.copyOf(key, length));
        }
    }

    /**
     * Asks for what was wished for. Until the read is finished nobody may write to its keys.
     *
     * @param onArrival is run on another thread, or in here, when {@link #finish} need not wait
     * @return null when nothing was wished for
     */
    public PendingRead readWished(Runnable onArrival) throws CisternException {
        if (wished.isEmpty()) {
            return null;
        }
        PendingRead read = new PendingRead(wished, onArrival);
        wished = new ArrayList<>();
        figures.readRequests++;
        link.stream(Opcode.MULTI_GET, MultiGet.encode(link.epoch(), 0, read.keys), read);
        return read;
    }

    /**
     * Takes a read's answer into the working set; asks again when there is none, or none yet. What does not stay there is read again when it
     * is asked for.
     */
    public void finish(PendingRead read) throws CisternException {
        if (read.answer == null) {
            fetch(read.keys);
        } else {
            take(read.keys, read.answer);
        }
    }

    /** Gives the connection up when a read waits for longer than a request may. */
    public void lookAt(PendingRead read) {
        if (read.ageNanoseconds() > settings.requestTimeoutMilliseconds() * 1_000_000) {
            link.giveUpConnection();
        }
    }

    private void fetch(List<byte[]> keys) throws CisternException {
        for (int from = 0; from < keys.size(); from += READ_KEYS_MAX) {
            fetchPart(keys.subList(from, Math.min(keys.size(), from + READ_KEYS_MAX)));
        }
    }

    private void fetchPart(List<byte[]> keys) throws CisternException {
        figures.readRequests++;
        byte[] answer = link.callWithin("read " + keys.size() + " keys", Opcode.MULTI_GET, MultiGet.encode(link.epoch(), 0, keys));
        if (answer != null) {
            take(keys, answer);
        } else if (keys.size() > 1) {
            // Together they are more than a frame has room for; a single one always fits.
            fetchPart(keys.subList(0, keys.size() / 2));
            fetchPart(keys.subList(keys.size() / 2, keys.size()));
        }
    }

    private void take(List<byte[]> keys, byte[] answer) throws CisternException {
        try {
            MultiGet.Reply reply = MultiGet.Reply.decode(answer);
            if (reply.count() != keys.size()) {
                throw new WireException(reply.count() + " values for " + keys.size() + " keys");
            }
            for (int i = 0; i < keys.size(); i++) {
                byte[] key = keys.get(i);
                long hash = Hash64.hash(key, key.length);
                // One that is there already was asked for twice.
                if (set.find(key, key.length, hash) == null) {
                    StateAccess state = states[StoreKey.state(key)];
                    Group group = state.kind() == StateKind.MAP ? group(key, StoreKey.prefixLength(key)) : null;
                    keep(state, new Entry(key, hash, group, false), reply, i);
                }
            }
        } catch (WireException error) {
            throw damaged("the answer to a read", error);
        }
    }

    /** Takes what the server said of a key into the working set. */
    private void keep(StateAccess state, Entry entry, MultiGet.Reply reply, int index) throws CisternException {
        entry.isBaseKnown = true;
        if (reply.isPresent(index)) {
            entry.isPresent = true;
            entry.expiry = reply.expiry(index);
            load(state, entry, reply.value(index));
            known.found(entry);
        }
        set.add(entry);
    }

    /** The entry holds appended bytes only: reads what they stand behind. */
    private void readBase(Entry entry) throws CisternException {
        // The server's answer may or may not contain the appends in flight; behind their acknowledgement it does.
        link.awaitIdle("read a list");
        takeRetired();
        int before = entry.byteCount();
        byte[] operands = Arrays.copyOf(entry.value, entry.size);
        MultiGet.Reply reply = ask(entry.key);
        entry.isBaseKnown = true;
        entry.clear();
        if (reply.isPresent(0)) {
            entry.isPresent = true;
            Slice base = reply.value(0);
            entry.set(base.bytes(), base.offset(), base.length());
        }
        if (operands.length > 0) {
            entry.isPresent = true;
            entry.pendingFrom = entry.size;
            entry.extend(operands, 0, operands.length);
        }
        set.resized(before, entry);
    }

    private void load(StateAccess state, Entry entry, Slice stored) throws CisternException {
        Slice value = state.kind() == StateKind.LIST ? stored : ValueEnvelope.open(stored);
        entry.set(value.bytes(), value.offset(), value.length());
    }

    private MultiGet.Reply ask(byte[] key) throws CisternException {
        figures.readRequests++;
        byte[] request = MultiGet.encode(link.epoch(), 0, List.of(key));
        try {
            MultiGet.Reply reply = MultiGet.Reply.decode(link.call("read", Opcode.MULTI_GET, request));
            if (reply.count() != 1) {
                throw new WireException(reply.count() + " values for 1 key");
            }
            return reply;
        } catch (WireException error) {
            throw damaged("the answer to a read", error);
        }
    }

    // Writing.

    /** @param expiry in milliseconds since 1970, 0 for never */
    public void put(StateAccess state, byte[] key, int length, byte[] value, int offset, int size, long expiry)
            throws CisternException {
        if (size > WireLimits.VALUE_BYTES_MAX - 1) {
            throw tooLarge(state, size);
        }
        Entry entry = entryToWrite(state, key, length);
        int before = entry.byteCount();
        dirtyBytes -= entry.pendingBytes();
        entry.set(value, offset, size);
        entry.isBaseKnown = true;
        entry.isPresent = true;
        entry.expiry = expiry;
        written(entry, WriteBatch.PUT, before);
    }

    public void delete(StateAccess state, byte[] key, int length) throws CisternException {
        takeArrivals();
        figures.writes++;
        long hash = Hash64.hash(key, length);
        Entry entry = set.find(key, length, hash);
        if (entry == null) {
            if (state.kind() != StateKind.TIMERS && !known.mayExist(hash)) {
                figures.writesAbsorbed++;
                return;
            }
            entry = add(state, key, length, hash);
        } else if (entry.isBaseKnown && !entry.isPresent && entry.pending == Entry.NOTHING) {
            figures.writesAbsorbed++;
            return;
        }
        int before = entry.byteCount();
        dirtyBytes -= entry.pendingBytes();
        entry.clear();
        entry.isBaseKnown = true;
        entry.isPresent = false;
        entry.expiry = 0;
        written(entry, WriteBatch.DELETE, before);
    }

    /** Adds bytes behind the value that is there; the state is a list. Does not read. */
    public void append(StateAccess state, byte[] key, int length, byte[] value, int offset, int size, long expiry)
            throws CisternException {
        if (size > WireLimits.VALUE_BYTES_MAX) {
            throw tooLarge(state, size);
        }
        Entry entry = entryToWrite(state, key, length);
        int before = entry.byteCount();
        dirtyBytes -= entry.pendingBytes();
        byte kind = entry.pending;
        if (entry.isBaseKnown && !entry.isPresent) {
            entry.clear();
            kind = WriteBatch.PUT;
        } else if (entry.pending == Entry.NOTHING) {
            entry.pendingFrom = entry.size;
            kind = WriteBatch.APPEND;
        }
        entry.extend(value, offset, size);
        entry.isPresent = true;
        entry.expiry = expiry;
        written(entry, kind, before);
    }

    /** The entry to change; of a key that may exist and was not read, one whose base is not known. */
    private Entry entryToWrite(StateAccess state, byte[] key, int length) throws CisternException {
        takeArrivals();
        figures.writes++;
        long hash = Hash64.hash(key, length);
        Entry entry = set.find(key, length, hash);
        if (entry == null) {
            entry = add(state, key, length, hash);
        }
        return entry;
    }

    private Entry add(StateAccess state, byte[] key, int length, long hash) throws CisternException {
        if (length > WireLimits.KEY_BYTES_MAX) {
            throw new CisternException(CisternException.Kind.REFUSED, "key, namespace and user key of state " + state.name()
                    + " make a store key of " + length + " bytes; the limit is " + WireLimits.KEY_BYTES_MAX);
        }
        Group group = state.kind() == StateKind.MAP ? group(key, StoreKey.prefixLength(key)) : null;
        boolean isTimer = state.kind() == StateKind.TIMERS;
        Entry entry = new Entry(Arrays.copyOf(key, length), hash, group, isTimer);
        if (!isTimer) {
            entry.isBaseKnown = !known.mayExist(hash) || (group != null && group.isComplete);
        }
        set.add(entry);
        return entry;
    }

    private Group group(byte[] key, int prefix) {
        long hash = Hash64.hash(key, prefix);
        Group group = set.findGroup(key, prefix, hash);
        if (group == null) {
            group = set.addGroup(key, prefix, hash);
            group.isComplete = !known.mapMayExist(key, prefix, hash);
        }
        return group;
    }

    private void written(Entry entry, byte kind, int bytesBefore) throws CisternException {
        entry.isVisited = true;
        if (entry.pending == Entry.NOTHING) {
            entry.pins++;
            if (dirtyCount == dirty.length) {
                dirty = Arrays.copyOf(dirty, dirtyCount * 2);
            }
            dirty[dirtyCount++] = entry;
        } else {
            figures.writesAbsorbed++;
        }
        entry.pending = kind;
        dirtyBytes += entry.pendingBytes();
        set.resized(bytesBefore, entry);
        if (dirtyCount >= settings.writeBufferEntries() || dirtyBytes >= settings.writeBufferBytes()) {
            flush();
        }
        set.evict();
    }

    /** Sends the write buffer, behind the batches under way. Waits only when too many are. */
    public void flush() throws CisternException {
        if (dirtyCount == 0) {
            return;
        }
        link.awaitFewerThan(settings.batchesInFlight());
        Arrays.sort(dirty, 0, dirtyCount, Entry::compare);
        int from = 0;
        for (int i = 0; i < dirtyCount; i++) {
            boolean isLarge = dirty[i].pendingBytes() > LARGE_VALUE_BYTES;
            boolean isFull = i > from && batch.contentBytes() + dirty[i].pendingBytes() > ClientSettings.WRITE_BUFFER_BYTES_MAX;
            if (i > from && (isLarge || isFull)) {
                submit(from, i);
                from = i;
            }
            addToBatch(dirty[i]);
            if (isLarge) {
                submit(from, i + 1);
                from = i + 1;
            }
        }
        if (from < dirtyCount) {
            submit(from, dirtyCount);
        }
        Arrays.fill(dirty, 0, dirtyCount, null);
        dirtyCount = 0;
        dirtyBytes = 0;
        takeRetired();
    }

    private void addToBatch(Entry entry) {
        batch.add(entry.pending, entry.key, entry.expiry);
        StateKind kind = states[StoreKey.state(entry.key)].kind();
        switch (entry.pending) {
            case WriteBatch.PUT -> {
                if (kind == StateKind.LIST || kind == StateKind.TIMERS) {
                    batch.value(entry.value, 0, entry.size);
                } else {
                    ValueEnvelope.seal(entry.value, entry.size, batch);
                }
            }
            case WriteBatch.APPEND -> batch.value(entry.value, entry.pendingFrom, entry.size - entry.pendingFrom);
            default -> { }
        }
        entry.pending = Entry.NOTHING;
        if (!entry.isBaseKnown) {
            int before = entry.byteCount();
            entry.clear();
            set.resized(before, entry);
        }
    }

    private void submit(int from, int to) throws CisternException {
        figures.batches++;
        figures.entriesSent += to - from;
        byte[] body = batch.encode(link.epoch(), link.nextSequence(), 0);
        figures.bytesSent += body.length;
        batch.clear();
        link.submit(body, new Sealed(Arrays.copyOfRange(dirty, from, to), to - from));
    }

    /** Asks for a snapshot of everything written so far. */
    public SnapshotTicket snapshot(long checkpoint) throws CisternException {
        flush();
        return link.snapshot(checkpoint);
    }

    // Maps.

    /** Calls for every entry of a map: store keys that start with the prefix, in no particular order. */
    public List<StoredEntry> map(byte[] prefix, int length) throws CisternException {
        takeArrivals();
        figures.mapReads++;
        long hash = Hash64.hash(prefix, length);
        Group group = set.findGroup(prefix, length, hash);
        if (group == null ? !known.mapMayExist(prefix, length, hash) : group.isComplete) {
            return group == null ? List.of() : present(group);
        }
        return readMap(Arrays.copyOf(prefix, length));
    }

    private static List<StoredEntry> present(Group group) {
        List<StoredEntry> result = new ArrayList<>(group.count);
        for (Entry entry = group.first; entry != null; entry = entry.groupNext) {
            entry.isVisited = true;
            if (entry.isPresent) {
                result.add(stored(entry));
            }
        }
        return result;
    }

    private static StoredEntry stored(Entry entry) {
        return new StoredEntry(entry.key, new Slice(Arrays.copyOf(entry.value, entry.size), 0, entry.size));
    }

    /** The server's entries with the working set's laid over them; a small map is kept whole. */
    private List<StoredEntry> readMap(byte[] prefix) throws CisternException {
        StateAccess state = states[StoreKey.state(prefix)];
        Group group = group(prefix, prefix.length);
        List<StoredEntry> result = new ArrayList<>();
        byte[] start = prefix;
        byte[] end = StoreKey.endOfPrefix(prefix);
        boolean isWhole = true;
        while (true) {
            Scan.Page page = page(start, end, MAP_ENTRIES_KEPT);
            boolean isLast = page.next().length == 0;
            isWhole &= isLast;
            for (int i = 0; i < page.count(); i++) {
                byte[] key = page.key(i).copy();
                Entry entry = set.find(key, key.length, Hash64.hash(key, key.length));
                if (entry != null) {
                    // Its own turn comes below.
                    continue;
                }
                Slice value = ValueEnvelope.open(page.value(i));
                if (isWhole) {
                    entry = new Entry(key, Hash64.hash(key, key.length), group, false);
                    entry.isBaseKnown = true;
                    entry.isPresent = true;
                    entry.expiry = page.expiry(i);
                    load(state, entry, page.value(i));
                    known.found(entry);
                    set.add(entry);
                } else {
                    result.add(new StoredEntry(key, value));
                }
            }
            if (isLast) {
                break;
            }
            start = page.next();
        }
        for (Entry entry = group.first; entry != null; entry = entry.groupNext) {
            if (entry.isPresent) {
                result.add(stored(entry));
            }
        }
        if (isWhole) {
            group.isComplete = true;
            known.mapGone(group);
        }
        if (group.count == 0) {
            set.removeGroup(group);
        }
        set.evict();
        return result;
    }

    // Whole states.

    /**
     * All entries of a state in one key group, in the order of keys. Sends all writes first: for enumeration and export, not for each
     * record. Between two calls of {@link Cursor#next} the session may be written to.
     */
    public Cursor cursor(StateAccess state, int keyGroup) throws CisternException {
        flush();
        link.awaitIdle("scan state " + state.name());
        takeRetired();
        return new Cursor(state, StoreKey.head(keyGroup, state.id()));
    }

    /** Walks over entries page by page. */
    public final class Cursor {
        private final boolean isWrapped;
        private final byte[] end;
        private Scan.Page page;
        private int index;

        private Cursor(StateAccess state, byte[] start) throws CisternException {
            isWrapped = state.kind() != StateKind.LIST && state.kind() != StateKind.TIMERS;
            end = StoreKey.endOfPrefix(start);
            page = page(start, end, SCAN_ENTRIES);
        }

        /** The next entry; null behind the last. */
        public StoredEntry next() throws CisternException {
            while (index == page.count()) {
                if (page.next().length == 0) {
                    return null;
                }
                page = page(page.next(), end, SCAN_ENTRIES);
                index = 0;
            }
            Slice value = page.value(index);
            byte[] key = page.key(index++).copy();
            return new StoredEntry(key, isWrapped ? ValueEnvelope.open(value) : value);
        }
    }

    private Scan.Page page(byte[] start, byte[] end, int entries) throws CisternException {
        figures.scanRequests++;
        byte[] request = Scan.encode(link.epoch(), 0, start, end, entries, 0, false);
        try {
            return Scan.Page.decode(link.call("scan", Opcode.SCAN, request));
        } catch (WireException error) {
            throw damaged("a page of a scan", error);
        }
    }

    // What arrives.

    private void takeArrivals() throws CisternException {
        List<Object> acknowledged = link.poll();
        if (!acknowledged.isEmpty()) {
            retire(acknowledged);
        }
        if (!loader.isDone()) {
            advanceLoader();
        } else if (known.isWorthLoading()) {
            loadKeysAnew();
        }
    }

    private void takeRetired() throws CisternException {
        retire(link.takeRetired());
    }

    private void advanceLoader() throws CisternException {
        loader.advance(page -> {
            long now = System.currentTimeMillis();
            for (int i = 0; i < page.count(); i++) {
                byte[] key = page.key(i).copy();
                long hash = Hash64.hash(key, key.length);
                Entry entry = set.find(key, key.length, hash);
                // What the working set has is newer.
                if (entry == null || !entry.isBaseKnown) {
                    int id = StoreKey.state(key);
                    boolean isMap = id < states.length && states[id] != null && states[id].kind() == StateKind.MAP;
                    known.named(key, hash, isMap, page.expiry(i), now);
                }
            }
        });
        if (!known.isWanted()) {
            loader.stop();
        } else if (loader.isDone()) {
            known.finish();
        }
    }

    private void retire(List<Object> tags) {
        for (Object tag : tags) {
            Sealed sealed = (Sealed) tag;
            for (int i = 0; i < sealed.count(); i++) {
                Entry entry = sealed.entries()[i];
                entry.pins--;
                if (entry.pins == 0 && (entry.isTransient || !entry.isBaseKnown)) {
                    forget(entry);
                }
            }
        }
        if (!tags.isEmpty()) {
            set.evict();
        }
    }

    /** Nothing is known of the key any more that the server does not know. */
    private void forget(Entry entry) {
        if (!entry.isTransient) {
            known.left(entry, System.currentTimeMillis());
        }
        set.remove(entry);
    }

    private void evicted(Entry entry) {
        figures.evictions++;
        Group group = entry.group;
        if (entry.isPresent) {
            if (group != null) {
                group.isComplete = false;
            }
            known.left(entry, entry.expiry == 0 ? 0 : System.currentTimeMillis());
        } else {
            known.gone(entry);
        }
        if (group != null && group.count == 1) {
            if (group.isComplete) {
                known.mapGone(group);
            }
            set.removeGroup(group);
        }
    }

    // The end.

    /** Ends the session at once; may be called from another thread, whose calls end with an exception. What waits is not sent. */
    @Override
    public void close() {
        link.close();
    }

    /** Ends the session and lets the server forget the tree: a worker that comes back restores a snapshot. */
    public void discard() {
        if (!isClosed) {
            isClosed = true;
            link.discard();
        }
    }

    private static CisternException tooLarge(StateAccess state, int size) {
        return new CisternException(CisternException.Kind.REFUSED, "a value of " + size + " bytes for state " + state.name()
                + "; the limit is " + WireLimits.VALUE_BYTES_MAX + ": split it, for example into a map state");
    }

    private static CisternException damaged(String what, IOException error) {
        return new CisternException(CisternException.Kind.REFUSED, what + " cannot be read: " + error.getMessage());
    }
}
