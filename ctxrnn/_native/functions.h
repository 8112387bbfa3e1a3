/* Nonlinearities and their slopes on vectors. Single precision: Cephes' polynomials, errors of a
 * few units in the last place; double precision: the C library, one number at a time. NaN stays
 * NaN in all of them, so that a diverging network is seen.
 */
#define EACH(x, expression)                                          \
  NAME(vec) y_;                                                      \
  for (int lane = 0; lane < LANES; lane++) {                         \
    REAL v = (x)[lane];                                              \
    y_[lane] = (expression);                                         \
  }                                                                  \
  return y_;

#ifdef DOUBLE_PRECISION
typedef int64_t NAME(mask) __attribute__((vector_size(64)));
static inline NAME(vec) NAME(exponential)(NAME(vec) x) { EACH(x, exp(v)) }
static inline NAME(vec) NAME(tangent)(NAME(vec) x) { EACH(x, tanh(v)) }
static inline NAME(vec) NAME(softplus)(NAME(vec) x) {
  EACH(x, (v > 0 ? v : v - v) + log1p(exp(v > 0 ? -v : v)))
}
static inline NAME(vec) NAME(softplus_slope)(NAME(vec) r) { EACH(r, -expm1(-v)) }
#else
typedef int32_t NAME(mask) __attribute__((vector_size(64)));
static inline NAME(vec) NAME(pick)(NAME(mask) where, NAME(vec) yes, NAME(vec) no) {
  return (NAME(vec))(((NAME(mask))yes & where) | ((NAME(mask))no & ~where));
}
static inline NAME(vec) NAME(constant)(REAL value) { return (NAME(vec)){0} + value; }

static inline NAME(vec) NAME(exponential)(NAME(vec) x) {
  x = NAME(pick)(x > 88.0f, NAME(constant)(88.0f), x);
  x = NAME(pick)(x < -87.0f, NAME(constant)(-87.0f), x);
  NAME(vec) n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
  NAME(vec) f = x - n * 0.693359375f;
  f = f + n * 2.12194440e-4f;
  NAME(vec) p = 1.9875691500e-4f * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  NAME(mask) power = (__builtin_convertvector(n, NAME(mask)) + 127) << 23;
  return p * (NAME(vec))power;
}

static inline NAME(vec) NAME(tangent)(NAME(vec) x) {
  NAME(mask) sign = (NAME(mask))x & INT32_MIN;
  NAME(vec) size = (NAME(vec))((NAME(mask))x ^ sign), z = x * x;
  NAME(vec) near = -5.70498872745e-3f * z + 2.06390887954e-2f;
  near = near * z - 5.37397155531e-2f;
  near = near * z + 1.33314422036e-1f;
  near = near * z - 3.33332819422e-1f;
  near = near * z * x + x;
  NAME(vec) far = 1.0f - 2.0f / (NAME(exponential)(2.0f * size) + 1.0f);
  far = (NAME(vec))((NAME(mask))far | sign);
  return NAME(pick)(size < 0.625f, near, far);
}

static inline NAME(vec) NAME(softplus)(NAME(vec) x) {
  NAME(mask) positive = x > 0.0f;
  NAME(vec) e = NAME(exponential)(NAME(pick)(positive, -x, x)), u = e + 1.0f;
  /* ln(1 + e) without the loss of digits in 1 + e (Kahan). */
  NAME(vec) exact = log_unit(u) * e / (u - 1.0f);
  NAME(vec) part = NAME(pick)(u == 1.0f, e, exact);
  return NAME(pick)(positive, x + part, part);
}

static inline NAME(vec) NAME(softplus_slope)(NAME(vec) r) {
  NAME(vec) near = r * (1.0f - r * 0.5f * (1.0f - r * (1.0f / 3) * (1.0f - r * 0.25f)));
  return NAME(pick)(r < 0.05f, near, 1.0f - NAME(exponential)(-r));
}
#endif

static inline NAME(vec) NAME(sigmoid)(NAME(vec) x) {
  return (REAL)1 / ((REAL)1 + NAME(exponential)(-x));
}
static inline NAME(vec) NAME(relu)(NAME(vec) x) {
  return (NAME(vec))((NAME(mask))x & ~(NAME(mask))(x <= (REAL)0));
}

static inline NAME(vec) NAME(phi)(int kind, NAME(vec) x) {
  switch (kind) {
    case TANH: return NAME(tangent)(x);
    case RELU: return NAME(relu)(x);
    case SIGMOID: return NAME(sigmoid)(x);
    default: return NAME(softplus)(x);
  }
}

/* The slope of phi as a function of its value. */
static inline NAME(vec) NAME(slope)(int kind, NAME(vec) r) {
  switch (kind) {
    case TANH: return (REAL)1 - r * r;
    case RELU: return (NAME(vec))((NAME(mask))((NAME(vec)){0} + (REAL)1) & (NAME(mask))(r > (REAL)0));
    case SIGMOID: return r * ((REAL)1 - r);
    default: return NAME(softplus_slope)(r);
  }
}
