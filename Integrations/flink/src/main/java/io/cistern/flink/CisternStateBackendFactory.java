package io.cistern.flink;

import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.runtime.state.StateBackendFactory;

/** What {@code state.backend.type} names. */
public final class CisternStateBackendFactory implements StateBackendFactory<CisternStateBackend> {
    @Override
    public CisternStateBackend createFromConfig(ReadableConfig config, ClassLoader classLoader) {
        return new CisternStateBackend().configure(config, classLoader);
    }
}
