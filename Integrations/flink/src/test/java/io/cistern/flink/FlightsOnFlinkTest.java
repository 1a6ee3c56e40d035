package io.cistern.flink;

import io.cistern.flink.examples.Demo;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Path;

/** Real processes: a Flink cluster, its task manager killed, then the server; every row of both jobs is compared with sqlite3's. */
final class FlightsOnFlinkTest {
    private static final int RECORDS_PER_SECOND = 25_000;

    @Test
    void aKilledTaskManagerAndAKilledServerLeaveTheRightTables(@TempDir Path work) throws Exception {
        Demo.run(Path.of(System.getenv("CISTERN_ROOT")), work, true, RECORDS_PER_SECOND);
    }
}
