#include "bench_shims.h"

#include <stdlib.h>
#include <string.h>

void bench_no_destructor(void *state) { (void)state; }

char *bench_list_full_merge(void *state, const char *key, size_t key_length, const char *existing, size_t existing_length,
                            const char *const *operands, const size_t *operand_lengths, int operand_count,
                            unsigned char *success, size_t *new_length) {
    (void)state, (void)key, (void)key_length;
    size_t size = existing ? existing_length : 0;
    for (int i = 0; i < operand_count; i++) size += operand_lengths[i];
    char *result = malloc(size + 1);
    *success = result != NULL;
    *new_length = 0;
    if (!result) return NULL;
    char *end = result;
    if (existing) {
        memcpy(end, existing, existing_length);
        end += existing_length;
    }
    for (int i = 0; i < operand_count; i++) {
        memcpy(end, operands[i], operand_lengths[i]);
        end += operand_lengths[i];
    }
    *new_length = size;
    return result;
}

char *bench_list_partial_merge(void *state, const char *key, size_t key_length, const char *const *operands,
                               const size_t *operand_lengths, int operand_count, unsigned char *success,
                               size_t *new_length) {
    (void)state, (void)key, (void)key_length, (void)operands, (void)operand_lengths, (void)operand_count;
    *success = 0;
    *new_length = 0;
    return NULL;
}

void bench_list_delete_value(void *state, const char *value, size_t length) {
    (void)state, (void)length;
    free((void *)value);
}

const char *bench_list_name(void *state) {
    (void)state;
    return "cistern.bench.list";
}

unsigned char bench_ttl_filter(void *state, int level, const char *key, size_t key_length, const char *value,
                               size_t value_length, char **new_value, size_t *new_length, unsigned char *changed) {
    (void)level, (void)key, (void)key_length, (void)new_value, (void)new_length;
    const struct bench_ttl_state *ttl = state;
    *changed = 0;
    if (value_length < 8) return 0;
    uint64_t written;
    memcpy(&written, value, 8);
    written = __builtin_bswap64(written);
    return written + ttl->time_to_live_milliseconds <= ttl->now_milliseconds;
}

const char *bench_ttl_name(void *state) {
    (void)state;
    return "cistern.bench.ttl";
}

__attribute__((noinline)) void bench_counted(void (*body)(void *), void *context) {
    body(context);
    // Keeps the call above from becoming a jump, which would never return here.
    __asm__ volatile("" ::: "memory");
}
