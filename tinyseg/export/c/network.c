/* U-Net and SD-UNet (Gadosey et al. 2020, after Ronneberger et al. 2015): the whole network on one page of C.
 *
 *     level 0   image - block ------------------------- join - block - head - logits
 *           1       pool - block ---------------- join - block - up
 *           2           pool - block ------- join - block - up         block = convolutions, each with its ReLU,
 *         ...               pool - block ----------- up                        then one norm or none
 *
 * All arrays are (rows, columns, channels). A convolution gathers numbers for each pixel and multiplies them by a matrix.
 * A standard one gathers the k * k * C numbers around the pixel. A depthwise separable one weighs and adds these channel
 * by channel, which leaves C numbers to multiply: that is all the difference. */
#include "network.h"

#include <math.h>
#include <string.h>

typedef ptrdiff_t num; /* counts and positions */

/* LANES numbers go through one instruction, the results of PIXELS pixels stay in registers. */
#if !defined(__GNUC__)
enum { LANES = 1, PIXELS = 4 };
typedef float vector;
#define INLINE static inline
#else
#if defined(__AVX512F__)
enum { LANES = 16, PIXELS = 8 };
#elif defined(__AVX__)
enum { LANES = 8, PIXELS = 4 };
#else
enum { LANES = 4, PIXELS = 4 };
#endif
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
#endif

enum { MAGIC = 0x47455354, HEADER = 24, LEVELS = 16 }; /* "TSEG"; words before the weights; levels at most */
enum { BAND = 1 << 16, RUN = 64 }; /* numbers that are gathered before they are multiplied; pixels added in float32 */

/* ----- the pointwise convolution: pixels (n, C) times weights (C, K), plus a bias ------------------------------------ */

INLINE void multiply_tile(int pixels, int vectors, num C, num K, const float *x, const float *w, const float *b, float *y) {
    vector sum[PIXELS][2];
    for (int p = 0; p < pixels; p++)
        for (int v = 0; v < vectors; v++) sum[p][v] = *(const vector *)(b + v * LANES);
    for (num c = 0; c < C; c++)
        for (int v = 0; v < vectors; v++) {
            vector weight = *(const vector *)(w + c * K + v * LANES);
            for (int p = 0; p < pixels; p++) sum[p][v] += x[p * C + c] * weight;
        }
    for (int p = 0; p < pixels; p++)
        for (int v = 0; v < vectors; v++) *(vector *)(y + p * K + v * LANES) = sum[p][v];
}

INLINE void multiply_columns(int vectors, num n, num C, num K, const float *x, const float *w, const float *b, float *y) {
    num p = 0;
    for (; p + PIXELS <= n; p += PIXELS) multiply_tile(PIXELS, vectors, C, K, x + p * C, w, b, y + p * K);
    for (; p < n; p++) multiply_tile(1, vectors, C, K, x + p * C, w, b, y + p * K);
}

static void pointwise(num n, num C, num K, const float *x, const float *w, const float *b, float *y) {
    num k = 0;
    for (; k + 2 * LANES <= K; k += 2 * LANES) multiply_columns(2, n, C, K, x, w + k, b + k, y + k);
    for (; k + LANES <= K; k += LANES) multiply_columns(1, n, C, K, x, w + k, b + k, y + k);
    for (; k < K; k++)
        for (num p = 0; p < n; p++) {
            float sum = b[k];
            for (num c = 0; c < C; c++) sum += x[p * C + c] * w[c * K + k];
            y[p * K + k] = sum;
        }
}

/* ----- a convolution: gather, multiply, ReLU -------------------------------------------------------------------------- */

struct convolution {
    num k, C, C2, K;         /* k x k numbers around a pixel, of C channels of x and C2 of x2, give K */
    int up, separable, relu; /* x is enlarged by the factor `up` first, each pixel repeated */
};

/* Gather what belongs to the pixels of row i. Outside of the image there are zeros. */
static void gather(struct convolution f, const float *x, const float *x2, num H, num W, num i, const float *w, float *y) {
    num C = f.C + f.C2, before = (f.k - 1) / 2, taps = f.separable ? 1 : f.k * f.k;
    memset(y, 0, (size_t)(W * C * taps) * sizeof(float));
    for (num j = 0; j < W; j++, y += C * taps)
        for (num u = 0; u < f.k; u++)
            for (num v = 0; v < f.k; v++) {
                num r = i + u - before, q = j + v - before, tap = (u * f.k + v) * C;
                if (r < 0 || r >= H || q < 0 || q >= W) continue;
                const float *s = x + (r / f.up * (W / f.up) + q / f.up) * f.C, *s2 = f.C2 ? x2 + (r * W + q) * f.C2 : x;
                if (f.separable) { /* the depthwise convolution */
                    for (num c = 0; c < f.C; c++) y[c] += s[c] * w[tap + c];
                    for (num c = 0; c < f.C2; c++) y[f.C + c] += s2[c] * w[tap + f.C + c];
                } else {
                    memcpy(y + tap, s, (size_t)f.C * sizeof(float));
                    memcpy(y + tap + f.C, s2, (size_t)f.C2 * sizeof(float));
                }
            }
}

