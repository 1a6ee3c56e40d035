package io.cistern.flink.examples;

import org.apache.flink.api.common.serialization.SimpleStringEncoder;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.core.fs.Path;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.ParameterTool;

/**
 * The flights job in Flink's form: {@code --input flights.csv --output DIRECTORY [--rate RECORDS PER SECOND]}. Nothing in it knows where
 * its state is. At the end the output has the rows of four tables, those of Examples/flights/truth.sql.
 */
public final class FlightsJob {
    private FlightsJob() {}

    @SuppressWarnings("deprecation")
    public static void main(String[] arguments) throws Exception {
        ParameterTool options = ParameterTool.fromArgs(arguments);
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
        DataStream<Delivery> flights = environment.addSource(new FlightSource(options.getRequired("input"), options.getLong("rate", 0)))
                .name("flights").uid("flights").setParallelism(1);
        // At the source's parallelism, so that the flights of an aircraft stay in order.
        DataStream<String> aircraft = flights.filter(flight -> flight.tailNumber != null).setParallelism(1).keyBy(flight -> flight.tailNumber)
                .process(new AircraftFunction()).name("aircraft").uid("aircraft");
        DataStream<String> carriers = flights.keyBy(flight -> flight.carrier).process(new CarrierFunction()).name("carriers").uid("carriers");
        aircraft.union(carriers)
                .sinkTo(FileSink.forRowFormat(new Path(options.getRequired("output")), new SimpleStringEncoder<String>()).build())
                .name("rows").uid("rows");
        environment.execute("flights");
    }
}
