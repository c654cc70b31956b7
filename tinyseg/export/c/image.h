/* What is done with an image before and after the network, as tinyseg/data/resample.py and standardize do it. */
#ifndef IMAGE_H
#define IMAGE_H

#include <math.h>
#include <stddef.h>

/* Where pixel i of `target` lies among `source` pixels: at a whole number if they are fewer. */
static inline double position(ptrdiff_t i, ptrdiff_t source, ptrdiff_t target) {
    double centre = ((double)i + 0.5) * (double)source / (double)target - 0.5, last = (double)(source - 1);
    if (target < source) return floor(centre + 0.5);
    return centre < 0 ? 0 : centre > last ? last : centre;
}

/* Number i of a line of n that is mirrored about its ends: d c b a | a b c d | d c b a. */
static inline ptrdiff_t mirrored(ptrdiff_t i, ptrdiff_t n) {
    i %= 2 * n;
    if (i < 0) i += 2 * n;
    return i < n ? i : 2 * n - 1 - i;
}

/* A Gaussian against aliasing: its deviation widens a blur of half a pixel by the factor source/target. */
struct gaussian { double sigma, total; ptrdiff_t radius; };

static inline struct gaussian make_gaussian(ptrdiff_t source, ptrdiff_t target) {
    double ratio = (double)source / (double)target;
    struct gaussian g = {ratio > 1 ? 0.5 * sqrt(ratio * ratio - 1) : 0, 0, 0};
    g.radius = (ptrdiff_t)(4 * g.sigma + 0.5);
    if (!g.radius) g.total = 1;
    for (ptrdiff_t k = -g.radius; k <= g.radius && g.radius; k++) g.total += exp(-0.5 * (double)(k * k) / (g.sigma * g.sigma));
    return g;
}

static inline double weight_of(struct gaussian g, ptrdiff_t k) { return exp(-0.5 * (double)(k * k) / (g.sigma * g.sigma)) / g.total; }

/* Blur an image (H, W) along its columns, then along its rows. `single` rounds to float32 after each, as for images of
   float32; `rows` has room for H W numbers. */
static inline void blur(const double *x, ptrdiff_t H, ptrdiff_t W, ptrdiff_t h, ptrdiff_t w, int single, double *rows, double *y) {
    struct gaussian down = make_gaussian(H, h), across = make_gaussian(W, w);
    for (ptrdiff_t i = 0; i < H; i++) {
        double *t = rows + i * W;
        for (ptrdiff_t j = 0; j < W; j++) t[j] = x[i * W + j] / down.total;
        for (ptrdiff_t k = down.radius; k > 0; k--) {
            const double *above = x + mirrored(i - k, H) * W, *below = x + mirrored(i + k, H) * W;
            const double weight = weight_of(down, k);
            for (ptrdiff_t j = 0; j < W; j++) t[j] += (above[j] + below[j]) * weight;
        }
        for (ptrdiff_t j = 0; j < W && single; j++) t[j] = (double)(float)t[j];
    }
    for (ptrdiff_t i = 0; i < H; i++) {
        const double *s = rows + i * W;
        double *t = y + i * W;
        for (ptrdiff_t j = 0; j < W; j++) t[j] = s[j] / across.total;
        for (ptrdiff_t k = across.radius; k > 0; k--) {
            const double weight = weight_of(across, k);
            for (ptrdiff_t j = 0; j < W; j++) t[j] += (s[mirrored(j - k, W)] + s[mirrored(j + k, W)]) * weight;
        }
        for (ptrdiff_t j = 0; j < W && single; j++) t[j] = (double)(float)t[j];
    }
}

/* Read an image (H, W) at the pixels of another size (h, w). `integer` rounds to whole numbers, as for images of integers;
   `memory` has room for 2 H W numbers. */