/* Convolve to y (H, W, K); return where the next layer's weights are. `band` has room for what is gathered at a time. */
static const float *convolve(struct convolution f, const float *x, const float *x2, num H, num W, const float *w, float *y,
                             float *band) {
    num C = f.C + f.C2, gathered = f.separable ? C : f.k * f.k * C, rows = BAND / (W * gathered);
    const float *depthwise = w, *matrix = f.separable ? w + f.k * f.k * C : w, *bias = matrix + gathered * f.K;
    if (rows < 1) rows = 1;
    for (num i = 0; i < H; i += rows, y += rows * W * f.K) {
        if (rows > H - i) rows = H - i;
        for (num r = 0; r < rows; r++) gather(f, x, x2, H, W, i + r, depthwise, band + r * W * gathered);
        pointwise(rows * W, gathered, f.K, band, matrix, bias, y);
        for (num t = 0; f.relu && t < rows * W * f.K; t++) y[t] = y[t] > 0 ? y[t] : 0;
    }
    return bias + f.K;
}

/* ----- norm and pooling ----------------------------------------------------------------------------------------------- */

static num count_groups(const struct network *net, num C) { /* at least two channels in each */
    num groups = net->groups < C / 2 ? net->groups : C / 2 > 1 ? C / 2 : 1;
    while (C % groups) groups--;
    return groups;
}

/* Add up x - mean of each channel over n pixels, or its square. */
static void add_up(num n, num C, const float *x, const float *mean, int square, double *sum, float *run) {
    for (num c = 0; c < C; c++) sum[c] = 0;
    for (num p = 0; p < n; p += RUN) {
        for (num c = 0; c < C; c++) run[c] = 0;
        for (num q = p; q < n && q < p + RUN; q++)
            for (num c = 0; c < C; c++) {
                float d = x[q * C + c] - mean[c];
                run[c] += square ? d * d : d;
            }
        for (num c = 0; c < C; c++) sum[c] += (double)run[c];
    }
}

/* Give each group of channels mean 0 and variance 1, then each channel its own scale and shift; BatchNorm has only these
   left after training. Return where the next layer's weights are. */
static const float *normalize(const struct network *net, num n, num C, const float *w, float *x, float *band) {
    if (net->norm == NO_NORM) return w;
    const float *weight = w, *bias = w + C;
    num groups = net->norm == GROUP_NORM ? count_groups(net, C) : 0, size = groups ? C / groups : C;
    double *sum = (double *)band, count = (double)n * (double)size;
    float *mean = band + 2 * C, *factor = band + 3 * C, *run = band + 4 * C;
    for (num c = 0; c < C; c++) mean[c] = 0, factor[c] = 1;
    for (int pass = 0; groups && pass < 2; pass++) { /* the mean, then the variance */
        add_up(n, C, x, mean, pass == 1, sum, run);
        for (num g = 0; g < C; g += size) {
            double total = 0;
            for (num c = g; c < g + size; c++) total += sum[c];
            for (num c = g; c < g + size; c++)
                if (pass == 0) mean[c] = (float)(total / count);
                else factor[c] = 1 / sqrtf((float)(total / count) + net->eps);
        }
    }
    for (num p = 0; p < n; p++)
        for (num c = 0; c < C; c++) x[p * C + c] = (x[p * C + c] - mean[c]) * factor[c] * weight[c] + bias[c];
    return w + 2 * C;
}

/* The largest of each 2 x 2 pixels of x (2H, 2W, C). */
static void pool(const float *x, num H, num W, num C, float *y) {
    for (num i = 0; i < H; i++)
        for (num j = 0; j < W; j++, y += C) {
            const float *above = x + (2 * i * 2 * W + 2 * j) * C, *below = above + 2 * W * C;
            for (num c = 0; c < C; c++) {
                float a = above[c] > above[C + c] ? above[c] : above[C + c];
                float b = below[c] > below[C + c] ? below[c] : below[C + c];
                y[c] = a > b ? a : b;
            }
        }
}

/* ----- the network ---------------------------------------------------------------------------------------------------- */

/* Where the working memory is: what is gathered, two arrays of the size of the first level, and the encoder's results. */
struct plan {
    float *band, *a, *b, *skip[LEVELS];
    double size; /* of all, in numbers */
};

static float *take(struct plan *m, double numbers, float *memory) {
    float *place = memory ? memory + (size_t)m->size : memory;
    m->size += ceil(numbers / 16) * 16;
    return place;
}

static double larger(double a, double b) { return a > b ? a : b; }

