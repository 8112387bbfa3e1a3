/* One network: forward and backward through time. Axes are as in the docstrings of `_kernel.py`;
 * arrays that the loop reads or writes as vectors have rows padded to `ld` numbers.
 */
#include "products.h"

#include "functions.h"

typedef struct {
  int64_t steps, trials, units, inputs, outputs, groups, parts, form, phi, potentials_out, first_step;
  const REAL *u;             /* (step, trial, input) */
  const REAL *input_weight;  /* (unit, input) */
  const REAL *drive;         /* (trial, unit) */
  const REAL *weights;       /* (group, unit, unit), [post, pre] */
  /* Trials lie in parts that share their weights and that no one looks at after some step. */
  const int64_t *first;      /* (part + 1,): first trial of each part */
  const int64_t *group;      /* (part,): whose weights it has */
  const int64_t *until;      /* (part,): how many steps it runs */
  const REAL *gain;          /* (trial, unit) or null */
  const REAL *threshold;     /* (trial, unit) or null */
  const REAL *start;         /* (trial, unit) */
  const REAL *alpha;         /* (unit,) */
  const uint32_t *key;       /* (4,) or null for no noise */
  const REAL *noise;         /* (unit,): standard deviation of the noise current */
  const int64_t *place;      /* (trial,) or null: number of each trial in the noise */
  const REAL *extra;         /* (step, trial, unit) or null: added to the current */
  const REAL *output_weight; /* (output, unit) or null */
  const REAL *output_bias;   /* (output,) */
  REAL *rates;               /* (step, trial, ld) */
  REAL *kept;                /* (step, trial, ld) or null: potentials; in the rate form, currents */
  REAL *out;                 /* (step, trial, output) */
  REAL *end;                 /* (trial, unit) or null: the state after the last step */
  /* Of the gradient only. */
  const REAL *grad_out;      /* (step, trial, output) or null */
  const REAL *grad_rates;    /* (step, trial, unit) or null */
  const REAL *grad_states;   /* (step, trial, unit) or null */
  const REAL *grad_end;      /* (trial, unit) or null */
  REAL *d_input_weight, *d_drive, *d_weights, *d_gain, *d_threshold, *d_start;
  REAL *d_output_weight, *d_output_bias;
  REAL *d_current;           /* (step, trial, unit) or null */
  /* Of the loss only. */
  const int64_t *classes;    /* (step, trial), or null for the squared error */
  const REAL *wanted;        /* (step, trial, output) or null */
  const REAL *weight;        /* (step, trial) */
  double *loss;              /* (1,) */
} NAME(loop);

static inline ptrdiff_t NAME(pad)(ptrdiff_t units) { return (units + 15) / 16 * 16; }

/* Rows of 1 or 2 kB would fall on few sets of the cache. */
static inline ptrdiff_t NAME(ld)(ptrdiff_t units) {
  ptrdiff_t padded = NAME(pad)(units);
  return padded < 128 ? padded : padded + 16;
}

typedef struct {
  REAL *base, *at;
} NAME(arena);

/* Make room for `need` numbers, and for as many ranges as there are parts; null if there is none. */
static range *NAME(reserve)(NAME(arena) * arena, ptrdiff_t need, ptrdiff_t parts) {
  arena->base = arena->at = aligned_alloc(64, (size_t)((need + 15) / 16 * 16) * sizeof(REAL));
  range *ranges = malloc((size_t)parts * sizeof(range));
  if (arena->base && ranges) return ranges;
  free(arena->base), free(ranges);
  return 0;
}

static REAL *NAME(take)(NAME(arena) * arena, ptrdiff_t count) {
  REAL *here = arena->at;
  arena->at += (count + 15) / 16 * 16;
  return here;
}

/* rows x cols with stride `from_row` into rows of `ld`, zero behind the last column. */
static void NAME(pack)(const REAL *from, ptrdiff_t from_row, ptrdiff_t rows, ptrdiff_t cols,
                       REAL *to, ptrdiff_t ld) {
  for (ptrdiff_t i = 0; i < rows; i++) {
    memcpy(to + i * ld, from + i * from_row, (size_t)cols * sizeof(REAL));
    memset(to + i * ld + cols, 0, (size_t)(ld - cols) * sizeof(REAL));
  }
}

