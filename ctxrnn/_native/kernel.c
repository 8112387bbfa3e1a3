/* The time loop of a network, its gradient, the noise, and Newton steps: the parts where Python
 * costs more than the arithmetic. Plain C with the vector types of GCC and Clang; no Python, no
 * BLAS.
 *
 * loop.h is included once for each precision. `ctxrnn/_kernel.py` is the only caller: it checks
 * all shapes, so that nothing is checked here.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "noise.h"

enum { CURRENT_FORM = 0, RATE_FORM = 1 };
/* Trials from `from` to `to` that are run at a step, with the weights of one group. */
typedef struct {
  ptrdiff_t from, to, group;
} range;

enum { TANH = 0, RELU = 1, SIGMOID = 2, SOFTPLUS = 3 };

#define REAL float
#define LANES 16
#define NAME(name) name##_float
#include "loop.h"

#include "losses.h"

#include "varying.h"
#undef REAL
#undef LANES
#undef NAME

/* To tell a file that was compiled from other sources: their digest, which setup.py gives. */
#ifndef KERNEL_SOURCES
#define KERNEL_SOURCES 0
#endif
long long kernel_sources(void) { return KERNEL_SOURCES; }
int kernel_size(void) { return (int)sizeof(loop_float); }

#define REAL double
#define LANES 8
#define NAME(name) name##_double
#define DOUBLE_PRECISION
#include "loop.h"

#include "losses.h"

#include "varying.h"

#include "solve.h"
