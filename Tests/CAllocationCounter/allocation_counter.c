#include "allocation_counter.h"

#include <errno.h>
#include <stddef.h>

static __thread uint64_t allocations;

uint64_t cistern_allocation_count(void) { return allocations; }

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define CISTERN_SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(CISTERN_SANITIZED)
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *address, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *address, size_t size) {
    allocations++;
    return __libc_realloc(address, size);
}

void *memalign(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    allocations++;
    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) {
        return EINVAL;
    }
    void *address = __libc_memalign(alignment, size);
    if (address == NULL) {
        return ENOMEM;
    }
    *result = address;
    return 0;
}

int cistern_allocations_are_counted(void) { return 1; }
#else
int cistern_allocations_are_counted(void) { return 0; }
#endif
