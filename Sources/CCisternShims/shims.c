#define _GNU_SOURCE
#include "cistern_shims.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

// Reflected polynomial of CRC-32C.
#define CISTERN_CRC32C_POLYNOMIAL 0x82F63B78u

static uint32_t crc_table[256];

static uint32_t crc32c_portable(uint32_t crc, const uint8_t *p, size_t length) {
    for (size_t i = 0; i < length; i++) {
        crc = (crc >> 8) ^ crc_table[(crc ^ p[i]) & 0xFF];
    }
    return crc;
}

#if defined(__x86_64__)
// The crc32 instruction takes three cycles and a new one may start every cycle, so long inputs run as three independent
// streams of `stride` bytes whose checksums are joined afterwards: the checksum of a stream is moved over the bytes of
// the next one by a linear map, kept as four tables of 256 entries.
#define CISTERN_CRC_STRIDE_LONG 2048
#define CISTERN_CRC_STRIDE_SHORT 256

struct crc_shift {
    uint32_t table[4][256];
};
static struct crc_shift shift_long;
static struct crc_shift shift_short;

// The map "followed by `zeros` zero bytes", from what it does to each of the 32 bits.
static void build_shift(struct crc_shift *shift, size_t zeros) {
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1u << bit;
        for (size_t i = 0; i < zeros; i++) {
            crc = (crc >> 8) ^ crc_table[crc & 0xFF];
        }
        for (uint32_t byte = 0; byte < 256; byte++) {
            if (byte & (1u << (bit & 7))) {
                shift->table[bit >> 3][byte] ^= crc;
            }
        }
    }
}

static inline uint32_t apply_shift(const struct crc_shift *shift, uint32_t crc) {
    return shift->table[0][crc & 0xFF] ^ shift->table[1][(crc >> 8) & 0xFF] ^ shift->table[2][(crc >> 16) & 0xFF]
        ^ shift->table[3][crc >> 24];
}

static inline uint64_t load64(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

__attribute__((target("sse4.2"))) static inline uint32_t crc32c_three(
    uint32_t crc, const uint8_t **bytes, size_t *length, size_t stride, const struct crc_shift *shift) {
    const uint8_t *p = *bytes;
    while (*length >= 3 * stride) {
        uint64_t a = crc, b = 0, c = 0;
        for (size_t i = 0; i < stride; i += 8) {
            a = __builtin_ia32_crc32di(a, load64(p + i));
            b = __builtin_ia32_crc32di(b, load64(p + stride + i));
            c = __builtin_ia32_crc32di(c, load64(p + 2 * stride + i));
        }
        crc = apply_shift(shift, (uint32_t)a) ^ (uint32_t)b;
        crc = apply_shift(shift, crc) ^ (uint32_t)c;
        p += 3 * stride;
        *length -= 3 * stride;
    }
    *bytes = p;
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *p, size_t length) {
    crc = crc32c_three(crc, &p, &length, CISTERN_CRC_STRIDE_LONG, &shift_long);
    crc = crc32c_three(crc, &p, &length, CISTERN_CRC_STRIDE_SHORT, &shift_short);
    uint64_t wide = crc;
    while (length >= 8) {
        wide = __builtin_ia32_crc32di(wide, load64(p));
        p += 8;
        length -= 8;
    }
    crc = (uint32_t)wide;
    while (length > 0) {
        crc = __builtin_ia32_crc32qi(crc, *p);
        p++;
        length--;
    }
    return crc;
}
#endif

__attribute__((constructor)) static void cistern_build_crc_tables(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (CISTERN_CRC32C_POLYNOMIAL & (0u - (crc & 1u)));
        }
        crc_table[i] = crc;
    }
#if defined(__x86_64__)
    build_shift(&shift_long, CISTERN_CRC_STRIDE_LONG);
    build_shift(&shift_short, CISTERN_CRC_STRIDE_SHORT);
#endif
}

uint32_t cistern_crc32c(uint32_t crc, const void *bytes, size_t length) {
    const uint8_t *p = (const uint8_t *)bytes;
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc32c_hardware(crc, p, length);
    }
#endif
    return ~crc32c_portable(crc, p, length);
}

void cistern_set_thread_name(const char *name) { pthread_setname_np(pthread_self(), name); }

void cistern_start_writeback(int descriptor, uint64_t offset, uint64_t length) {
#if defined(__linux__)
    (void)sync_file_range(descriptor, (off_t)offset, (off_t)length, SYNC_FILE_RANGE_WRITE);
#endif
}

int64_t cistern_read_now(int descriptor, void *buffer, size_t length, int64_t offset) {
#if defined(__linux__) && defined(RWF_NOWAIT)
    struct iovec target = {buffer, length};
    ssize_t count = preadv2(descriptor, &target, 1, (off_t)offset, RWF_NOWAIT);
    return count < 0 ? -(int64_t)errno : (int64_t)count;
#else
    return -EOPNOTSUPP;
#endif
}

void cistern_start_read(int descriptor, int64_t offset, int64_t length) {
#if defined(__linux__)
    (void)posix_fadvise(descriptor, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
#endif
}

_Thread_local void *cistern_thread_waits = NULL;

#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23
#endif

// The address sanitizer is told that this memory is nobody's, and it is not.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
__attribute__((no_sanitize("address")))
#endif
#endif
void cistern_touch(void *start, size_t length) {
#if defined(__linux__)
    // Linux 5.14 and later.
    if (madvise(start, length, MADV_POPULATE_WRITE) == 0) return;
#endif
    volatile char *bytes = start;
    for (size_t offset = 0; offset < length; offset += 4096) bytes[offset] = 0;
}
