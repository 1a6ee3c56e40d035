// The few C lines Swift cannot write: hardware CRC-32C and system calls the Glibc module hides.
#ifndef CISTERN_SHIMS_H
#define CISTERN_SHIMS_H

#include <stddef.h>
#include <stdint.h>

// CRC-32C (Castagnoli) of `length` bytes, continuing from `crc` (0 to start). Uses SSE4.2 where the CPU has it.
uint32_t cistern_crc32c(uint32_t crc, const void *bytes, size_t length);

// Names the calling thread for debuggers and `top`; the kernel takes at most 15 characters.
void cistern_set_thread_name(const char *name);

// Asks the CPU to load the cache line of `address`, which need not be valid. Inlined into its callers.
static inline void cistern_prefetch(const void *address) { __builtin_prefetch(address); }

// Asks the kernel to start writing a range of a file; waits for nothing and promises nothing.
void cistern_start_writeback(int descriptor, uint64_t offset, uint64_t length);

// pread that takes only what is in the page cache: -EAGAIN where it would wait for the disk, -EOPNOTSUPP where the file system
// cannot tell; else the bytes read, or -errno.
int64_t cistern_read_now(int descriptor, void *buffer, size_t length, int64_t offset);

// Asks the kernel to read a range of a file into the page cache; waits for nothing.
void cistern_start_read(int descriptor, int64_t offset, int64_t length);

// What the calling thread put here last, NULL at first.
extern _Thread_local void *cistern_thread_waits;
static inline void *cistern_get_thread_waits(void) { return cistern_thread_waits; }
static inline void cistern_set_thread_waits(void *waits) { cistern_thread_waits = waits; }

// Has the kernel find pages for memory whose content does not matter, so that its first use costs no fault.
void cistern_touch(void *start, size_t length);

// Of the address sanitizer's run time; to be called only by what is compiled for it. See `MemoryPoison`.
void __asan_poison_memory_region(void const volatile *address, size_t size);
void __asan_unpoison_memory_region(void const volatile *address, size_t size);

#endif
