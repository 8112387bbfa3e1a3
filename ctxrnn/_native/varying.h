/* The rate form with a circuit of its own at every step: forward and backward through time.
 *
 *   x = [W r] + sum_f post_f * W (pre_f * r) + current,   r' = r + alpha (phi(gain * x) - r)
 *
 * current, gain, post and pre are rows of tables; `index` says which row each trial sees at each
 * step, and without it every trial of every step has a row of its own. Rows have no padding, the
 * planes (trial, ld) that products work on do.
 */
typedef struct {
  int64_t steps, trials, units, rows, factors, keep_base, phi;
  const int64_t *index;  /* (step, trial) or null */
  const REAL *weight;    /* (unit, unit), [post, pre] */
  const REAL *alpha;     /* (unit,) */
  const REAL *start;     /* (trial, unit) */
  const REAL *current;   /* (row, unit) */
  const REAL *gain;      /* (row, unit) or null */
  const REAL *post;      /* (factor, row, unit) or null */
  const REAL *pre;       /* (factor, row, unit) or null */
  REAL *states;          /* (step, trial, unit): after each step */
  REAL *kept;            /* (step, plane, trial, ld) or null: r, phi, x where there is gain, y_f */
  /* Of the gradient only; those of tables are added to. */
  const REAL *grad;      /* (step, trial, unit) */
  REAL *d_weight, *d_start, *d_current, *d_gain, *d_post, *d_pre;
} NAME(varying);

static inline const REAL *NAME(row_of)(const NAME(varying) * n, const REAL *table, ptrdiff_t factor,
                                       int64_t step, ptrdiff_t trial) {
  ptrdiff_t place = step * n->trials + trial, row = n->index ? n->index[place] : place;
  return table + (factor * n->rows + row) * n->units;
}

static inline ptrdiff_t NAME(planes)(const NAME(varying) * n) {
  return 2 + (n->gain ? 1 : 0) + n->factors;
}

/* to (+)= from * row, trial by trial. */
static void NAME(by_rows)(const NAME(varying) * n, const REAL *table, ptrdiff_t factor,
                          int64_t step, const REAL *from, REAL *to, ptrdiff_t ld, int add) {
  for (ptrdiff_t b = 0; b < n->trials; b++) {
    const REAL *restrict row = NAME(row_of)(n, table, factor, step, b);
    const REAL *restrict seen = from + b * ld;
    REAL *restrict out = to + b * ld;
    if (add)
      for (ptrdiff_t j = 0; j < n->units; j++) out[j] += seen[j] * row[j];
    else
      for (ptrdiff_t j = 0; j < n->units; j++) out[j] = seen[j] * row[j];
  }
}

/* row += a * b, trial by trial: rows may come twice. */
static void NAME(to_rows)(const NAME(varying) * n, REAL *table, ptrdiff_t factor, int64_t step,
                          const REAL *a, const REAL *b, ptrdiff_t ld) {
  for (ptrdiff_t t = 0; t < n->trials; t++) {
    REAL *restrict row = (REAL *)NAME(row_of)(n, table, factor, step, t);
    const REAL *restrict left = a + t * ld, *restrict right = b + t * ld;
    for (ptrdiff_t j = 0; j < n->units; j++) row[j] += left[j] * right[j];
  }
}

