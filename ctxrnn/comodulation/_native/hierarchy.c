/* The hierarchical network: its layers, and the passes that are made after every minibatch, with
   all activity of a few images kept in the cache. Loaded by ctypes; see ../_local.py. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers.h"

#define TOGETHER 4 /* images */
#define CLASSES 64

/* Tells whether the library belongs to the sources beside it. */
int64_t local_source(void) { return LOCAL_SOURCE; }

void local_forward(const Shape *s, const float *h, const float *w, const float *b, float *out)
{
    forward_layer(s, h, w, b, out);
}

void local_backward(const Shape *s, const float *slopes, const float *w, float *found)
{
    backward_layer(s, slopes, w, found);
}

void local_weights(const Shape *s, const float *slopes, const float *h, float *into)
{
    weight_layer(s, slopes, h, into);
}

/* One network's weights; `first` and `second` are the sizes of the hidden layers. */
typedef struct {
    int64_t positions, orientations, classes;
    const float *w1, *b1, *w2, *b2, *out, *bias;
} Net;

typedef struct {
    Shape first, second;
    int64_t encoder, h1, h2;
} Sizes;

static Sizes sizes_of(const Net *net)
{
    int64_t n = net->positions, o = net->orientations;
    Sizes z = {
        {1, 0, 1, n - 1, (n - 1) * o, o, 1}, {1, 0, UNITS, n - 2, (n - 2) * o, o, 1},
        n * n * o, UNITS * (n - 1) * (n - 1) * o, UNITS * (n - 2) * (n - 2) * o};
    return z;
}

static _Thread_local float *kept;
static _Thread_local size_t kept_count;

/* Memory that stays with the thread. */
static float *scratch(size_t count)
{
    if (count > kept_count) {
        free(kept);
        kept = malloc(count * sizeof(float));
        kept_count = kept ? count : 0;
    }
    return kept;
}

static void run(const Net *net, Sizes *z, int64_t images, const float *seen, float *h1, float *h2)
{
    z->first.images = z->second.images = images;
    forward_layer(&z->first, seen, net->w1, net->b1, h1);
    forward_layer(&z->second, h1, net->w2, net->b2, h2);
}

static float dot(const float *a, const float *b, const float *gain, int64_t count)
{
    wide sum = {0};
    int64_t k = 0;
    float rest = 0;
    if (gain) {
        for (; k + 16 <= count; k += 16)
            sum += LOAD(wide, a + k) * LOAD(wide, b + k) * LOAD(wide, gain + k);
        for (; k < count; k++)
            rest += a[k] * b[k] * gain[k];
    } else {
        for (; k + 16 <= count; k += 16)
            sum += LOAD(wide, a + k) * LOAD(wide, b + k);
        for (; k < count; k++)
            rest += a[k] * b[k];
    }
    for (int i = 0; i < 16; i++)
        rest += sum[i];
    return rest;
}

/* Log probabilities of images, (image, class). `factor` multiplies every drive; it and the gain may
   be missing. Returns 0, or 1 without memory. */
int hierarchy_read(
    const Net *net, int64_t images, const float *drive, const float *factor, const float *gain,
    float *log_p)
{
    Sizes z = sizes_of(net);
    float *seen = scratch(TOGETHER * (z.encoder + z.h1 + z.h2));
    if (!seen)
        return 1;
    float *h1 = seen + TOGETHER * z.encoder, *h2 = h1 + TOGETHER * z.h1;
    for (int64_t i = 0; i < images; i += TOGETHER) {
        int64_t count = images - i < TOGETHER ? images - i : TOGETHER;
        const float *shown = drive + i * z.encoder;
        if (factor) {
            for (int64_t b = 0; b < count; b++)
                for (int64_t k = 0; k < z.encoder; k++)
                    seen[b * z.encoder + k] = shown[b * z.encoder + k] * factor[k];
            shown = seen;
        }
        run(net, &z, count, shown, h1, h2);
        for (int64_t b = 0; b < count; b++) {
            float *own = log_p + (i + b) * net->classes, most = -INFINITY;
            double sum = 0;
            for (int64_t c = 0; c < net->classes; c++) {
                own[c] = net->bias[c] + dot(net->out + c * z.h2, h2 + b * z.h2, gain, z.h2);
                most = own[c] > most ? own[c] : most;
            }
            for (int64_t c = 0; c < net->classes; c++)
                sum += exp((double)own[c] - most);
            for (int64_t c = 0; c < net->classes; c++)
                own[c] = (float)(own[c] - most - log(sum));
        }
    }
    return 0;
}

/* Gradient of the mean loss with respect to c, where the drive is multiplied by factor = exp(c), for
   networks that share weights. drive (network, image, unit), labels (network, image), factor and
   found (network, unit), gain (network, unit of the last layer). */
