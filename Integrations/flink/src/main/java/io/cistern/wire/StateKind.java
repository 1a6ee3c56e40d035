package io.cistern.wire;

/** What a state is. Sent: never renumber. */
public enum StateKind {
    VALUE(1),
    LIST(2),
    MAP(3),
    REDUCING(4),
    AGGREGATING(5),
    TIMERS(6);

    public final int number;

    StateKind(int number) {
        this.number = number;
    }
}