static void NAME(unpack)(const REAL *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t cols, REAL *to) {
  for (ptrdiff_t i = 0; i < rows; i++)
    memcpy(to + i * cols, from + i * ld, (size_t)cols * sizeof(REAL));
}

/* The transpose of rows x cols, into `cols` rows of `ld`. */
static void NAME(pack_turned)(const REAL *from, ptrdiff_t rows, ptrdiff_t cols, REAL *to,
                              ptrdiff_t ld) {
  memset(to, 0, (size_t)(cols * ld) * sizeof(REAL));
  for (ptrdiff_t block = 0; block < cols; block += 16) {
    ptrdiff_t end = block + 16 < cols ? block + 16 : cols;
    for (ptrdiff_t i = 0; i < rows; i++)
      for (ptrdiff_t j = block; j < end; j++) to[j * ld + i] = from[i * cols + j];
  }
}

static void NAME(unpack_turned)(const REAL *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t cols,
                                REAL *to) {
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++) to[j * rows + i] = from[i * ld + j];
}

typedef struct {
  ptrdiff_t ld, plane, out_ld;
  REAL *alpha, *gain, *threshold, *start;
} NAME(common);

/* Neighbours with the same weights come as one; `any` takes those with different weights too. */
static ptrdiff_t NAME(running)(const NAME(loop) * n, int64_t step, int any, range *found) {
  ptrdiff_t count = 0;
  for (ptrdiff_t p = 0; p < n->parts; p++) {
    if (n->until[p] <= step) continue;
    range *last = found + count - 1;
    if (count && last->to == n->first[p] && (any || last->group == n->group[p]))
      last->to = n->first[p + 1];
    else
      found[count++] = (range){n->first[p], n->first[p + 1], n->group[p]};
  }
  return count;
}

static void NAME(prepare)(const NAME(loop) * n, NAME(common) * c, NAME(arena) * arena) {
  NAME(pack)(n->alpha, 0, 1, n->units, c->alpha = NAME(take)(arena, c->ld), c->ld);
  c->start = NAME(take)(arena, c->plane);
  NAME(pack)(n->start, n->units, n->trials, n->units, c->start, c->ld);
  c->gain = c->threshold = 0;
  if (n->gain)
    NAME(pack)(n->gain, n->units, n->trials, n->units, c->gain = NAME(take)(arena, c->plane), c->ld);
  if (n->threshold)
    NAME(pack)(n->threshold, n->units, n->trials, n->units,
               c->threshold = NAME(take)(arena, c->plane), c->ld);
}

/* G (x - Theta) of the vector at a place of the plane. */
static inline NAME(vec) NAME(excite)(const NAME(common) * c, NAME(vec) x, ptrdiff_t at) {
  if (c->threshold) x -= LOAD(c->threshold + at);
  return c->gain ? x * LOAD(c->gain + at) : x;
}

static void NAME(add_rows)(const REAL *from, ptrdiff_t rows, ptrdiff_t cols, REAL *to,
                           ptrdiff_t ld) {
  for (ptrdiff_t i = 0; i < rows; i++)
    for (ptrdiff_t j = 0; j < cols; j++) to[i * ld + j] += from[i * cols + j];
}

static void NAME(initial_rates)(const NAME(loop) * n, const NAME(common) * c, REAL *rates) {
  for (ptrdiff_t at = 0; at < c->plane; at += LANES) {
    NAME(vec) x = LOAD(c->start + at);
    STORE(rates + at, n->form == RATE_FORM ? x : NAME(phi)((int)n->phi, NAME(excite)(c, x, at)));
  }
}

static void NAME(add_noise)(const NAME(loop) * n, const NAME(common) * c, const REAL *sd,
                            float *drawn, int64_t step, range rows, REAL *total) {
  ptrdiff_t padded = NAME(pad)(n->units);
  /* Trials in another order draw from all places. */
  int64_t start = n->place ? 0 : rows.from, stop = n->place ? n->trials : rows.to;
  normals_between(n->key, n->first_step + step, start * padded, stop * padded, drawn);
  for (ptrdiff_t b = rows.from; b < rows.to; b++) {
    const float *row = drawn + (n->place ? n->place[b] : b) * padded;
    for (ptrdiff_t j = 0; j < padded; j++) total[b * c->ld + j] += sd[j] * (REAL)row[j];
  }
}

