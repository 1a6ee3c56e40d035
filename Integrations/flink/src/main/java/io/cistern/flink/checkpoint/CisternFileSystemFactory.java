package io.cistern.flink.checkpoint;

import org.apache.flink.core.fs.FileSystem;
import org.apache.flink.core.fs.FileSystemFactory;

import java.net.URI;

/** Found by Flink's service loader: what knows paths of the scheme "cistern". */
public final class CisternFileSystemFactory implements FileSystemFactory {
    @Override
    public String getScheme() {
        return SnapshotPath.SCHEME;
    }

    @Override
    public FileSystem create(URI uri) {
        return new CisternFileSystem(uri);
    }
}
