/* out (+)= A P by tiles held in registers. A is read number by number with any strides, so that
 * the same code makes A P and A^T P; P's rows are read as vectors. The depth may come in blocks,
 * as when an outer product is summed over time steps.
 */
typedef REAL NAME(vec) __attribute__((vector_size(64)));
typedef REAL NAME(mem) __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias));

typedef struct {
  const REAL *a;
  ptrdiff_t row, col, a_block; /* strides of A: by row, along the depth, by block */
  const REAL *p;
  ptrdiff_t p_row, p_block;
  REAL *out;
  ptrdiff_t out_row;
  ptrdiff_t depth, blocks;
  int add;
} NAME(product);

#define LOAD(at) ((NAME(vec)) * (const NAME(mem) *)(at))
#define STORE(at, value) (*(NAME(mem) *)(at) = (value))

#ifndef TILES
#define TILES
#define UNROLL _Pragma("GCC unroll 12")
#define TILE(ROWS, VECS)                                                                          \
  static void NAME(tile_##ROWS##_##VECS)(const NAME(product) * t, ptrdiff_t i, ptrdiff_t j) {     \
    NAME(vec) acc[ROWS][VECS];                                                                    \
    REAL *out = t->out + i * t->out_row + j;                                                      \
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < VECS; v++)                   \
        acc[r][v] = t->add ? LOAD(out + r * t->out_row + v * LANES) : (NAME(vec)){0};             \
    const ptrdiff_t row = t->row, col = t->col, p_row = t->p_row, depth = t->depth;               \
    for (ptrdiff_t block = 0; block < t->blocks; block++) {                                       \
      const REAL *a = t->a + i * row + block * t->a_block, *p = t->p + j + block * t->p_block;    \
      for (ptrdiff_t k = 0; k < depth; k++, a += col, p += p_row) {                               \
        NAME(vec) b[VECS];                                                                        \
        UNROLL for (int v = 0; v < VECS; v++) b[v] = LOAD(p + v * LANES);                         \
        UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < VECS; v++)               \
            acc[r][v] += a[r * row] * b[v];                                                       \
      }                                                                                           \
    }                                                                                             \
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < VECS; v++)                   \
        STORE(out + r * t->out_row + v * LANES, acc[r][v]);                                       \
  }

/* Tiles that fill the registers: 32 of 64 bytes with AVX-512, a quarter to a half of that
 * elsewhere. */
#ifdef __AVX512F__
#define WIDEST 4
#define TALLEST(vecs) ((vecs) == 4 ? 6 : (vecs) == 3 ? 8 : 12)
#else
#define WIDEST 1
#define TALLEST(vecs) 6
#endif
#define TILES_TO_6(VECS) \
  TILE(1, VECS) TILE(2, VECS) TILE(3, VECS) TILE(4, VECS) TILE(5, VECS) TILE(6, VECS)
#define TILES_TO_8(VECS) TILES_TO_6(VECS) TILE(7, VECS) TILE(8, VECS)
#define TILES_TO_12(VECS) \
  TILES_TO_8(VECS) TILE(9, VECS) TILE(10, VECS) TILE(11, VECS) TILE(12, VECS)
#define CASE(ROWS, VECS)                  \
  case ROWS:                              \
    NAME(tile_##ROWS##_##VECS)(t, i, j);  \
    break;
#define CASES_TO_6(VECS) \
  CASE(1, VECS) CASE(2, VECS) CASE(3, VECS) CASE(4, VECS) CASE(5, VECS) CASE(6, VECS)
#define CASES_TO_8(VECS) CASES_TO_6(VECS) CASE(7, VECS) CASE(8, VECS)
#define CASES_TO_12(VECS) \
  CASES_TO_8(VECS) CASE(9, VECS) CASE(10, VECS) CASE(11, VECS) CASE(12, VECS)
#endif

#ifdef __AVX512F__
TILES_TO_12(1)
TILES_TO_12(2)
TILES_TO_8(3)
TILES_TO_6(4)
#else
TILES_TO_6(1)
#endif

static void NAME(tile)(const NAME(product) * t, ptrdiff_t i, ptrdiff_t j, int rows, int vecs) {
#ifdef __AVX512F__
  if (vecs == 4) switch (rows) { CASES_TO_6(4) }
  if (vecs == 3) switch (rows) { CASES_TO_8(3) }
  if (vecs == 2) switch (rows) { CASES_TO_12(2) }
#endif
  if (vecs == 1) switch (rows) {
#ifdef __AVX512F__
      CASES_TO_12(1)
#else
      CASES_TO_6(1)
#endif
    }
}

/* `cols` is a multiple of LANES. */
static void NAME(multiply)(const NAME(product) * t, ptrdiff_t rows, ptrdiff_t cols) {
  ptrdiff_t vecs = cols / LANES, wide = (vecs + WIDEST - 1) / WIDEST;
  for (ptrdiff_t block = 0, j = 0; block < wide; block++) {
    /* Columns and rows are shared out evenly: 7 rows are 4 + 3, not 6 + 1. */
    int width = (int)((vecs - j + wide - block - 1) / (wide - block));
    ptrdiff_t tall = (rows + TALLEST(width) - 1) / TALLEST(width);
    for (ptrdiff_t part = 0, i = 0; part < tall; part++) {
      int height = (int)((rows - i + tall - part - 1) / (tall - part));
      NAME(tile)(t, i, j * LANES, height, width);
      i += height;
    }
    j += width;
  }
}
