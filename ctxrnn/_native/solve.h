/* Newton steps of many states of one network: J d = b with J = W diag(s) - 1, or diag(s) W - 1.
 *
 * Units whose slope is 0 (relu, below its kink) need no factorisation. With the others first,
 *
 *     W diag(s) - 1 = [[P, 0], [Q, -1]],     diag(s) W - 1 = [[P, Q], [0, -1]],
 *
 * so that only P is factorised: by rows, in the cache, with partial pivoting, PANEL columns at a
 * time. The right sides are further columns.
 */
enum { PANEL = 4, WIDE = 8 };

typedef double vector __attribute__((vector_size(8 * WIDE)));
typedef double memory __attribute__((vector_size(8 * WIDE), aligned(8), may_alias));
#define AT(place) (*(memory *)(place))

/* Subtract multiples of the pivot rows from `count` rows, from column `from` on. */
static inline __attribute__((always_inline)) void eliminate(
    const int count, double *const *rows, double *const *pivots, ptrdiff_t first, ptrdiff_t from,
    ptrdiff_t width) {
  vector l[4][PANEL];
  _Pragma("GCC unroll 4") for (int r = 0; r < count; r++)
    _Pragma("GCC unroll 4") for (int q = 0; q < PANEL; q++) l[r][q] = (vector){0} + rows[r][first + q];
  for (ptrdiff_t j = from; j < width; j += WIDE) {
    vector u[PANEL];
    _Pragma("GCC unroll 4") for (int q = 0; q < PANEL; q++) u[q] = AT(pivots[q] + j);
    _Pragma("GCC unroll 4") for (int r = 0; r < count; r++) {
      vector sum = AT(rows[r] + j);
      _Pragma("GCC unroll 4") for (int q = 0; q < PANEL; q++) sum -= l[r][q] * u[q];
      AT(rows[r] + j) = sum;
    }
  }
}

/* Bring the row with the largest entry of column p to place p, and eliminate within the panel. */
static int pivot(double **rows, ptrdiff_t p, ptrdiff_t size, ptrdiff_t until) {
  ptrdiff_t best = p;
  for (ptrdiff_t i = p + 1; i < size; i++)
    if (fabs(rows[i][p]) > fabs(rows[best][p])) best = i;
  double *top = rows[best];
  rows[best] = rows[p], rows[p] = top;
  /* Neither 0, nor NaN, nor so small that its inverse is infinite. */
  if (!(fabs(top[p]) > 1e-300) || !isfinite(top[p])) return 0;
  const double inverse = 1 / top[p];
  for (ptrdiff_t i = p + 1; i < size; i++) {
    const double l = rows[i][p] *= inverse;
    for (ptrdiff_t j = p + 1; j < until; j++) rows[i][j] -= l * top[j];
  }
  return 1;
}

/* Solve P x = b; the rows are [P b], with room for WIDE numbers behind them, as behind x. Returns 0
 * where P is singular. */
static int solve_rows(double **rows, double *x, ptrdiff_t size, ptrdiff_t sides) {
  const ptrdiff_t width = size + sides;
  for (ptrdiff_t first = 0; first < size; first += PANEL) {
    const ptrdiff_t until = first + PANEL < size ? first + PANEL : size;
    for (ptrdiff_t p = first; p < until; p++)
      if (!pivot(rows, p, size, until)) return 0;
    for (ptrdiff_t p = first + 1; p < until; p++)
      for (ptrdiff_t q = first; q < p; q++)
        for (ptrdiff_t j = until; j < width; j++) rows[p][j] -= rows[p][q] * rows[q][j];
    if (until == size) break;
    ptrdiff_t i = until;
    for (; i + 4 <= size; i += 4) eliminate(4, rows + i, rows + first, first, until, width);
    for (; i < size; i++) eliminate(1, rows + i, rows + first, first, until, width);
  }
  for (ptrdiff_t side = size; side < width; side++) {
    for (ptrdiff_t p = 0; p < size + WIDE; p++) x[p] = 0;
    for (ptrdiff_t p = size - 1; p >= 0; p--) {
      vector sum = {0};
      for (ptrdiff_t j = p + 1; j < size; j += WIDE) sum += AT(rows[p] + j) * AT(x + j);
      double value = rows[p][side];
      for (int lane = 0; lane < WIDE; lane++) value -= sum[lane];
      x[p] = value / rows[p][p];
    }
    for (ptrdiff_t p = 0; p < size; p++) rows[p][side] = x[p];
  }
  return 1;
}

