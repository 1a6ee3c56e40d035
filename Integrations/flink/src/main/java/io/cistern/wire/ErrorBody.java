package io.cistern.wire;

/**
 * The body of every frame with the error flag.
 *
 * @param category what to do, also for a code that is not known
 * @param message what was attempted, on what, what was found, what to do
 */
public record ErrorBody(int code, Category category, int retryMilliseconds, String message, long currentEpoch,
        long expectedSequence) {
    public static final int UNSUPPORTED_VERSION = 4;
    public static final int LIMIT_EXCEEDED = 7;
    public static final int FENCED = 33;
    public static final int SEQUENCE_GAP = 35;
    public static final int LOST_WRITES = 43;

    /** What the sender of the request does. Sent: never renumber. */
    public enum Category {
        UNSPECIFIED,
        /** The same request may succeed later. */
        RETRY,
        /** Connect or attach again first. */
        REROUTE,
        /** A newer writer owns this: stop. */
        FENCED,
        /** This request will never succeed. */
        FATAL
    }

    public static ErrorBody decode(byte[] body) throws WireException {
        int code = 0;
        Category category = Category.UNSPECIFIED;
        int retry = 0;
        String message = "";
        long epoch = 0;
        long sequence = 0;
        ProtoReader reader = new ProtoReader(body);
        while (reader.next()) {
            switch (reader.field()) {
                case 1 -> code = (int) reader.unsigned();
                case 2 -> category = category(reader.unsigned());
                case 3 -> retry = (int) reader.unsigned();
                case 4 -> message = reader.string();
                case 5 -> epoch = reader.unsigned();
                case 6 -> sequence = reader.unsigned();
                default -> reader.skip();
            }
        }
        return new ErrorBody(code, category, retry, message, epoch, sequence);
    }

    private static Category category(long number) {
        Category[] all = Category.values();
        return number >= 0 && number < all.length ? all[(int) number] : Category.UNSPECIFIED;
    }
}
