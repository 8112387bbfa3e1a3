/* Losses of a batch and their gradients with respect to the outputs.
 *
 * `weight` holds what each step of each trial counts, (row,); the loss is sum_row weight * error.
 * A row is one step of one trial.
 */
static inline NAME(vec) NAME(logarithm)(NAME(vec) x) {
#ifdef DOUBLE_PRECISION
  EACH(x, log(v))
#else
  return log_unit(x);
#endif
}

/* Softmax cross-entropy of up to LANES rows side by side; `part` holds a vector per output. */
static inline __attribute__((always_inline)) double NAME(cross_entropy_rows)(
    const REAL *out, const int64_t *target, const REAL *weight, int64_t count, int64_t outputs,
    NAME(vec) *part, REAL *grad) {
  NAME(vec) share = {0}, hit = {0}, top = {0}, sum = {0};
  int any = 0;
  double total = 0;
  for (int64_t lane = 0; lane < count; lane++) {
    share[lane] = weight[lane];
    any |= weight[lane] != 0;
  }
  if (!any) {
    memset(grad, 0, (size_t)(count * outputs) * sizeof(REAL));
    return 0;
  }
  for (int64_t o = 0; o < outputs; o++) {
    NAME(vec) logit = {0};
    for (int64_t lane = 0; lane < count; lane++) logit[lane] = out[lane * outputs + o];
    part[o] = logit;
    if (!o) top = logit;
    NAME(mask) higher = logit > top;
    top = (NAME(vec))(((NAME(mask))logit & higher) | ((NAME(mask))top & ~higher));
  }
  for (int64_t lane = 0; lane < count; lane++) hit[lane] = out[lane * outputs + target[lane]];
  for (int64_t o = 0; o < outputs; o++) sum += part[o] = NAME(exponential)(part[o] - top);
  NAME(vec) error = share * (NAME(logarithm)(sum) + top - hit), scale = share / sum;
  for (int64_t lane = 0; lane < count; lane++) total += (double)error[lane];
  for (int64_t o = 0; o < outputs; o++) {
    NAME(vec) gradient = part[o] * scale;
    for (int64_t lane = 0; lane < count; lane++) grad[lane * outputs + o] = gradient[lane];
  }
  for (int64_t lane = 0; lane < count; lane++)
    grad[lane * outputs + target[lane]] -= share[lane];
  return total;
}

/* Returns minus infinity, which no loss is, if there is no memory. */
double NAME(cross_entropy)(const REAL *out, const int64_t *target, const REAL *weight, int64_t rows,
                           int64_t outputs, REAL *grad) {
  NAME(vec) *part = aligned_alloc(64, (size_t)outputs * sizeof(NAME(vec)));
  if (!part) return -HUGE_VAL;
  double total = 0;
  int64_t row = 0;
  /* The number of lanes is known to the compiler in all but the last rows. */
  for (; row + LANES <= rows; row += LANES)
    total += NAME(cross_entropy_rows)(out + row * outputs, target + row, weight + row, LANES,
                                      outputs, part, grad + row * outputs);
  if (row < rows)
    total += NAME(cross_entropy_rows)(out + row * outputs, target + row, weight + row, rows - row,
                                      outputs, part, grad + row * outputs);
  free(part);
  return total;
}

/* Mean over outputs of the squared difference. */
double NAME(squared_error)(const REAL *out, const REAL *target, const REAL *weight, int64_t rows,
                           int64_t outputs, REAL *grad) {
  double total = 0;
  for (int64_t row = 0; row < rows; row++) {
    REAL sum = 0, scale = weight[row] / (REAL)outputs;
    for (int64_t at = row * outputs; at < (row + 1) * outputs; at++) {
      REAL difference = out[at] - target[at];
      sum += difference * difference;
      grad[at] = 2 * scale * difference;
    }
    total += (double)(sum * scale);
  }
  return total;
}

/* Forward, loss and backward; `grad_out` is written. Returns 0, or 1 if there is no memory. */
int NAME(gradient)(const NAME(loop) * n) {
  if (NAME(forward)(n)) return 1;
  int64_t rows = n->steps * n->trials;
  REAL *grad = (REAL *)n->grad_out;
  if (n->classes)
    *n->loss = NAME(cross_entropy)(n->out, n->classes, n->weight, rows, n->outputs, grad);
  else
    *n->loss = NAME(squared_error)(n->out, n->wanted, n->weight, rows, n->outputs, grad);
  return *n->loss == -HUGE_VAL || NAME(backward)(n);
}
