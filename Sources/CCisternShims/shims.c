#define _GNU_SOURCE
#include "cistern_shims.h"

#include <pthread.h>
#include <string.h>

// Reflected polynomial of CRC-32C.
#define CISTERN_CRC32C_POLYNOMIAL 0x82F63B78u

static uint32_t crc_table[256];

__attribute__((constructor)) static void cistern_build_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (CISTERN_CRC32C_POLYNOMIAL & (0u - (crc & 1u)));
        }
        crc_table[i] = crc;
    }
}

static uint32_t crc32c_portable(uint32_t crc, const uint8_t *p, size_t length) {
    for (size_t i = 0; i < length; i++) {
        crc = (crc >> 8) ^ crc_table[(crc ^ p[i]) & 0xFF];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *p, size_t length) {
    uint64_t wide = crc;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = __builtin_ia32_crc32di(wide, word);
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
