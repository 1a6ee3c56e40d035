package io.cistern.flink.state;

import io.cistern.client.StateAccess;

import org.apache.flink.api.common.typeutils.TypeSerializer;

/**
 * What a state is, as it was asked for last: serializers may be exchanged for compatible ones.
 *
 * @param ttlMilliseconds after which the server may forget a value, counted from its last write; 0 for never
 */
public record StateSpec<N, V>(StateAccess access, TypeSerializer<N> namespaceSerializer, TypeSerializer<V> valueSerializer,
        V defaultValue, long ttlMilliseconds) {
    /**
     * How much longer than Flink's time to live the server keeps a value: Flink judges by the task manager's clock, and hides what is
     * over by itself. The server only cleans up.
     */
    public static final long TTL_SLACK_MILLISECONDS = 60_000;

    /** Expiry of what is written at this moment. */
    long expiry() {
        return ttlMilliseconds == 0 ? 0 : System.currentTimeMillis() + ttlMilliseconds;
    }
}
