package io.cistern.flink.examples;

import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;
import org.apache.flink.util.CloseableIterator;
import org.apache.flink.util.ParameterTool;

import java.util.Map;
import java.util.TreeMap;

/**
 * A SQL job over the same flights: {@code --input flights.csv}. Joins the departures of an aircraft on a day with its later ones, and
 * counts the pairs by airports, with the worst delay that the later one had. Prints the final rows, tab-separated.
 */
public final class RotationsJob {
    /** Columns of the file, as Flink SQL and sqlite both take them. */
    public static final String QUERY = """
            SELECT f.origin, l.origin, COUNT(*), SUM(l.dep_delay), MAX(l.dep_delay)
            FROM flights f JOIN flights l
              ON f.tailnum = l.tailnum AND f.`month` = l.`month` AND f.`day` = l.`day` AND f.sched_dep_time < l.sched_dep_time
            WHERE f.dep_delay IS NOT NULL AND l.dep_delay IS NOT NULL
            GROUP BY f.origin, l.origin""";

    private RotationsJob() {}

    public static void main(String[] arguments) throws Exception {
        ParameterTool options = ParameterTool.fromArgs(arguments);
        TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().build());
        tables.getConfig().set("pipeline.name", options.get("name", "rotations"));
        tables.getConfig().set("table.exec.async-state.enabled", options.get("async", "false"));
        tables.executeSql("""
                CREATE TABLE flights (`year` INT, `month` INT, `day` INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT,
                  sched_arr_time INT, arr_delay INT, carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING, air_time INT,
                  distance INT, `hour` INT, `minute` INT, time_hour STRING)
                WITH ('connector' = 'filesystem', 'path' = '%s', 'format' = 'csv', 'csv.null-literal' = 'NA',
                  'csv.ignore-parse-errors' = 'true')""".formatted(options.getRequired("input")));
        Map<String, String> rows = new TreeMap<>();
        try (CloseableIterator<Row> changes = tables.executeSql(QUERY).collect()) {
            while (changes.hasNext()) {
                Row row = changes.next();
                String key = row.getField(0) + "\t" + row.getField(1);
                if (row.getKind() == RowKind.DELETE) {
                    rows.remove(key);
                } else if (row.getKind() != RowKind.UPDATE_BEFORE) {
                    rows.put(key, key + "\t" + row.getField(2) + "\t" + row.getField(3) + "\t" + row.getField(4));
                }
            }
        }
        rows.values().forEach(System.out::println);
    }
}
