package io.cistern.client;

import io.cistern.wire.StateKind;

/**
 * A registered state.
 *
 * @param id its number in the store
 */
public record StateAccess(int id, String name, StateKind kind) {}