#define ADVANCE(PHI)                                                              \
  for (ptrdiff_t b = rows.from; b < rows.to; b++)                                 \
    for (ptrdiff_t j = 0; j < c->ld; j += LANES) {                                \
      ptrdiff_t at = b * c->ld + j;                                               \
      NAME(vec) alpha = LOAD(c->alpha + j), z = LOAD(state + at), r;              \
      NAME(vec) wanted = LOAD(total + at);                                        \
      if (n->form == RATE_FORM) {                                                 \
        if (kept) STORE(kept + at, wanted);                                       \
        wanted = NAME(phi)(PHI, NAME(excite)(c, wanted, at));                     \
        r = z + alpha * (wanted - z);                                             \
        STORE(state + at, r);                                                     \
      } else {                                                                    \
        z = z + alpha * (wanted - z);                                             \
        STORE(state + at, z);                                                     \
        if (kept) STORE(kept + at, z);                                            \
        r = NAME(phi)(PHI, NAME(excite)(c, z, at));                               \
      }                                                                           \
      STORE(rates + at, r);                                                       \
    }

static void NAME(advance)(const NAME(loop) * n, const NAME(common) * c, range rows,
                          const REAL *total, REAL *state, REAL *kept, REAL *rates) {
  switch (n->phi) {
    case TANH: ADVANCE(TANH) break;
    case RELU: ADVANCE(RELU) break;
    case SIGMOID: ADVANCE(SIGMOID) break;
    default: ADVANCE(SOFTPLUS)
  }
}

/* Returns 0, or 1 if there is no memory. */
int NAME(forward)(const NAME(loop) * n) {
  NAME(common) c = {.ld = NAME(ld)(n->units), .plane = n->trials * NAME(ld)(n->units),
                    .out_ld = NAME(pad)(n->outputs)};
  const ptrdiff_t N = n->units, I = n->inputs, O = n->outputs, B = n->trials, ld = c.ld;
  const ptrdiff_t padded = NAME(pad)(N);
  ptrdiff_t need = n->groups * N * ld + I * ld + N * c.out_ld + 8 * c.plane + 2 * ld +
                   B * c.out_ld + B * padded + 16 * 32;
  NAME(arena) arena;
  range *ranges = NAME(reserve)(&arena, need, n->parts);
  if (!ranges) return 1;
  NAME(prepare)(n, &c, &arena);
  REAL *weights = NAME(take)(&arena, n->groups * N * ld);
  for (ptrdiff_t g = 0; g < n->groups; g++)
    NAME(pack_turned)(n->weights + g * N * N, N, N, weights + g * N * ld, ld);
  REAL *input_weight = NAME(take)(&arena, I * ld), *output_weight = 0, *drive, *sd = 0;
  NAME(pack_turned)(n->input_weight, N, I, input_weight, ld);
  if (n->output_weight)
    NAME(pack_turned)(n->output_weight, O, N, output_weight = NAME(take)(&arena, N * c.out_ld),
                      c.out_ld);
  NAME(pack)(n->drive, N, B, N, drive = NAME(take)(&arena, c.plane), ld);
  if (n->key) NAME(pack)(n->noise, 0, 1, N, sd = NAME(take)(&arena, ld), ld);
  REAL *total = NAME(take)(&arena, c.plane), *before = NAME(take)(&arena, c.plane);
  REAL *state = NAME(take)(&arena, c.plane), *out = NAME(take)(&arena, B * c.out_ld);
  float *drawn = (float *)NAME(take)(&arena, B * padded);
  memcpy(state, c.start, (size_t)c.plane * sizeof(REAL));
  NAME(initial_rates)(n, &c, before);

  for (int64_t step = 0; step < n->steps; step++) {
    REAL *rates = n->rates + step * c.plane, *kept = n->kept ? n->kept + step * c.plane : 0;
    ptrdiff_t count = NAME(running)(n, step, 0, ranges);
    for (ptrdiff_t g = 0; g < count; g++) {
      range rows = ranges[g];
      ptrdiff_t at = rows.from * ld, trials = rows.to - rows.from;
      memcpy(total + at, drive + at, (size_t)(trials * ld) * sizeof(REAL));
      if (n->extra)
        NAME(add_rows)(n->extra + (step * B + rows.from) * N, trials, N, total + at, ld);
      if (n->key) NAME(add_noise)(n, &c, sd, drawn, step, rows, total);
      NAME(product) in = {n->u + (step * B + rows.from) * I, I, 1, 0, input_weight, ld, 0,
                          total + at, ld, I, 1, 1};
      NAME(multiply)(&in, trials, padded);
      NAME(product) recurrent = {before + at, ld, 1, 0, weights + rows.group * N * ld, ld, 0,
                                 total + at, ld, N, 1, 1};
      NAME(multiply)(&recurrent, trials, padded);
      NAME(advance)(n, &c, rows, total, state, kept, rates);
    }
    before = rates;
    if (!n->output_weight) continue;
    memset(out, 0, (size_t)(B * c.out_ld) * sizeof(REAL));
    count = NAME(running)(n, step, 1, ranges);
    for (ptrdiff_t g = 0; g < count; g++) {
      ptrdiff_t at = ranges[g].from;
      NAME(product) read = {(n->potentials_out ? state : rates) + at * ld, ld, 1, 0, output_weight,
                            c.out_ld, 0, out + at * c.out_ld, c.out_ld, N, 1, 0};
      NAME(multiply)(&read, ranges[g].to - at, c.out_ld);
    }
    for (ptrdiff_t b = 0; b < B; b++)
      for (ptrdiff_t o = 0; o < O; o++)
        n->out[(step * B + b) * O + o] = out[b * c.out_ld + o] + n->output_bias[o];
  }
  if (n->end) NAME(unpack)(state, ld, B, N, n->end);
  free(arena.base), free(ranges);
  return 0;
}