/* Returns 0, or 1 if there is no memory. */
int NAME(varying_forward)(const NAME(varying) * n) {
  const ptrdiff_t N = n->units, B = n->trials, ld = NAME(ld)(N), plane = B * ld;
  const ptrdiff_t padded = NAME(pad)(N), planes = NAME(planes)(n), gain = n->gain ? 1 : 0;
  NAME(arena) arena;
  range *ranges = NAME(reserve)(&arena, N * ld + ld + (planes + 4) * plane + 16 * 16, 1);
  if (!ranges) return 1;
  REAL *weights = NAME(take)(&arena, N * ld), *alpha = NAME(take)(&arena, ld);
  REAL *state = NAME(take)(&arena, plane), *total = NAME(take)(&arena, plane);
  REAL *seen = NAME(take)(&arena, plane), *scaled = NAME(take)(&arena, plane);
  REAL *scratch = NAME(take)(&arena, planes * plane);
  memset(total, 0, (size_t)plane * sizeof(REAL)), memset(seen, 0, (size_t)plane * sizeof(REAL));
  NAME(pack_turned)(n->weight, N, N, weights, ld);
  NAME(pack)(n->alpha, 0, 1, N, alpha, ld);
  NAME(pack)(n->start, N, B, N, state, ld);
  for (int64_t step = 0; step < n->steps; step++) {
    REAL *kept = n->kept ? n->kept + step * planes * plane : scratch;
    REAL *before = kept, *value = kept + plane, *y = kept + (2 + gain) * plane;
    REAL *x = gain ? kept + 2 * plane : total;
    memcpy(before, state, (size_t)plane * sizeof(REAL));
    for (ptrdiff_t b = 0; b < B; b++)
      NAME(pack)(NAME(row_of)(n, n->current, 0, step, b), 0, 1, N, x + b * ld, ld);
    if (n->keep_base) {
      NAME(product) t = {before, ld, 1, 0, weights, ld, 0, x, ld, N, 1, 1};
      NAME(multiply)(&t, B, padded);
    }
    for (ptrdiff_t f = 0; f < n->factors; f++) {
      NAME(by_rows)(n, n->pre, f, step, before, scaled, ld, 0);
      NAME(product) t = {scaled, ld, 1, 0, weights, ld, 0, y + f * plane, ld, N, 1, 0};
      NAME(multiply)(&t, B, padded);
      NAME(by_rows)(n, n->post, f, step, y + f * plane, x, ld, 1);
    }
    if (gain) NAME(by_rows)(n, n->gain, 0, step, x, seen, ld, 0);
    const REAL *argument = gain ? seen : x;
    for (ptrdiff_t b = 0; b < B; b++)
      for (ptrdiff_t j = 0; j < ld; j += LANES) {
        ptrdiff_t at = b * ld + j;
        NAME(vec) r = LOAD(before + at), s = NAME(phi)((int)n->phi, LOAD(argument + at));
        STORE(value + at, s);
        STORE(state + at, r + LOAD(alpha + j) * (s - r));
      }
    NAME(unpack)(state, ld, B, N, n->states + step * B * N);
  }
  free(arena.base), free(ranges);
  return 0;
}

/* From the gradient of the state after a step to that of x, and what is carried past the step. */
static void NAME(varying_slopes)(const NAME(varying) * n, const REAL *alpha, const REAL *kept,
                                 int64_t step, REAL *carry, REAL *slopes, REAL *delta) {
  const ptrdiff_t N = n->units, B = n->trials, ld = NAME(ld)(N), plane = B * ld;
  const REAL *value = kept + plane, *x = kept + 2 * plane;
  for (ptrdiff_t at = 0; at < plane; at += LANES)
    STORE(slopes + at, NAME(slope)((int)n->phi, LOAD(value + at)));
  for (ptrdiff_t b = 0; b < B; b++) {
    const REAL *restrict grad = n->grad + (step * B + b) * N, *restrict slope = slopes + b * ld;
    REAL *restrict held = carry + b * ld, *restrict out = delta + b * ld;
    for (ptrdiff_t j = 0; j < N; j++) {
      REAL multiplier = grad[j] + held[j], part = alpha[j] * multiplier;
      held[j] = multiplier - part;
      out[j] = part * slope[j];
    }
    if (n->gain) {
      const REAL *restrict gain = NAME(row_of)(n, n->gain, 0, step, b), *restrict seen = x + b * ld;
      REAL *restrict d_gain = (REAL *)NAME(row_of)(n, n->d_gain, 0, step, b);
      for (ptrdiff_t j = 0; j < N; j++) {
        d_gain[j] += out[j] * seen[j];
        out[j] *= gain[j];
      }
    }
    REAL *restrict d_current = (REAL *)NAME(row_of)(n, n->d_current, 0, step, b);
    for (ptrdiff_t j = 0; j < N; j++) d_current[j] += out[j];
  }
}

