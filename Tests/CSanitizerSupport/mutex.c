// The thread sanitizer and `Synchronization.Mutex`. Its fast path is inlined into our code, where the sanitizer sees the
// atomic operation; the slow path is in the standard library, which is not compiled for the sanitizer, so a mutex that was
// waited for orders nothing in its eyes and everything behind one is reported. These functions stand before the library's,
// call them, and say what they did. The waiting itself is the library's: a race that the mutex does not exclude is still found.
#define _GNU_SOURCE
#include "sanitizer_support.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) && defined(__linux__)
#define CISTERN_THREAD_SANITIZER 1
#endif
#endif

#if CISTERN_THREAD_SANITIZER
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

// `_MutexHandle._lockSlow(_: UInt32)`, `_unlockSlow()` and `_tryLockSlow() -> Bool`: the handle is in the context register.
#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define TRY_LOCK_SLOW "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define SWIFT __attribute__((swiftcall))
#define CONTEXT __attribute__((swift_context))

typedef SWIFT void (*lock_slow)(uint32_t thread, CONTEXT void *handle);
typedef SWIFT void (*unlock_slow)(CONTEXT void *handle);
typedef SWIFT _Bool (*try_lock_slow)(CONTEXT void *handle);

static void *original(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) {
        abort();
    }
    return found;
}

static lock_slow original_lock;
static unlock_slow original_unlock;
static try_lock_slow original_try_lock;

__attribute__((constructor)) static void find_originals(void) {
    original_lock = (lock_slow)original(LOCK_SLOW);
    original_unlock = (unlock_slow)original(UNLOCK_SLOW);
    original_try_lock = (try_lock_slow)original(TRY_LOCK_SLOW);
}

SWIFT void cistern_lock_slow(uint32_t thread, CONTEXT void *handle) __asm__(LOCK_SLOW);
SWIFT void cistern_lock_slow(uint32_t thread, CONTEXT void *handle) {
    original_lock(thread, handle);
    __tsan_acquire(handle);
}

SWIFT void cistern_unlock_slow(CONTEXT void *handle) __asm__(UNLOCK_SLOW);
SWIFT void cistern_unlock_slow(CONTEXT void *handle) {
    __tsan_release(handle);
    original_unlock(handle);
}

SWIFT _Bool cistern_try_lock_slow(CONTEXT void *handle) __asm__(TRY_LOCK_SLOW);
SWIFT _Bool cistern_try_lock_slow(CONTEXT void *handle) {
    _Bool locked = original_try_lock(handle);
    if (locked) {
        __tsan_acquire(handle);
    }
    return locked;
}
#endif

int cistern_is_sanitized(void) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return 1;
#endif
#endif
    return 0;
}
