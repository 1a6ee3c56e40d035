package io.cistern.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;

final class Hash64Test {
    @Test
    void hashesAreThoseOfTheSpecification() throws Exception {
        int count = 0;
        for (String line : Files.readAllLines(Path.of(System.getenv("CISTERN_ROOT"), "proto-spec/vectors/hash64.txt"))) {
            if (line.startsWith("#") || line.isBlank()) {
                continue;
            }
            String[] parts = line.split(" ");
            byte[] key = parts[0].equals("-") ? new byte[0] : HexFormat.of().parseHex(parts[0]);
            assertEquals(Long.parseUnsignedLong(parts[1], 16), Hash64.hash(key, key.length), line);
            count++;
        }
        assertEquals(true, count > 20);
    }
}
