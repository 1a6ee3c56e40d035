package io.cistern.flink.checkpoint;

import org.apache.flink.core.fs.Path;

import java.nio.charset.StandardCharsets;
import java.util.HexFormat;

/**
 * A snapshot of a server as a path, so that Flink's own handles can name it and the job manager can release it by deleting it:
 * {@code cistern://HOST:PORT/HANDLE}, or {@code cistern://unix/HEX OF THE SOCKET'S PATH/HANDLE}.
 */
public final class SnapshotPath {
    public static final String SCHEME = "cistern";
    private static final String UNIX_AUTHORITY = "unix";
    private static final String UNIX_PREFIX = "unix:";

    private SnapshotPath() {}

    public static Path of(String address, String handle) {
        if (address.startsWith(UNIX_PREFIX)) {
            String socket = HexFormat.of().formatHex(address.substring(UNIX_PREFIX.length()).getBytes(StandardCharsets.UTF_8));
            return new Path(SCHEME + "://" + UNIX_AUTHORITY + "/" + socket + "/" + handle);
        }
        return new Path(SCHEME + "://" + address + "/" + handle);
    }

    /** @throws IllegalArgumentException when the path does not name a snapshot */
    public static String address(Path path) {
        String authority = path.toUri().getAuthority();
        if (!UNIX_AUTHORITY.equals(authority)) {
            return authority;
        }
        String inside = inside(path);
        return UNIX_PREFIX + new String(HexFormat.of().parseHex(inside.substring(0, slash(path, inside))), StandardCharsets.UTF_8);
    }

    public static String handle(Path path) {
        String inside = inside(path);
        return UNIX_AUTHORITY.equals(path.toUri().getAuthority()) ? inside.substring(slash(path, inside) + 1) : inside;
    }

    /** The store that a handle is of. */
    public static String store(String handle) {
        int slash = handle.indexOf('/');
        if (slash <= 0) {
            throw new IllegalArgumentException("\"" + handle + "\" is no handle of a snapshot");
        }
        return handle.substring(0, slash);
    }

    private static int slash(Path path, String inside) {
        int slash = inside.indexOf('/');
        if (slash <= 0) {
            throw new IllegalArgumentException(path + " does not name a snapshot of a cistern server");
        }
        return slash;
    }

    private static String inside(Path path) {
        String inside = path.toUri().getPath();
        if (inside == null || inside.length() < 2 || path.toUri().getAuthority() == null) {
            throw new IllegalArgumentException(path + " does not name a snapshot of a cistern server");
        }
        return inside.substring(1);
    }
}
