/* Local layers of four units that see 2 x 2 windows, with their gradients, for several images at
   once. ../_local.py computes the same in torch.

   Axes: network, image, unit, row, and columns with orientations behind them as one line: a window
   one column to the right is a line that begins `step` later. Blocks of a line are held in vector
   registers for all units and up to four images, so that weights are read once for these. */

#include <stdint.h>

#define UNITS 4

typedef float wide __attribute__((vector_size(64), aligned(4), may_alias));
typedef float narrow __attribute__((vector_size(16), aligned(4), may_alias));
typedef float single __attribute__((may_alias));

typedef struct {
    int64_t networks, images, below, rows, line, step, rectify;
} Shape;

#define LOAD(type, at) (*(const type *)(at))
#define STORE(type, at, value) (*(type *)(at) = (value))

/* A block of `type` of all four units and COUNT images: W h + b. */
#define FORWARD(type, COUNT)                                                                       \
    static inline __attribute__((always_inline)) void forward_##type##_##COUNT(                    \
        const float *h, const float *w, const float *b, float *out, int below, int64_t line,       \
        int64_t step, int64_t plane, int64_t own, int rectify)                                     \
    {                                                                                              \
        type sum[COUNT][UNITS];                                                                    \
        for (int v = 0; v < UNITS; v++)                                                            \
            for (int i = 0; i < COUNT; i++)                                                        \
                sum[i][v] = LOAD(type, b + v * own);                                               \
        for (int p = 0; p < 4; p++)                                                                \
            for (int u = 0; u < below; u++) {                                                      \
                const float *seen = h + u * plane + (p / 2) * (line + step) + (p % 2) * step;      \
                type x[COUNT];                                                                     \
                for (int i = 0; i < COUNT; i++)                                                    \
                    x[i] = LOAD(type, seen + i * below * plane);                                   \
                for (int v = 0; v < UNITS; v++) {                                                  \
                    type factor = LOAD(type, w + ((v * 4 + p) * below + u) * own);                 \
                    for (int i = 0; i < COUNT; i++)                                                \
                        sum[i][v] += factor * x[i];                                                \
                }                                                                                  \
            }                                                                                      \
        for (int i = 0; i < COUNT; i++)                                                            \
            for (int v = 0; v < UNITS; v++) {                                                      \
                float *place = out + (i * UNITS + v) * own;                                        \
                STORE(type, place, sum[i][v]);                                                     \
                if (rectify)                                                                       \
                    for (unsigned k = 0; k < sizeof(type) / sizeof(float); k++)                    \
                        place[k] = place[k] > 0 ? place[k] : 0;                                    \
            }                                                                                      \
    }

/* Adds to the gradient of h what one row of the gradient of the sums gives through one place. */
#define BACKWARD(type, COUNT)                                                                      \
    static inline __attribute__((always_inline)) void backward_##type##_##COUNT(                   \
        const float *g, const float *w, float *found, int below, int64_t plane, int64_t own)       \
    {                                                                                              \
        type slope[COUNT][UNITS];                                                                  \
        for (int i = 0; i < COUNT; i++)                                                            \
            for (int v = 0; v < UNITS; v++)                                                        \
                slope[i][v] = LOAD(type, g + (i * UNITS + v) * own);                               \
        for (int u = 0; u < below; u++) {                                                          \
            type sum[COUNT];                                                                       \
            for (int i = 0; i < COUNT; i++)                                                        \
                sum[i] = LOAD(type, found + (i * below + u) * plane);                              \
            for (int v = 0; v < UNITS; v++) {                                                      \
                type factor = LOAD(type, w + (v * 4 * below + u) * own);                           \
                for (int i = 0; i < COUNT; i++)                                                    \
                    sum[i] += factor * slope[i][v];                                                \
            }                                                                                      \
            for (int i = 0; i < COUNT; i++)                                                        \
                STORE(type, found + (i * below + u) * plane, sum[i]);                              \
        }                                                                                          \
    }

/* The gradient of the weights of one unit below, summed over images. */
#define WEIGHTS(type)                                                                              \
    static inline __attribute__((always_inline)) void weights_##type(                              \
        const float *g, const float *h, float *into, int64_t images, int below, int64_t plane,     \
        int64_t own)                                                                               \
    {                                                                                              \
        type sum[UNITS] = {0};                                                                     \
        for (int64_t i = 0; i < images; i++) {                                                     \
            type x = LOAD(type, h + i * below * plane);                                            \
            for (int v = 0; v < UNITS; v++)                                                        \
                sum[v] += LOAD(type, g + (i * UNITS + v) * own) * x;                               \
        }                                                                                          \
        for (int v = 0; v < UNITS; v++)                                                            \
            STORE(type, into + v * 4 * below * own, sum[v]);                                       \
    }

#define KINDS(type) FORWARD(type, 4) FORWARD(type, 2) FORWARD(type, 1)                             \
    BACKWARD(type, 4) BACKWARD(type, 2) BACKWARD(type, 1) WEIGHTS(type)
