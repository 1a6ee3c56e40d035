package io.cistern.client;

import io.cistern.wire.Slice;

/** A store key and the bytes behind it, as a scan finds them. */
public record StoredEntry(byte[] key, Slice value) {}
