package io.cistern.test;

import java.util.Random;

/** Random numbers that can be had again: the seed is printed, and CISTERN_SEED repeats it. */
public final class Seed {
    private Seed() {}

    public static Random random(String test) {
        String given = System.getenv("CISTERN_SEED");
        long seed = given != null ? Long.parseLong(given) : System.nanoTime();
        System.out.println(test + ": CISTERN_SEED=" + seed);
        return new Random(seed);
    }
}
