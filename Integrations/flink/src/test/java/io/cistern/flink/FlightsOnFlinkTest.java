package io.cistern.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.cistern.flink.examples.Demo;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Path;
import java.util.Map;

/** Real processes: a Flink cluster, its task manager killed, then the server for 10 s; every row of all jobs is compared with sqlite3's. */
final class FlightsOnFlinkTest {
    private static final int RECORDS_PER_SECOND = 25_000;

    @Test
    void aJobWaitsForAServerThatIsGoneForTenSecondsAndEndsWithTheRightTables(@TempDir Path work) throws Exception {
        assertEquals(0, Demo.run(Path.of(System.getenv("CISTERN_ROOT")), work, true, RECORDS_PER_SECOND, Map.of()));
    }

    @Test
    void aJobThatMayNotWaitGoesBackToItsCheckpointAndEndsWithTheRightTables(@TempDir Path work) throws Exception {
        Map<String, String> impatient = Map.of("state.backend.cistern.retry-for", "1 s");
        assertTrue(Demo.run(Path.of(System.getenv("CISTERN_ROOT")), work, true, RECORDS_PER_SECOND, impatient) > 0);
    }
}
