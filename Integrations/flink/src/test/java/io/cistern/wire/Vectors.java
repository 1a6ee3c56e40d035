package io.cistern.wire;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Stream;

/** The golden bytes of proto-spec/vectors. */
final class Vectors {
    private Vectors() {}

    static Path directory() {
        return Path.of(System.getenv("CISTERN_ROOT"), "proto-spec", "vectors");
    }

    static List<String> wireNames() throws IOException {
        try (Stream<Path> files = Files.list(directory().resolve("wire"))) {
            return files.map(file -> file.getFileName().toString().replace(".hex", "")).sorted().toList();
        }
    }

    static byte[] wire(String name) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        for (String line : Files.readAllLines(directory().resolve("wire").resolve(name + ".hex"))) {
            String hex = line.replaceFirst("#.*", "").replace(" ", "");
            bytes.writeBytes(HexFormat.of().parseHex(hex));
        }
        return bytes.toByteArray();
    }

    static Frame frame(byte[] bytes) throws WireException {
        byte[] header = Arrays.copyOf(bytes, Frame.HEADER_BYTES);
        int length = Frame.bodyBytes(header, WireLimits.FRAME_BYTES_MAX_HARD);
        return Frame.decode(header, Arrays.copyOfRange(bytes, Frame.HEADER_BYTES, Frame.HEADER_BYTES + length));
    }
}
