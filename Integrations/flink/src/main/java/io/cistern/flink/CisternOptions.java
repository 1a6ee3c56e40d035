package io.cistern.flink;

import io.cistern.client.ClientSettings;

import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.ReadableConfig;

import java.time.Duration;

/** Options of the state backend, in Flink's configuration. */
public final class CisternOptions {
    public static final ConfigOption<String> ADDRESS = ConfigOptions.key("state.backend.cistern.address")
            .stringType().noDefaultValue()
            .withDescription("Where the state server listens: HOST:PORT, [IPV6]:PORT or unix:/PATH. Must be given. Task managers and the"
                    + " job manager reach it there.");

    public static final ConfigOption<MemorySize> CACHE = ConfigOptions.key("state.backend.cistern.cache.size")
            .memoryType().defaultValue(MemorySize.ofMebiBytes(64))
            .withDescription("Heap of each keyed operator for values read or written before, from 1 MiB. What is in it costs no request.");

    public static final ConfigOption<MemorySize> KEY_INDEX = ConfigOptions.key("state.backend.cistern.key-index.size")
            .memoryType().defaultValue(MemorySize.ofMebiBytes(128))
            .withDescription("Most heap of each keyed operator for knowing which keys exist, up to 2 GiB; 0 for none. 10 to 13 bytes a key, 16"
                    + " to 19 with a time to live. With it the read of an absent key costs no request. When the keys need more it is given up.");

    public static final ConfigOption<MemorySize> WRITE_BUFFER = ConfigOptions.key("state.backend.cistern.write-buffer.size")
            .memoryType().defaultValue(MemorySize.ofMebiBytes(1))
            .withDescription("Keys and values at which the write buffer of an operator is sent, 64 KiB to 4 MiB.");

    public static final ConfigOption<Integer> WRITE_BUFFER_ENTRIES = ConfigOptions.key("state.backend.cistern.write-buffer.entries")
            .intType().defaultValue(8192)
            .withDescription("Distinct keys at which the write buffer of an operator is sent, 1 to 65536.");

    public static final ConfigOption<Integer> BATCHES_IN_FLIGHT = ConfigOptions.key("state.backend.cistern.batches-in-flight")
            .intType().defaultValue(4)
            .withDescription("Batches of an operator that may wait for the server, 1 to 64. With more the operator waits.");

    public static final ConfigOption<Duration> REQUEST_TIMEOUT = ConfigOptions.key("state.backend.cistern.request-timeout")
            .durationType().defaultValue(Duration.ofSeconds(30))
            .withDescription("A request without an answer for so long is taken as a lost connection.");

    public static final ConfigOption<Duration> RETRY_FOR = ConfigOptions.key("state.backend.cistern.retry-for")
            .durationType().defaultValue(Duration.ofMinutes(1))
            .withDescription("For how long an operator waits for a server that is gone or refuses, before the task fails and Flink's restart"
                    + " strategy decides.");

    private CisternOptions() {}

    /** @throws IllegalArgumentException naming the option that is out of its bounds */
    static ClientSettings settings(ReadableConfig config) {
        return new ClientSettings((int) config.get(WRITE_BUFFER).getBytes(), config.get(WRITE_BUFFER_ENTRIES),
                config.get(BATCHES_IN_FLIGHT), config.get(CACHE).getBytes(), config.get(KEY_INDEX).getBytes(),
                config.get(REQUEST_TIMEOUT).toMillis(), config.get(RETRY_FOR).toMillis(), "flink");
    }
}
