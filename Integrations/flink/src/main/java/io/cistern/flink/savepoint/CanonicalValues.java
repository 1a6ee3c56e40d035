package io.cistern.flink.savepoint;

import io.cistern.client.ListFormat;
import io.cistern.wire.Slice;
import io.cistern.wire.StateKind;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;

import java.io.IOException;

/**
 * Stored values to and from those of canonical savepoints. They are the same bytes but for lists, whose elements stand behind each other
 * with a comma between them.
 */
final class CanonicalValues {
    private static final byte DELIMITER = ',';

    private final DataOutputSerializer output = new DataOutputSerializer(256);
    private final DataInputDeserializer input = new DataInputDeserializer();

    byte[] toCanonical(Slice value, StoredState state) throws IOException {
        if (state.access().kind() != StateKind.LIST) {
            return value.copy();
        }
        output.clear();
        ListFormat.forEach(value.bytes(), value.offset(), value.length(), (bytes, offset, length) -> {
            if (output.length() > 0) {
                output.writeByte(DELIMITER);
            }
            output.write(bytes, offset, length);
        });
        return output.getCopyOfBuffer();
    }

    byte[] toStored(byte[] canonical, StoredState state) throws IOException {
        if (state.access().kind() != StateKind.LIST) {
            return canonical;
        }
        TypeSerializer<?> serializer = state.elementSerializer();
        output.clear();
        input.setBuffer(canonical);
        while (input.available() > 0) {
            int start = input.getPosition();
            // Only the serializer knows where an element ends.
            serializer.deserialize(input);
            int length = input.getPosition() - start;
            byte[] element = new byte[ListFormat.HEAD_BYTES_MAX + length];
            System.arraycopy(canonical, start, element, ListFormat.HEAD_BYTES_MAX, length);
            int head = ListFormat.frame(element, ListFormat.HEAD_BYTES_MAX, length);
            output.write(element, head, element.length - head);
            if (input.available() > 0) {
                input.readByte();
            }
        }
        return output.getCopyOfBuffer();
    }
}