typedef struct {
  REAL *weights, *input_weight, *output_weight, *drive, *gain, *threshold, *initial;
} NAME(sums);

/* Weight gradients of the steps [from, from + count), whose currents' gradients are in `delta`.
 * The same trials are run at all of them. */
static void NAME(gather)(const NAME(loop) * n, const NAME(common) * c, const NAME(sums) * s,
                         const REAL *delta, int64_t from, int64_t count, range *ranges) {
  const ptrdiff_t N = n->units, I = n->inputs, O = n->outputs, B = n->trials, ld = c->ld;
  const ptrdiff_t padded = NAME(pad)(N), later = from == 0;
  ptrdiff_t many = NAME(running)(n, from, 0, ranges);
  for (ptrdiff_t g = 0; g < many; g++) {
    ptrdiff_t trials = ranges[g].to - ranges[g].from, at = ranges[g].from * ld;
    REAL *sum = s->weights + ranges[g].group * N * ld;
    if (later) {
      NAME(product) t = {delta + at, 1, ld, 0, s->initial + at, ld, 0, sum, ld, trials, 1, 1};
      NAME(multiply)(&t, N, padded);
    }
    if (count == later) continue;
    NAME(product) t = {delta + later * c->plane + at, 1, ld, c->plane,
                       n->rates + (from + later - 1) * c->plane + at, ld, c->plane,
                       sum, ld, trials, count - later, 1};
    NAME(multiply)(&t, N, padded);
  }
  many = NAME(running)(n, from, 1, ranges);
  for (ptrdiff_t g = 0; g < many; g++) {
    ptrdiff_t row = ranges[g].from, trials = ranges[g].to - row, at = row * ld;
    NAME(product) in = {n->u + (from * B + row) * I, 1, I, B * I, delta + at, ld, c->plane,
                        s->input_weight, ld, trials, count, 1};
    NAME(multiply)(&in, I, padded);
    if (!n->grad_out) continue;
    const REAL *seen = (n->potentials_out && n->form == CURRENT_FORM ? n->kept : n->rates);
    NAME(product) read = {n->grad_out + (from * B + row) * O, 1, O, B * O,
                          seen + from * c->plane + at, ld, c->plane,
                          s->output_weight, ld, trials, count, 1};
    NAME(multiply)(&read, O, padded);
  }
}

