package io.cistern.flink;

import io.cistern.client.ClientSettings;
import io.cistern.client.Endpoint;
import io.cistern.flink.async.CisternAsyncKeyedStateBackend;

import org.apache.flink.configuration.IllegalConfigurationException;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.core.execution.SavepointFormatType;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.AbstractStateBackend;
import org.apache.flink.runtime.state.AsyncKeyedStateBackend;
import org.apache.flink.runtime.state.BackendBuildingException;
import org.apache.flink.runtime.state.ConfigurableStateBackend;
import org.apache.flink.runtime.state.DefaultOperatorStateBackendBuilder;
import org.apache.flink.runtime.state.OperatorStateBackend;

/**
 * Keeps keyed state in a Cistern state server. Checkpoints are snapshots of the server; the checkpoint storage holds a few KB for
 * each. Operator state stays in Flink.
 */
public final class CisternStateBackend extends AbstractStateBackend implements ConfigurableStateBackend {
    private static final long serialVersionUID = 1L;

    private String address;
    private ClientSettings settings;

    @Override
    public CisternStateBackend configure(ReadableConfig config, ClassLoader classLoader) {
        CisternStateBackend configured = new CisternStateBackend();
        configured.address = config.getOptional(CisternOptions.ADDRESS).orElse(address);
        if (configured.address == null) {
            throw new IllegalConfigurationException(CisternOptions.ADDRESS.key()
                    + " is not set: name the address of the cistern server, for example 10.0.0.5:7070 or unix:/run/cistern.sock");
        }
        try {
            Endpoint.parse(configured.address);
            configured.settings = CisternOptions.settings(config);
        } catch (IllegalArgumentException error) {
            throw new IllegalConfigurationException("state.backend.cistern: " + error.getMessage(), error);
        }
        configured.latencyTrackingConfigBuilder = latencyTrackingConfigBuilder.configure(config);
        configured.sizeTrackingConfigBuilder = sizeTrackingConfigBuilder.configure(config);
        return configured;
    }

    @Override
    public <K> AbstractKeyedStateBackend<K> createKeyedStateBackend(KeyedStateBackendParameters<K> parameters)
            throws BackendBuildingException {
        return build(parameters);
    }

    @Override
    public boolean supportsAsyncKeyedStateBackend() {
        return true;
    }

    @Override
    public <K> AsyncKeyedStateBackend<K> createAsyncKeyedStateBackend(KeyedStateBackendParameters<K> parameters) throws BackendBuildingException {
        return new CisternAsyncKeyedStateBackend<>(build(parameters), parameters.getEnv().getExecutionConfig());
    }

    private <K> CisternKeyedStateBackend<K> build(KeyedStateBackendParameters<K> parameters) throws BackendBuildingException {
        return new CisternKeyedStateBackendBuilder<>(address, settings, parameters,
                latencyTrackingConfigBuilder.setMetricGroup(parameters.getMetricGroup()).build(),
                sizeTrackingConfigBuilder.setMetricGroup(parameters.getMetricGroup()).build()).build();
    }

    @Override
    public OperatorStateBackend createOperatorStateBackend(OperatorStateBackendParameters parameters) throws Exception {
        return new DefaultOperatorStateBackendBuilder(parameters.getEnv().getUserCodeClassLoader().asClassLoader(),
                parameters.getEnv().getExecutionConfig(), true, parameters.getStateHandles(), parameters.getCancelStreamRegistry()).build();
    }

    /** Every snapshot stands for itself: the server counts who needs which file. */
    @Override
    public boolean supportsNoClaimRestoreMode() {
        return true;
    }

    @Override
    public boolean supportsSavepointFormat(SavepointFormatType formatType) {
        return true;
    }
}
