package io.cistern.flink.checkpoint;

import io.cistern.client.SnapshotReleaser;

import org.apache.flink.core.fs.BlockLocation;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.core.fs.FileStatus;
import org.apache.flink.core.fs.FileSystem;
import org.apache.flink.core.fs.Path;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URI;

/** Snapshots of a server as files that can be deleted and nothing else. Deleting one releases the snapshot. */
final class CisternFileSystem extends FileSystem {
    private final URI uri;

    CisternFileSystem(URI uri) {
        this.uri = uri;
    }

    @Override
    public boolean delete(Path path, boolean recursive) throws IOException {
        String handle = SnapshotPath.handle(path);
        SnapshotReleaser.release(SnapshotPath.address(path), SnapshotPath.store(handle), handle);
        // One that is not there is as good as released.
        return true;
    }

    /** Flink asks after a deletion that failed, to know whether it has to say so. */
    @Override
    public boolean exists(Path path) {
        return true;
    }

    @Override
    public URI getUri() {
        return uri;
    }

    @Override
    public boolean isDistributedFS() {
        return true;
    }

    @Override
    public Path getWorkingDirectory() {
        return new Path(uri);
    }

    @Override
    public Path getHomeDirectory() {
        return new Path(uri);
    }

    @Override
    public FileStatus getFileStatus(Path path) throws IOException {
        throw new FileNotFoundException(path + ": a snapshot of a cistern server cannot be looked at, only released");
    }

    @Override
    public BlockLocation[] getFileBlockLocations(FileStatus file, long start, long length) throws IOException {
        throw refused();
    }

    @Override
    public FSDataInputStream open(Path path, int bufferSize) throws IOException {
        throw refused();
    }

    @Override
    public FSDataInputStream open(Path path) throws IOException {
        throw refused();
    }

    /** Nothing is below a path: Flink removes folders that are empty. */
    @Override
    public FileStatus[] listStatus(Path path) {
        return null;
    }

    @Override
    public boolean mkdirs(Path path) throws IOException {
        throw refused();
    }

    @Override
    public FSDataOutputStream create(Path path, WriteMode overwriteMode) throws IOException {
        throw refused();
    }

    @Override
    public boolean rename(Path source, Path target) throws IOException {
        throw refused();
    }

    private static IOException refused() {
        return new IOException("a snapshot of a cistern server is no file: it can only be released");
    }
}
