// Callbacks that RocksDB calls for each record: in C, so that the peer is not slowed by a detour through Swift.
#ifndef CISTERN_BENCH_SHIMS_H
#define CISTERN_BENCH_SHIMS_H

#include <stddef.h>
#include <stdint.h>

// rocksdb_mergeoperator_create: operands are put one behind the other, as a list's elements are. As Flink's operator
// ("stringappendtest") it merges at reads and compactions only, and leaves operands apart until then.
char *bench_list_full_merge(void *state, const char *key, size_t key_length, const char *existing, size_t existing_length,
                            const char *const *operands, const size_t *operand_lengths, int operand_count,
                            unsigned char *success, size_t *new_length);
char *bench_list_partial_merge(void *state, const char *key, size_t key_length, const char *const *operands,
                               const size_t *operand_lengths, int operand_count, unsigned char *success,
                               size_t *new_length);
void bench_list_delete_value(void *state, const char *value, size_t length);
const char *bench_list_name(void *state);

// rocksdb_compactionfilter_create: a value begins with the time of its last write, eight bytes of milliseconds, highest
// first, as Flink's time to live filter has it; a value that is older than its time to live goes.
struct bench_ttl_state {
    uint64_t now_milliseconds;
    uint64_t time_to_live_milliseconds;
};
unsigned char bench_ttl_filter(void *state, int level, const char *key, size_t key_length, const char *value,
                               size_t value_length, char **new_value, size_t *new_length, unsigned char *changed);
const char *bench_ttl_name(void *state);

void bench_no_destructor(void *state);

// Calls `body`. A tool that counts instructions counts those inside of this function, which it finds by its name.
void bench_counted(void (*body)(void *), void *context);

#endif