#define RETREAT(PHI)                                                                        \
  for (ptrdiff_t b = rows.from; b < rows.to; b++)                                           \
    for (ptrdiff_t j = 0; j < c->ld; j += LANES) {                                          \
      ptrdiff_t at = b * c->ld + j;                                                         \
      NAME(vec) alpha = LOAD(c->alpha + j), g = LOAD(back + at), held = LOAD(carry + at);   \
      NAME(vec) value, r, part, before_gain;                                                \
      if (n->form == RATE_FORM) {                                                           \
        g += held;                                                                          \
        part = alpha * g;                                                                   \
        STORE(carry + at, g - part);                                                        \
        value = LOAD(kept + at);                                                            \
        r = NAME(phi)(PHI, NAME(excite)(c, value, at));                                     \
        g = part;                                                                           \
      } else {                                                                              \
        r = LOAD(rates + at);                                                               \
        value = c->gain ? LOAD(kept + at) : r;                                              \
      }                                                                                     \
      before_gain = g * NAME(slope)(PHI, r);                                                \
      part = c->gain ? before_gain * LOAD(c->gain + at) : before_gain;                      \
      if (c->gain) {                                                                        \
        if (c->threshold) value -= LOAD(c->threshold + at);                                 \
        STORE(s->gain + at, LOAD(s->gain + at) + before_gain * value);                      \
      }                                                                                     \
      if (c->threshold) STORE(s->threshold + at, LOAD(s->threshold + at) - part);           \
      if (n->form == CURRENT_FORM) {                                                        \
        held += part;                                                                       \
        part = alpha * held;                                                                \
        STORE(carry + at, held - part);                                                     \
      }                                                                                     \
      STORE(delta + at, part);                                                              \
      STORE(s->drive + at, LOAD(s->drive + at) + part);                                     \
    }

static void NAME(retreat)(const NAME(loop) * n, const NAME(common) * c, const NAME(sums) * s,
                          range rows, const REAL *back, const REAL *rates, const REAL *kept, REAL *carry,
                          REAL *delta) {
  switch (n->phi) {
    case TANH: RETREAT(TANH) break;
    case RELU: RETREAT(RELU) break;
    case SIGMOID: RETREAT(SIGMOID) break;
    default: RETREAT(SOFTPLUS)
  }
}

/* The gradient of the initial state, and what its rates give to gain and threshold. */
static void NAME(finish_start)(const NAME(loop) * n, const NAME(common) * c, const NAME(sums) * s,
                               const REAL *back, REAL *carry) {
  for (ptrdiff_t at = 0; at < c->plane; at += LANES) {
    NAME(vec) g = LOAD(back + at);
    if (n->form == CURRENT_FORM) {
      g *= NAME(slope)((int)n->phi, LOAD(s->initial + at));
      if (c->gain) {
        NAME(vec) x = LOAD(c->start + at);
        if (c->threshold) x -= LOAD(c->threshold + at);
        STORE(s->gain + at, LOAD(s->gain + at) + g * x);
        g *= LOAD(c->gain + at);
      }
      if (c->threshold) STORE(s->threshold + at, LOAD(s->threshold + at) - g);
    }
    STORE(carry + at, LOAD(carry + at) + g);
  }
}

static void NAME(step_back)(const NAME(loop) * n, const NAME(common) * c, const NAME(sums) * s,
                            const REAL *weights, const REAL *output_weight, int64_t step,
                            range *ranges, REAL *back, REAL *carry, REAL *delta) {
  const ptrdiff_t N = n->units, O = n->outputs, B = n->trials, ld = c->ld;
  const ptrdiff_t padded = NAME(pad)(N), count = NAME(running)(n, step, 0, ranges);
  /* In the rate form the state is the rate. */
  REAL *states = n->form == CURRENT_FORM ? carry : back;
  for (ptrdiff_t g = 0; g < count; g++) {
    range rows = ranges[g];
    ptrdiff_t at = rows.from * ld, trials = rows.to - rows.from, row = step * B + rows.from;
    if (n->grad_rates) NAME(add_rows)(n->grad_rates + row * N, trials, N, back + at, ld);
    if (n->grad_states) NAME(add_rows)(n->grad_states + row * N, trials, N, states + at, ld);
    if (n->grad_out) {
      const REAL *grad_out = n->grad_out + row * O;
      NAME(product) read = {grad_out, O, 1, 0, output_weight, ld, 0,
                            (n->potentials_out ? states : back) + at, ld, O, 1, 1};
      NAME(multiply)(&read, trials, padded);
      for (ptrdiff_t b = 0; b < trials; b++)
        for (ptrdiff_t o = 0; o < O; o++) n->d_output_bias[o] += grad_out[b * O + o];
    }
    NAME(retreat)(n, c, s, rows, back, n->rates + step * c->plane,
                  n->kept ? n->kept + step * c->plane : 0, carry, delta);
    if (n->d_current) NAME(unpack)(delta + at, ld, trials, N, n->d_current + row * N);
    NAME(product) t = {delta + at, ld, 1, 0, weights + rows.group * N * ld, ld, 0,
                       back + at, ld, N, 1, 0};
    NAME(multiply)(&t, trials, padded);
  }
}

