package io.cistern.flink.async;

import io.cistern.client.PendingRead;

import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.runtime.asyncprocessing.AsyncRequestContainer;
import org.apache.flink.runtime.asyncprocessing.RecordContext;
import org.apache.flink.runtime.asyncprocessing.StateExecutor;
import org.apache.flink.runtime.asyncprocessing.StateRequest;

import java.io.IOException;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.RejectedExecutionException;

/**
 * Carries out Flink's batches: what the worker knows at once, everything else behind one read of the server, during which the task goes
 * on with other records. Owned by the task's thread, to which answers come as mails.
 *
 * <p>Records in flight have different keys, so their order among each other is free, and nobody writes to a key that is being read. The
 * requests of one record stay in order: those behind one that waits wait with it.
 */
final class BatchExecutor<K> implements StateExecutor {
    private static final CompletableFuture<Void> DONE = CompletableFuture.completedFuture(null);
    /** Reads under way from which on Flink need not hurry to send further ones. */
    private static final int READS_MAX = 4;

    private final CisternAsyncKeyedStateBackend<K> backend;
    private final Set<Waiting> underWay = new LinkedHashSet<>();
    private final Map<RecordContext<?>, Waiting> waitingRecords = new IdentityHashMap<>();

    BatchExecutor(CisternAsyncKeyedStateBackend<K> backend) {
        this.backend = backend;
    }

    /** Requests in the order in which they came. */
    private static final class Batch implements AsyncRequestContainer<StateRequest<?, ?, ?, ?>> {
        private final List<StateRequest<?, ?, ?, ?>> requests = new ArrayList<>();

        @Override
        public void offer(StateRequest<?, ?, ?, ?> request) {
            requests.add(request);
        }

        @Override
        public boolean isEmpty() {
            return requests.isEmpty();
        }
    }

    /** Requests that wait for one read of the server. */
    private static final class Waiting {
        private final List<StateRequest<?, ?, ?, ?>> requests = new ArrayList<>();
        /** Null when none of them can be read together with others. */
        private PendingRead read;
    }

    @Override
    public AsyncRequestContainer<StateRequest<?, ?, ?, ?>> createRequestContainer() {
        return new Batch();
    }

    @Override
    public CompletableFuture<Void> executeBatchRequests(AsyncRequestContainer<StateRequest<?, ?, ?, ?>> container) {
        Waiting waiting = new Waiting();
        for (StateRequest<?, ?, ?, ?> request : ((Batch) container).requests) {
            Waiting before = waitingRecords.get(request.getRecordContext());
            if (before != null) {
                before.requests.add(request);
            } else if (!tryAtOnce(request)) {
                waiting.requests.add(request);
                waitingRecords.put(request.getRecordContext(), waiting);
            }
        }
        if (!waiting.requests.isEmpty()) {
            underWay.add(waiting);
            send(waiting);
        }
        return DONE;
    }

    private void send(Waiting waiting) {
        MailboxExecutor mailbox = backend.mailbox();
        try {
            waiting.read = backend.session().readWished(mailbox == null ? () -> { } : () -> {
                try {
                    mailbox.execute(() -> finish(waiting), "state that was read");
                } catch (RejectedExecutionException ignored) {
                    // The task has ended.
                }
            });
        } catch (IOException error) {
            fail(waiting, error);
            return;
        }
        if (mailbox == null || waiting.read == null) {
            finish(waiting);
        }
    }

    private void finish(Waiting waiting) {
        if (!underWay.contains(waiting)) {
            // Somebody could not wait for the answer.
            return;
        }
        try {
            if (waiting.read != null) {
                backend.session().finish(waiting.read);
            }
        } catch (IOException error) {
            fail(waiting, error);
            return;
        }
        end(waiting);
        for (StateRequest<?, ?, ?, ?> request : waiting.requests) {
            run(enter(request), request);
        }
    }

    private void fail(Waiting waiting, IOException error) {
        end(waiting);
        waiting.requests.forEach(request -> fail(request, error));
    }

    private void end(Waiting waiting) {
        underWay.remove(waiting);
        waiting.requests.forEach(request -> waitingRecords.remove(request.getRecordContext()));
    }

    private boolean tryAtOnce(StateRequest<?, ?, ?, ?> request) {
        Target<?, ?> target = enter(request);
        try {
            if (!target.isLocal(request.getRequestType(), request.getPayload())) {
                target.wish(request.getRequestType(), request.getPayload());
                return false;
            }
        } catch (IOException error) {
            fail(request, error);
            return true;
        }
        run(target, request);
        return true;
    }

    @Override
    public void executeRequestSync(StateRequest<?, ?, ?, ?> request) {
        Waiting before = waitingRecords.get(request.getRecordContext());
        if (before != null) {
            finish(before);
        }
        run(enter(request), request);
    }

    @SuppressWarnings("unchecked")
    private <N> Target<?, N> enter(StateRequest<?, ?, ?, ?> request) {
        backend.enter((RecordContext<K>) request.getRecordContext());
        Target<?, N> target = (Target<?, N>) ((AsyncStates.Targeted) request.getState()).target();
        target.enter(((StateRequest<?, N, ?, ?>) request).getNamespace());
        return target;
    }

    @SuppressWarnings("unchecked")
    private static <OUT> void run(Target<?, ?> target, StateRequest<?, ?, ?, OUT> request) {
        OUT result;
        try {
            result = (OUT) target.run(request.getRequestType(), request.getPayload());
        } catch (Exception error) {
            fail(request, error);
            return;
        }
        request.getFuture().complete(result);
    }

    private static void fail(StateRequest<?, ?, ?, ?> request, Exception error) {
        request.getFuture().completeExceptionally(error.getMessage() == null ? error.toString() : error.getMessage(), error);
    }

    /** Asked again and again by a task that waits: the place to notice a server that does not answer. */
    @Override
    public boolean fullyLoaded() {
        for (Waiting waiting : underWay) {
            backend.session().lookAt(waiting.read);
            break;
        }
        return underWay.size() >= READS_MAX;
    }

    @Override
    public void shutdown() {}
}
