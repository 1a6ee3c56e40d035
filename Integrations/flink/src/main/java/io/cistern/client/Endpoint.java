package io.cistern.client;

import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;

/** Where a server listens: {@code HOST:PORT}, {@code [IPV6]:PORT} or {@code unix:/path}. */
public final class Endpoint {
    private static final String UNIX_PREFIX = "unix:";
    /** {@code sun_path} of Linux, with its final zero byte. */
    private static final int UNIX_PATH_BYTES_MAX = 107;

    private final String text;
    private final String host;
    private final int port;

    private Endpoint(String text, String host, int port) {
        this.text = text;
        this.host = host;
        this.port = port;
    }

    /** @throws IllegalArgumentException when the text is none of the three forms; the message says so */
    public static Endpoint parse(String text) {
        if (text.startsWith(UNIX_PREFIX)) {
            int length = text.length() - UNIX_PREFIX.length();
            if (length == 0 || length > UNIX_PATH_BYTES_MAX) {
                throw refused(text);
            }
            return new Endpoint(text, null, 0);
        }
        int colon = text.lastIndexOf(':');
        if (colon <= 0) {
            throw refused(text);
        }
        String host = text.substring(0, colon);
        boolean isBracketed = host.startsWith("[") && host.endsWith("]");
        if (isBracketed) {
            host = host.substring(1, host.length() - 1);
        }
        int port;
        try {
            port = Integer.parseInt(text.substring(colon + 1));
        } catch (NumberFormatException error) {
            throw refused(text);
        }
        if (host.isEmpty() || (host.contains(":") && !isBracketed) || port < 1 || port > 65_535) {
            throw refused(text);
        }
        return new Endpoint(text, host, port);
    }

    private static IllegalArgumentException refused(String text) {
        return new IllegalArgumentException(
                "\"" + text + "\" is no address of a cistern server: HOST:PORT, [IPV6]:PORT or unix:/PATH is");
    }

    public boolean isUnix() {
        return host == null;
    }

    /** Looks the host up each time: a server may come back under another address. */
    SocketAddress resolve() {
        return isUnix() ? UnixDomainSocketAddress.of(text.substring(UNIX_PREFIX.length())) : new InetSocketAddress(host, port);
    }

    @Override
    public String toString() {
        return text;
    }
}
