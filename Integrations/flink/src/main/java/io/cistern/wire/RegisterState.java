package io.cistern.wire;

/** REGISTER_STATE: a state gets its number in the store; the same name gets the same number. */
public final class RegisterState {
    private RegisterState() {}

    public static byte[] encode(StateDescriptor state) {
        byte[] encoded = state.encode();
        return new ProtoWriter(encoded.length + 8).message(1, encoded, encoded.length).toByteArray();
    }

    /** The state as the server knows it, with its id. */
    public static StateDescriptor decodeReply(byte[] body) throws WireException {
        StateDescriptor state = new StateDescriptor(0, "", 0, 0, 0);
        ProtoReader reader = new ProtoReader(body);
        while (reader.next()) {
            switch (reader.field()) {
                case 1 -> state = StateDescriptor.decode(reader.message());
                default -> reader.skip();
            }
        }
        return state;
    }
}
