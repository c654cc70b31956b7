/* What the browser's page calls: network.c and image.h as exports of a WebAssembly module.
 *
 * The module imports nothing and allocates nothing: the page lays out the memory from `heap` on, and makes it grow. A file
 * of weights begins at a multiple of 4 bytes, images and working memory at multiples of 8. */
#include "image.h"
#include "network.h"

#define EXPORT(name) __attribute__((export_name(#name)))

/* The one function that is no instruction here: e^x = 2^k e^r with |r| below 0.35, which a short series gives. There is no
   library in the module. */
static double power_of_2(int k) {
    union { unsigned long long bits; double number; } power = {(unsigned long long)(k + 1023) << 52};
    return power.number;
}

double exp(double x) {
    if (x != x || x > 709.78) return x > 0 ? HUGE_VAL : x;
    if (x < -745.13) return 0;
    double k = rint(x * 1.4426950408889634), r = x - k * 0.6931471803691238 - k * 1.9082149292705877e-10, term = 1, sum = 1;
    for (int n = 1; n < 15; n++) sum += term *= r / n;
    int half = (int)k / 2; /* in two steps, since 2^k may be too small or too large for a number */
    return sum * power_of_2(half) * power_of_2((int)k - half);
}

extern unsigned char __heap_base;
static struct network net;

EXPORT(heap) size_t find_heap(void) { return ((size_t)&__heap_base + 63) / 64 * 64; }

/* Take the network of a weights.bin, which stays where it is. Return 0, or 1 if it is none. */
EXPORT(network_open) int open_network(const void *file, size_t bytes) { return network_open(&net, file, bytes) != 0; }

/* Bytes of working memory for an image of H x W pixels. */
EXPORT(network_memory) double find_memory(int H, int W) { return network_memory(&net, H, W); }

EXPORT(network_run) void run(const float *image, float *logits, int H, int W, float *memory) {
    network_run(&net, image, logits, H, W, memory);
}

EXPORT(resample) void resample(const double *x, int H, int W, double *y, int h, int w, int integer, int single, double *memory) {
    resample_image(x, H, W, y, h, w, integer, single, memory);
}

EXPORT(restore) void restore(const float *p, int h, int w, float *y, int H, int W) { restore_image(p, h, w, y, H, W); }

EXPORT(standardize) void standardize(const double *x, float *y, int n) { standardize_image(x, y, n); }

EXPORT(moments) void moments(const double *x, int n, double *out) { find_moments(x, n, out, out + 1); }

EXPORT(probabilities) void probabilities(const float *logits, int n, int classes, float *p) {
    find_probabilities(logits, n, classes, p);
}