/* Returns 0, or 1 if there is no memory. */
int NAME(varying_backward)(const NAME(varying) * n) {
  const ptrdiff_t N = n->units, B = n->trials, ld = NAME(ld)(N), plane = B * ld, F = n->factors;
  const ptrdiff_t padded = NAME(pad)(N), planes = NAME(planes)(n);
  /* Weight gradients are gathered over as many steps as stay in the cache. */
  ptrdiff_t chunk = 196608 / (plane * (ptrdiff_t)sizeof(REAL) * (2 + 2 * F));
  chunk = chunk < 1 ? 1 : chunk > n->steps ? n->steps : chunk;
  NAME(arena) arena;
  ptrdiff_t need = 2 * N * ld + ld + (4 + chunk * (1 + 2 * F)) * plane + 16 * 16;
  range *ranges = NAME(reserve)(&arena, need, 1);
  if (!ranges) return 1;
  REAL *weights = NAME(take)(&arena, N * ld), *alpha = NAME(take)(&arena, ld);
  REAL *zeroed = arena.at, *sum = NAME(take)(&arena, N * ld), *carry = NAME(take)(&arena, plane);
  REAL *back = NAME(take)(&arena, plane), *pulled = NAME(take)(&arena, plane);
  REAL *slopes = NAME(take)(&arena, plane), *deltas = NAME(take)(&arena, chunk * plane);
  REAL *lefts = NAME(take)(&arena, F * chunk * plane), *rights = NAME(take)(&arena, F * chunk * plane);
  memset(zeroed, 0, (size_t)(arena.at - zeroed) * sizeof(REAL));
  NAME(pack)(n->weight, N, N, N, weights, ld);
  NAME(pack)(n->alpha, 0, 1, N, alpha, ld);
  for (int64_t end = n->steps; end > 0;) {
    int64_t from = end > chunk ? end - chunk : 0;
    for (int64_t step = end - 1; step >= from; step--) {
      const REAL *kept = n->kept + step * planes * plane, *before = kept;
      const REAL *y = kept + (planes - F) * plane;
      REAL *delta = deltas + (step - from) * plane;
      NAME(varying_slopes)(n, alpha, kept, step, carry, slopes, delta);
      if (n->keep_base) {
        NAME(product) t = {delta, ld, 1, 0, weights, ld, 0, back, ld, N, 1, 0};
        NAME(multiply)(&t, B, padded);
      } else {
        memset(back, 0, (size_t)plane * sizeof(REAL));
      }
      for (ptrdiff_t f = 0; f < F; f++) {
        ptrdiff_t at = (f * chunk + step - from) * plane;
        NAME(to_rows)(n, n->d_post, f, step, delta, y + f * plane, ld);
        NAME(by_rows)(n, n->post, f, step, delta, lefts + at, ld, 0);
        NAME(by_rows)(n, n->pre, f, step, before, rights + at, ld, 0);
        NAME(product) t = {lefts + at, ld, 1, 0, weights, ld, 0, pulled, ld, N, 1, 0};
        NAME(multiply)(&t, B, padded);
        NAME(to_rows)(n, n->d_pre, f, step, pulled, before, ld);
        NAME(by_rows)(n, n->pre, f, step, pulled, back, ld, 1);
      }
      for (ptrdiff_t at = 0; at < plane; at += LANES)
        STORE(carry + at, LOAD(carry + at) + LOAD(back + at));
    }
    ptrdiff_t count = end - from;
    if (n->keep_base) {
      NAME(product) t = {deltas, 1, ld, plane, n->kept + from * planes * plane, ld, planes * plane,
                         sum, ld, B, count, 1};
      NAME(multiply)(&t, N, padded);
    }
    for (ptrdiff_t f = 0; f < F; f++) {
      NAME(product) t = {lefts + f * chunk * plane, 1, ld, plane, rights + f * chunk * plane, ld,
                         plane, sum, ld, B, count, 1};
      NAME(multiply)(&t, N, padded);
    }
    end = from;
  }
  NAME(unpack)(sum, ld, N, N, n->d_weight);
  NAME(unpack)(carry, ld, B, N, n->d_start);
  free(arena.base), free(ranges);
  return 0;
}