static inline void resample_image(const double *x, ptrdiff_t H, ptrdiff_t W, double *y, ptrdiff_t h, ptrdiff_t w, int integer,
                                  int single, double *memory) {
    double *rows = memory, *smooth = memory + H * W;
    if (H == h && W == w) {
        for (ptrdiff_t i = 0; i < H * W; i++) y[i] = x[i];
        return;
    }
    blur(x, H, W, h, w, single, rows, smooth);
    for (ptrdiff_t i = 0; i < h; i++)
        for (ptrdiff_t j = 0; j < w; j++) {
            double r = position(i, H, h), q = position(j, W, w);
            ptrdiff_t r0 = (ptrdiff_t)r, q0 = (ptrdiff_t)q, r1 = r0 + 1 < H ? r0 + 1 : r0, q1 = q0 + 1 < W ? q0 + 1 : q0;
            double u = r - (double)r0, v = q - (double)q0;
            double value = smooth[r0 * W + q0] * (1 - u) * (1 - v) + smooth[r0 * W + q1] * (1 - u) * v +
                           smooth[r1 * W + q0] * u * (1 - v) + smooth[r1 * W + q1] * u * v;
            y[i * w + j] = integer ? rint(value) : single ? (double)(float)value : value;
        }
}

/* The two neighbours of source pixel i among the target's pixels; return the weight of the first. */
static inline float neighbours(ptrdiff_t i, ptrdiff_t source, ptrdiff_t target, ptrdiff_t *left, ptrdiff_t *right) {
    ptrdiff_t k = (ptrdiff_t)((double)i * (double)target / (double)source); /* about where it is */
    while (k > 0 && position(k - 1, source, target) >= (double)i) k--;
    while (k < target - 1 && position(k, source, target) < (double)i) k++;
    *right = k < 1 && target > 1 ? 1 : k;
    *left = *right > 0 ? *right - 1 : 0;
    double a = position(*left, source, target), b = position(*right, source, target);
    double weight = (b - (double)i) / (b > a ? b - a : 1);
    return (float)(weight < 0 ? 0 : weight > 1 ? 1 : weight);
}

/* Interpolate values (h, w) of a resampled image back to (H, W). */
static inline void restore_image(const float *p, ptrdiff_t h, ptrdiff_t w, float *y, ptrdiff_t H, ptrdiff_t W) {
    for (ptrdiff_t i = 0; i < H; i++) {
        ptrdiff_t above = i, below = i, left, right;
        float u = h == H ? 1 : neighbours(i, H, h, &above, &below);
        for (ptrdiff_t j = 0; j < W; j++) {
            left = right = j;
            float v = w == W ? 1 : neighbours(j, W, w, &left, &right);
            float a = p[above * w + left] * u + p[below * w + left] * (1 - u);
            float b = p[above * w + right] * u + p[below * w + right] * (1 - u);
            y[i * W + j] = a * v + b * (1 - v);
        }
    }
}

/* The mean of n numbers, and the sum of their squared differences from it. */
static inline void find_moments(const double *x, ptrdiff_t n, double *mean, double *squares) {
    double sum = 0, sum2 = 0;
    for (ptrdiff_t i = 0; i < n; i++) sum += x[i];
    *mean = sum / (double)n;
    for (ptrdiff_t i = 0; i < n; i++) sum2 += (x[i] - *mean) * (x[i] - *mean);
    *squares = sum2;
}

/* Give n numbers mean 0 and variance 1; zeros if all are equal. */
static inline void standardize_image(const double *x, float *y, ptrdiff_t n) {
    double mean, squares;
    ptrdiff_t i = 1;
    while (i < n && x[i] == x[0]) i++;
    find_moments(x, n, &mean, &squares);
    double deviation = sqrt(squares / (double)n);
    for (ptrdiff_t k = 0; k < n; k++) y[k] = i == n ? 0 : (float)((x[k] - mean) / deviation);
}

/* Probabilities, one plane a class, from logits (n, classes): the sigmoid if there is one class, else the softmax. */
static inline void find_probabilities(const float *logits, ptrdiff_t n, ptrdiff_t classes, float *p) {
    for (ptrdiff_t i = 0; i < n; i++) {
        const float *l = logits + i * classes;
        if (classes == 1) {
            p[i] = (float)(1 / (1 + exp(-(double)l[0])));
            continue;
        }
        double sum = 0, most = (double)l[0];
        for (ptrdiff_t c = 1; c < classes; c++) most = (double)l[c] > most ? (double)l[c] : most;
        for (ptrdiff_t c = 0; c < classes; c++) sum += exp((double)l[c] - most);
        for (ptrdiff_t c = 0; c < classes; c++) p[c * n + i] = (float)(exp((double)l[c] - most) / sum);
    }
}

#endif