int hierarchy_descend(
    const Net *net, int64_t networks, int64_t images, const float *drive, const int64_t *labels,
    const float *factor, const float *gain, float *found)
{
    Sizes z = sizes_of(net);
    int64_t e = z.encoder;
    float *seen = scratch(TOGETHER * 2 * (e + z.h1 + z.h2));
    if (!seen || net->classes > CLASSES)
        return 1;
    float *h1 = seen + TOGETHER * e, *h2 = h1 + TOGETHER * z.h1;
    float *d2 = h2 + TOGETHER * z.h2, *d1 = d2 + TOGETHER * z.h2, *d0 = d1 + TOGETHER * z.h1;
    memset(found, 0, networks * e * sizeof(float));
    /* All images of all networks, one after another. */
    for (int64_t i = 0; i < networks * images; i += TOGETHER) {
        int64_t count = networks * images - i < TOGETHER ? networks * images - i : TOGETHER;
        for (int64_t b = 0; b < count; b++) {
            const float *own = factor + (i + b) / images * e, *shown = drive + (i + b) * e;
            for (int64_t k = 0; k < e; k++)
                seen[b * e + k] = shown[k] * own[k];
        }
        run(net, &z, count, seen, h1, h2);
        for (int64_t b = 0; b < count; b++) {
            const float *g = gain + (i + b) / images * z.h2, *h = h2 + b * z.h2;
            float p[CLASSES], most = -INFINITY, sum = 0, *d = d2 + b * z.h2;
            for (int64_t c = 0; c < net->classes; c++) {
                p[c] = net->bias[c] + dot(net->out + c * z.h2, h, g, z.h2);
                most = p[c] > most ? p[c] : most;
            }
            for (int64_t c = 0; c < net->classes; c++)
                sum += p[c] = expf(p[c] - most);
            for (int64_t c = 0; c < net->classes; c++)
                p[c] = (p[c] / sum - (c == labels[i + b])) / images;
            for (int64_t k = 0; k < z.h2; k += 256) {
                int64_t last = k + 256 < z.h2 ? k + 256 : z.h2;
                for (int64_t j = k; j < last; j++)
                    d[j] = p[0] * net->out[j];
                for (int64_t c = 1; c < net->classes; c++)
                    for (int64_t j = k; j < last; j++)
                        d[j] += p[c] * net->out[c * z.h2 + j];
                for (int64_t j = k; j < last; j++)
                    d[j] = h[j] > 0 ? d[j] * g[j] : 0;
            }
        }
        memset(d1, 0, (count * z.h1) * sizeof(float));
        memset(d0, 0, (count * e) * sizeof(float));
        backward_layer(&z.second, d2, net->w2, d1);
        for (int64_t k = 0; k < count * z.h1; k++)
            d1[k] = h1[k] > 0 ? d1[k] : 0;
        backward_layer(&z.first, d1, net->w1, d0);
        for (int64_t b = 0; b < count; b++) {
            float *own = found + (i + b) / images * e;
            for (int64_t k = 0; k < e; k++)
                own[k] += d0[b * e + k] * seen[b * e + k];
        }
    }
    return 0;
}

/* q = sum over images and nodes of share x h. drive (network, image, unit), shared (network, node,
   unit), share (network, node), q (network, unit of the last layer). */
int hierarchy_covariance(
    const Net *net, int64_t networks, int64_t images, int64_t nodes, const float *drive,
    const float *shared, const float *share, float *q)
{
    Sizes z = sizes_of(net);
    int64_t e = z.encoder;
    float *seen = scratch(TOGETHER * (e + z.h1 + z.h2));
    if (!seen)
        return 1;
    float *h1 = seen + TOGETHER * e, *h2 = h1 + TOGETHER * z.h1;
    memset(q, 0, networks * z.h2 * sizeof(float));
    for (int64_t n = 0; n < networks; n++)
        for (int64_t i = 0; i < images; i++)
            for (int64_t t = 0; t < nodes; t += TOGETHER) {
                int64_t count = nodes - t < TOGETHER ? nodes - t : TOGETHER;
                const float *shown = drive + (n * images + i) * e;
                for (int64_t b = 0; b < count; b++) {
                    const float *own = shared + (n * nodes + t + b) * e;
                    for (int64_t k = 0; k < e; k++)
                        seen[b * e + k] = shown[k] * own[k];
                }
                run(net, &z, count, seen, h1, h2);
                for (int64_t b = 0; b < count; b++) {
                    float weight = share[n * nodes + t + b], *own = q + n * z.h2;
                    for (int64_t k = 0; k < z.h2; k++)
                        own[k] += weight * h2[b * z.h2 + k];
                }
            }
    return 0;
}

/* One step of Adam: `rate` over the first moment's correction, `root` one over the root of the
   second's. */
void adam_step(
    float *restrict values, float *restrict mean, float *restrict square,
    const float *restrict gradient, int64_t count, const float *restrict how)
{
    float beta1 = how[0], beta2 = how[1], eps = how[2], rate = how[3], root = how[4];
    for (int64_t k = 0; k < count; k++) {
        float g = gradient[k];
        float m = mean[k] + (1 - beta1) * (g - mean[k]);
        float v = beta2 * square[k] + (1 - beta2) * g * g;
        mean[k] = m;
        square[k] = v;
        values[k] -= rate * m / (__builtin_sqrtf(v) * root + eps);
    }
}
