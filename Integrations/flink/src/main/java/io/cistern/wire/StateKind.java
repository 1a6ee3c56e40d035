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

    /** A kind that is not known is one of a newer server; nobody can have registered it from here. */
    public static StateKind of(int number) {
        return number >= 1 && number <= values().length ? values()[number - 1] : VALUE;
    }
}
