package io.cistern.flink;

import io.cistern.client.StateAccess;

import org.apache.flink.runtime.state.RegisteredStateMetaInfoBase;

/**
 * A state as the backend knows it.
 *
 * @param access null for one that was restored and that the job has not asked for: it stays on the server as it is
 */
record RegisteredState(RegisteredStateMetaInfoBase meta, StateAccess access) {}
