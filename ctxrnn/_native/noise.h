/* Standard normal numbers by counter: Threefry-4x32-20 (Salmon et al. 2011) and Box-Muller.
 *
 * Numbers are a function of (key, step, place), so that any part can be drawn again. 64 numbers
 * come from 16 counters: words 0 and 1 of a counter give the first two, 2 and 3 the others.
 */
typedef float f16 __attribute__((vector_size(64)));
typedef uint32_t u16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));

#define BLOCK 64

static inline u16 rotate(u16 x, int by) { return (x << by) | (x >> (32 - by)); }

/* Several blocks side by side: one alone waits for each result before the next step. */
#define TOGETHER 4

static inline void threefry(u16 x[TOGETHER][4], const uint32_t key[4]) {
  static const int turns[8][2] = {{10, 26}, {11, 21}, {13, 27}, {23, 5},
                                  {6, 20},  {17, 11}, {25, 10}, {18, 20}};
  const uint32_t schedule[5] = {key[0], key[1], key[2], key[3],
                                0x1BD11BDAu ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
#pragma GCC unroll 4
  for (int b = 0; b < TOGETHER; b++)
    for (int word = 0; word < 4; word++) x[b][word] += schedule[word];
#pragma GCC unroll 20
  for (int round = 0; round < 20; round++) {
    const int *by = turns[round % 8];
    const int one = round % 2 ? 3 : 1, other = 4 - one;
#pragma GCC unroll 4
    for (int b = 0; b < TOGETHER; b++) {
      x[b][0] += x[b][one], x[b][one] = rotate(x[b][one], by[0]) ^ x[b][0];
      x[b][2] += x[b][other], x[b][other] = rotate(x[b][other], by[1]) ^ x[b][2];
    }
    if (round % 4 < 3) continue;
    const uint32_t injection = round / 4 + 1;
#pragma GCC unroll 4
    for (int b = 0; b < TOGETHER; b++) {
      for (int word = 0; word < 4; word++) x[b][word] += schedule[(injection + word) % 5];
      x[b][3] += injection;
    }
  }
}

/* ln x for x in (0, 1]; relative error below 2e-7 (polynomial of Cephes' logf). */
static inline f16 log_unit(f16 x) {
  i16 bits = (i16)x;
  i16 exponent = (bits >> 23) - 126;
  f16 m = (f16)((bits & 0x007fffff) | 0x3f000000); /* [0.5, 1) */
  i16 low = m < 0.70710678f;
  exponent += low; /* a true comparison is -1 */
  m = m + (f16)((i16)m & low) - 1.0f;
  f16 e = __builtin_convertvector(exponent, f16), z = m * m;
  f16 p = 7.0376836292e-2f * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  p = p * m * z - 2.12194440e-4f * e - 0.5f * z;
  return m + p + 0.693359375f * e;
}

/* Two words to two normals. The angle is a quadrant (2 bits) and a part of it (30 bits). */
static inline void box_muller(u16 first, u16 second, f16 *one, f16 *two) {
  f16 unit = __builtin_convertvector(first, f16) * 0x1p-32f + 0x1p-33f;
  i16 over = unit > 1.0f;
  unit = (f16)(((i16)unit & ~over) | ((i16)(unit * 0 + 1.0f) & over));
  f16 square = -2.0f * log_unit(unit), radius;
  i16 negative = square < 0.0f;
  square = (f16)((i16)square & ~negative);
  for (int lane = 0; lane < 16; lane++) radius[lane] = sqrtf(square[lane]);
  i16 part = (i16)(second << 2) >> 2; /* signed 30 bits: [-1/2, 1/2) of a quadrant */
  f16 angle = __builtin_convertvector(part, f16) * (float)(1.5707963267948966 * 0x1p-30);
  f16 z = angle * angle;
  f16 s = -1.9515295891e-4f * z + 8.3321608736e-3f;
  s = (s * z - 1.6666654611e-1f) * z * angle + angle;
  f16 c = 2.443315711809948e-5f * z - 1.388731625493765e-3f;
  c = (c * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
  u16 quadrant = second >> 30;
  i16 swap = (i16)(0 - (quadrant & 1));
  i16 s_bits = (i16)s, c_bits = (i16)c;
  i16 sine = (s_bits & ~swap) | (c_bits & swap), cosine = (c_bits & ~swap) | (s_bits & swap);
  /* Signs by quadrant: sine is turned in 2 and 3, cosine in 1 and 2. */
  sine ^= (i16)((quadrant >> 1) << 31);
  cosine ^= (i16)(((quadrant ^ (quadrant >> 1)) & 1) << 31);
  *one = radius * (f16)cosine;
  *two = radius * (f16)sine;
}

/* Fill the places from `start` to `stop` of one step, and perhaps some before `start`. */
static void normals_between(const uint32_t *key, int64_t step, int64_t start, int64_t stop,
                            float *out) {
  const u16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const int64_t whole = TOGETHER * BLOCK;
  for (int64_t at = start / whole * whole; at < stop; at += whole) {
    u16 x[TOGETHER][4];
    f16 block[4 * TOGETHER];
    for (int b = 0; b < TOGETHER; b++) {
      x[b][0] = lanes + (uint32_t)(at / BLOCK + b) * 16u;
      x[b][1] = (u16){0} + (uint32_t)step;
      x[b][2] = x[b][3] = (u16){0};
    }
    threefry(x, key);
#pragma GCC unroll 4
    for (int b = 0; b < TOGETHER; b++)
#pragma GCC unroll 2
      for (int pair = 0; pair < 2; pair++)
        box_muller(x[b][2 * pair], x[b][2 * pair + 1], &block[4 * b + 2 * pair],
                   &block[4 * b + 2 * pair + 1]);
    int64_t left = stop - at < whole ? stop - at : whole;
    memcpy(out + at, block, (size_t)left * sizeof(float));
  }
}

/* Fill `count` numbers of one step. */
void normals(const uint32_t *key, int64_t step, int64_t count, float *out) {
  normals_between(key, step, 0, count, out);
}

/* The bare generator, to be compared with published values. */
void threefry_words(const uint32_t *key, const uint32_t *counter, uint32_t *out) {
  u16 x[TOGETHER][4];
  for (int b = 0; b < TOGETHER; b++)
    for (int word = 0; word < 4; word++) x[b][word] = (u16){0} + counter[word];
  threefry(x, key);
  for (int word = 0; word < 4; word++) out[word] = x[0][word][0];
}