static struct plan make_plan(const struct network *net, double H, double W, float *memory) {
    struct plan m = {0};
    double width = net->width, widest = larger(width, net->paper_head ? 2 * net->classes : 0);
    double line = W * larger(9 * net->in_channels, (net->separable ? 1 : 9) * 2 * width); /* what a row gathers at most */
    double kept = 5 * width * (1 << (net->levels - 1));                                   /* what `normalize` keeps */
    m.band = take(&m, larger(larger(line, kept), BAND), memory);
    m.a = take(&m, H * W * widest, memory);
    m.b = take(&m, H * W * widest, memory);
    for (int level = 0; level < net->levels - 1; level++) m.skip[level] = take(&m, H * W * width / (1 << level), memory);
    return m;
}

double network_memory(const struct network *net, int H, int W) {
    return make_plan(net, H, W, 0).size * (double)sizeof(float);
}

void network_run(const struct network *net, const float *image, float *logits, int rows, int columns, float *memory) {
    struct plan m = make_plan(net, rows, columns, memory);
    num H = rows, W = columns, C = net->width, before = net->in_channels;
    const float *w = net->weights, *x = image;
    float *y = m.a;
    for (int level = 0; level < net->levels; level++, before = C, C *= 2) { /* the encoder */
        int last = level == net->levels - 1, layers = last ? net->bottleneck_layers : level ? 2 : net->stem_layers;
        if (level) {
            pool(x, H /= 2, W /= 2, before, m.a);
            x = m.a;
        }
        for (int k = 0; k < layers; k++, x = y) {
            struct convolution f = {3, k ? C : before, 0, C, 1, net->separable && (level || k), 1};
            y = k == layers - 1 && !last ? m.skip[level] : x == m.a ? m.b : m.a;
            w = convolve(f, x, 0, H, W, w, y, m.band);
        }
        w = normalize(net, H * W, C, w, y, m.band);
    }
    for (int level = net->levels - 2; level >= 0; level--) { /* the decoder */
        float *other = y == m.a ? m.b : m.a;
        H *= 2, W *= 2, C = (num)net->width << level;
        struct convolution up = {2, 2 * C, 0, C, 2, net->separable, 1}, join = {3, C, C, C, 1, net->separable, 1},
                           second = {3, C, 0, C, 1, net->separable, 1};
        w = convolve(up, y, 0, H, W, w, other, m.band);
        w = convolve(join, m.skip[level], other, H, W, w, y, m.band);
        w = convolve(second, y, 0, H, W, w, other, m.band);
        w = normalize(net, H * W, C, w, other, m.band);
        y = other;
    }
    if (net->paper_head) {
        struct convolution hidden = {3, C, 0, 2 * net->classes, 1, net->separable, 1};
        float *other = y == m.a ? m.b : m.a;
        w = convolve(hidden, y, 0, H, W, w, other, m.band);
        y = other, C = hidden.K;
    }
    convolve((struct convolution){1, C, 0, net->classes, 1, 0, 0}, y, 0, H, W, w, logits, m.band);
}

/* ----- the file of weights -------------------------------------------------------------------------------------------- */

static double count_of(int k, double C, double K, int separable) {
    return separable ? k * k * C + C * K + K : k * k * C * K + K;
}

/* How many weights the network has. */
static double count_weights(const struct network *net) {
    double width = net->width, norms = net->norm == NO_NORM ? 0 : 2, total = 0;
    int s = net->separable, hidden = 2 * net->classes;
    for (int level = 0; level < net->levels; level++) {
        double C = width * (1 << level), above = level ? C / 2 : net->in_channels;
        int last = level == net->levels - 1, layers = last ? net->bottleneck_layers : level ? 2 : net->stem_layers;
        total += count_of(3, above, C, s && level) + (layers - 1) * count_of(3, C, C, s) + norms * C;
        if (!last) total += count_of(2, 2 * C, C, s) + count_of(3, 2 * C, C, s) + count_of(3, C, C, s) + norms * C;
    }
    if (!net->paper_head) return total + count_of(1, width, net->classes, 0);
    return total + count_of(3, width, hidden, s) + count_of(1, hidden, net->classes, 0);
}

const char *network_open(struct network *net, const void *file, size_t bytes) {
    int head[HEADER];
    if (bytes < sizeof head) return "it is shorter than the header of a weights.bin";
    memcpy(head, file, sizeof head);
    if (head[0] != MAGIC) return "it does not begin like a weights.bin, or this processor orders bytes in another way";
    if (head[1] != 1) return "it was written for another version of network.c";
    for (int k = 2; k < 8; k++)
        if (head[k] < 1 || head[k] > 1 << 20) return "it is damaged: its header does not describe a network";
    *net = (struct network){head[2], head[3], head[4], head[5], head[6], head[7], head[8], head[9], head[10], head[11], 0, 0};
    memcpy(&net->eps, head + 12, sizeof net->eps);
    net->weights = (const float *)((const char *)file + sizeof head);
    if (net->norm < NO_NORM || net->norm > SCALE_AND_SHIFT || !(net->eps >= 0))
        return "it is damaged: its header does not describe a norm";
    if (net->levels < 2 || net->levels > LEVELS || net->groups < 1 || count_weights(net) * 4 + sizeof head != (double)bytes)
        return "it is damaged: its length does not fit the network that its header describes";
    return 0;
}
