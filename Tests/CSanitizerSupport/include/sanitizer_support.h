// What sanitizers cannot see by themselves, told to them. Without a sanitizer there is nothing to tell.
#ifndef CISTERN_SANITIZER_SUPPORT_H
#define CISTERN_SANITIZER_SUPPORT_H

// 1 in a program that is compiled for the address or the thread sanitizer.
int cistern_is_sanitized(void);

#endif