/* Returns 0, or 1 if there is no memory. */
int NAME(backward)(const NAME(loop) * n) {
  NAME(common) c = {.ld = NAME(ld)(n->units), .plane = n->trials * NAME(ld)(n->units),
                    .out_ld = NAME(pad)(n->outputs)};
  const ptrdiff_t N = n->units, I = n->inputs, O = n->outputs, B = n->trials, ld = c.ld;
  const ptrdiff_t weights_size = n->groups * N * ld;
  /* Weight gradients are gathered over as many steps as stay in the cache. */
  int64_t chunk = 98304 / (c.plane * (ptrdiff_t)sizeof(REAL));
  chunk = chunk < 1 ? 1 : chunk > n->steps ? n->steps : chunk;
  ptrdiff_t need = 2 * weights_size + I * ld + 2 * O * ld + (10 + chunk) * c.plane + 2 * ld +
                   16 * 32;
  NAME(arena) arena;
  range *ranges = NAME(reserve)(&arena, need, n->parts);
  if (!ranges) return 1;
  NAME(prepare)(n, &c, &arena);
  REAL *weights = NAME(take)(&arena, weights_size), *output_weight = 0;
  NAME(pack)(n->weights, N, n->groups * N, N, weights, ld);
  if (n->grad_out)
    NAME(pack)(n->output_weight, N, O, N, output_weight = NAME(take)(&arena, O * ld), ld);
  REAL *zeroed = arena.at;
  NAME(sums) s = {NAME(take)(&arena, weights_size), NAME(take)(&arena, I * ld),
                  NAME(take)(&arena, O * ld),       NAME(take)(&arena, c.plane),
                  n->gain ? NAME(take)(&arena, c.plane) : 0,
                  n->threshold ? NAME(take)(&arena, c.plane) : 0, 0};
  REAL *back = NAME(take)(&arena, c.plane), *carry = NAME(take)(&arena, c.plane);
  memset(zeroed, 0, (size_t)(arena.at - zeroed) * sizeof(REAL));
  s.initial = NAME(take)(&arena, c.plane);
  REAL *delta = NAME(take)(&arena, chunk * c.plane);
  NAME(initial_rates)(n, &c, s.initial);
  if (n->grad_end) NAME(pack)(n->grad_end, N, B, N, carry, ld);
  if (n->d_output_bias) memset(n->d_output_bias, 0, (size_t)O * sizeof(REAL));

  for (int64_t end = n->steps; end > 0;) {
    int64_t from = end > chunk ? end - chunk : 0;
    for (ptrdiff_t p = 0; p < n->parts; p++)
      if (n->until[p] < end && n->until[p] > from) from = n->until[p];
    for (int64_t step = end - 1; step >= from; step--)
      NAME(step_back)(n, &c, &s, weights, output_weight, step, ranges, back, carry,
                      delta + (step - from) * c.plane);
    NAME(gather)(n, &c, &s, delta, from, end - from, ranges);
    end = from;
  }
  NAME(finish_start)(n, &c, &s, back, carry);
  NAME(unpack)(s.weights, ld, n->groups * N, N, n->d_weights);
  NAME(unpack_turned)(s.input_weight, ld, I, N, n->d_input_weight);
  NAME(unpack)(s.drive, ld, B, N, n->d_drive);
  NAME(unpack)(carry, ld, B, N, n->d_start);
  if (n->gain) NAME(unpack)(s.gain, ld, B, N, n->d_gain);
  if (n->threshold) NAME(unpack)(s.threshold, ld, B, N, n->d_threshold);
  if (n->grad_out) NAME(unpack)(s.output_weight, ld, O, N, n->d_output_weight);
  free(arena.base), free(ranges);
  return 0;
}