/* Args: weights (group, unit, unit) [post, pre]; group (point,); slope (point, unit); right and
 * out (point, side, unit); norm (point,), |P|. Singular systems give NaN. Returns 0 where there is
 * no memory. */
int newton_steps(const double *weights, const int64_t *group, const double *slope,
                 const double *right, double *out, double *norm, int64_t points, int64_t units,
                 int64_t sides, int64_t form) {
  const ptrdiff_t n = units, stride = (n + sides + WIDE - 1) / WIDE * WIDE + WIDE;
  double *matrix = malloc(sizeof(double) * (size_t)(n * stride + n + WIDE));
  double **rows = malloc(sizeof(double *) * (size_t)n);
  ptrdiff_t *busy = malloc(sizeof(ptrdiff_t) * (size_t)n);
  const int ready = matrix && rows && busy;
  for (ptrdiff_t point = 0; ready && point < points; point++) {
    const double *w = weights + group[point] * n * n, *s = slope + point * n;
    const double *b = right + point * sides * n;
    double *d = out + point * sides * n, *driving = matrix + n * stride, total = 0;
    vector square = {0};
    ptrdiff_t size = 0;
    for (ptrdiff_t i = 0; i < n; i++)
      if (s[i] != 0) busy[size++] = i;
    /* Units at rest: in the rate form d = -b, which those at work see. */
    for (ptrdiff_t k = 0; k < sides * n; k++) d[k] = -b[k];
    const ptrdiff_t behind = (size + sides + WIDE - 1) / WIDE * WIDE + WIDE;
    for (ptrdiff_t i = 0; i < size; i++) {
      const double *line = w + busy[i] * n, scale = form == RATE_FORM ? s[busy[i]] : 1;
      double *row = rows[i] = matrix + i * stride;
      if (form == RATE_FORM)
        for (ptrdiff_t j = 0; j < size; j++) row[j] = line[busy[j]] * scale;
      else if (size == n)
        for (ptrdiff_t j = 0; j < n; j++) row[j] = line[j] * s[j];
      else
        for (ptrdiff_t j = 0; j < size; j++) row[j] = line[busy[j]] * s[busy[j]];
      for (ptrdiff_t j = size; j < behind; j++) row[j] = 0;
      row[i] -= 1;
      for (ptrdiff_t j = 0; j < size; j += WIDE) square += AT(row + j) * AT(row + j);
      for (ptrdiff_t side = 0; side < sides; side++) {
        double value = b[side * n + busy[i]];
        if (form == RATE_FORM && size < n)
          for (ptrdiff_t j = 0; j < n; j++)
            value -= s[j] == 0 ? scale * line[j] * d[side * n + j] : 0;
        row[size + side] = value;
      }
    }
    for (int lane = 0; lane < WIDE; lane++) total += square[lane];
    norm[point] = size ? sqrt(total) : 1;
    if (!solve_rows(rows, driving, size, sides)) {
      for (ptrdiff_t k = 0; k < sides * n; k++) d[k] = NAN;
      continue;
    }
    for (ptrdiff_t side = 0; side < sides; side++) {
      double *found = d + side * n;
      if (form == CURRENT_FORM && size < n) {
        for (ptrdiff_t i = 0; i < n; i++) driving[i] = 0;
        for (ptrdiff_t i = 0; i < size; i++)
          driving[busy[i]] = s[busy[i]] * rows[i][size + side];
        for (ptrdiff_t i = 0; i < n; i++) {
          if (s[i] != 0) continue;
          double sum = 0;
          for (ptrdiff_t j = 0; j < n; j++) sum += w[i * n + j] * driving[j];
          found[i] += sum;
        }
      }
      for (ptrdiff_t i = 0; i < size; i++) found[busy[i]] = rows[i][size + side];
    }
  }
  free(matrix), free(rows), free(busy);
  return ready;
}
