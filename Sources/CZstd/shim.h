// ZSTD_STATIC_LINKING_ONLY is not defined: only the stable interface of the shared library is used.
#include <zstd.h>
#include <zdict.h>
