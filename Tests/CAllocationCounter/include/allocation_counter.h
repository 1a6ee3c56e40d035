// Counts what a thread allocates, in a program that links this: malloc and its relatives are replaced by ones that count and
// call glibc's. With a sanitizer, which replaces them itself, nothing is counted.
#ifndef CISTERN_ALLOCATION_COUNTER_H
#define CISTERN_ALLOCATION_COUNTER_H

#include <stdint.h>

// Allocations of the calling thread so far.
uint64_t cistern_allocation_count(void);

// 0 where nothing is counted.
int cistern_allocations_are_counted(void);

#endif