KINDS(wide)
KINDS(narrow)
KINDS(single)

#define ALONG(line, WIDE, NARROW, SINGLE)                                                          \
    do {                                                                                           \
        int64_t j = 0;                                                                             \
        for (; j + 16 <= (line); j += 16) { WIDE; }                                                \
        for (; j + 4 <= (line); j += 4) { NARROW; }                                                \
        for (; j < (line); j++) { SINGLE; }                                                        \
    } while (0)

#define FORWARD_LINE(COUNT, BELOW)                                                                 \
    ALONG(line,                                                                                    \
        forward_wide_##COUNT(x + j, w + j, b + j, o + j, BELOW, line, step, plane, own, rectify),   \
        forward_narrow_##COUNT(x + j, w + j, b + j, o + j, BELOW, line, step, plane, own, rectify), \
        forward_single_##COUNT(x + j, w + j, b + j, o + j, BELOW, line, step, plane, own, rectify))

#define FORWARD_IMAGES(COUNT)                                                                      \
    if (s->below == UNITS) FORWARD_LINE(COUNT, UNITS);                                             \
    else FORWARD_LINE(COUNT, 1);

static void forward_layer(
    const Shape *s, const float *h, const float *weights, const float *bias, float *out)
{
    int64_t line = s->line, step = s->step, own = s->rows * line;
    int64_t plane = (s->rows + 1) * (line + step), below = s->below;
    int rectify = (int)s->rectify;
    for (int64_t n = 0; n < s->networks; n++) {
        const float *w0 = weights + n * UNITS * 4 * below * own;
        const float *b0 = bias + n * UNITS * own;
        for (int64_t row = 0; row < s->rows; row++) {
            const float *w = w0 + row * line, *b = b0 + row * line;
            for (int64_t i = 0; i < s->images;) {
                int64_t image = n * s->images + i;
                const float *x = h + image * below * plane + row * (line + step);
                float *o = out + image * UNITS * own + row * line;
                if (s->images - i >= 4) { FORWARD_IMAGES(4) i += 4; }
                else if (s->images - i >= 2) { FORWARD_IMAGES(2) i += 2; }
                else { FORWARD_IMAGES(1) i += 1; }
            }
        }
    }
}

#define BACKWARD_LINE(COUNT, BELOW)                                                                \
    ALONG(line,                                                                                    \
        backward_wide_##COUNT(g + j, w + j, f + j, BELOW, plane, own),                             \
        backward_narrow_##COUNT(g + j, w + j, f + j, BELOW, plane, own),                           \
        backward_single_##COUNT(g + j, w + j, f + j, BELOW, plane, own))

#define BACKWARD_IMAGES(COUNT)                                                                     \
    if (s->below == UNITS) BACKWARD_LINE(COUNT, UNITS);                                            \
    else BACKWARD_LINE(COUNT, 1);

/* `found` must be 0 before. */
static void backward_layer(const Shape *s, const float *slopes, const float *weights, float *found)
{
    int64_t line = s->line, step = s->step, own = s->rows * line;
    int64_t plane = (s->rows + 1) * (line + step), below = s->below;
    for (int64_t n = 0; n < s->networks; n++) {
        const float *w0 = weights + n * UNITS * 4 * below * own;
        for (int64_t row = 0; row < s->rows; row++)
            for (int p = 0; p < 4; p++) {
                const float *w = w0 + p * below * own + row * line;
                int64_t offset = (row + p / 2) * (line + step) + (p % 2) * step;
                for (int64_t i = 0; i < s->images;) {
                    int64_t image = n * s->images + i;
                    const float *g = slopes + image * UNITS * own + row * line;
                    float *f = found + image * below * plane + offset;
                    if (s->images - i >= 4) { BACKWARD_IMAGES(4) i += 4; }
                    else if (s->images - i >= 2) { BACKWARD_IMAGES(2) i += 2; }
                    else { BACKWARD_IMAGES(1) i += 1; }
                }
            }
    }
}

/* Each network has weights of its own here. */
static void weight_layer(const Shape *s, const float *slopes, const float *h, float *into)
{
    int64_t line = s->line, step = s->step, own = s->rows * line;
    int64_t plane = (s->rows + 1) * (line + step), images = s->images;
    int below = (int)s->below;
    for (int64_t n = 0; n < s->networks; n++)
        for (int p = 0; p < 4; p++)
            for (int u = 0; u < below; u++)
                for (int64_t row = 0; row < s->rows; row++) {
                    const float *g = slopes + n * images * UNITS * own + row * line;
                    const float *x = h + (n * images * below + u) * plane
                        + (row + p / 2) * (line + step) + (p % 2) * step;
                    float *f = into + n * UNITS * 4 * below * own + (p * below + u) * own + row * line;
                    ALONG(line,
                        weights_wide(g + j, x + j, f + j, images, below, plane, own),
                        weights_narrow(g + j, x + j, f + j, images, below, plane, own),
                        weights_single(g + j, x + j, f + j, images, below, plane, own));
                }
}
