// Functions compiled once for each level of x86-64, of which the loader takes the processor's.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MM_FOR_EACH_LEVEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MM_FOR_EACH_LEVEL
#endif
