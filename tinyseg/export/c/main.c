/* Segment grey images with the network of a weights.bin:
 *
 *     cc -O3 network.c main.c -lm -o segment                  (-march=native makes it faster, and bound to this processor)
 *     ./segment weights.bin image.pgm mask.pgm [threshold [probabilities.raw]]
 *
 * Images are PGM files of 8 or 16 bits, as ImageMagick, GIMP or Pillow write them (convert image.png image.pgm). A file may
 * hold several images of one size, one after another: the sections of a stack, or the channels of each section if the
 * network takes several. The mask is 255 where the probability of a network of one class is above the threshold, else 0;
 * of several classes it is the number of the most probable one. The probabilities are float32, (sections, classes, rows,
 * columns). All memory is taken before the first section. */
#include "image.h"
#include "network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTION, STACK, UNIT }; /* how grey values are standardized */

static void stop(const char *name, const char *why) {
    fprintf(stderr, "%s: %s\n", name, why);
    exit(1);
}

static void *allocate(double bytes) {
    void *memory = bytes < 1e15 ? malloc((size_t)bytes + 1) : 0;
    if (!memory) stop("memory", "this machine has not enough of it for an image of this size: make it smaller");
    return memory;
}

static void *read_whole(const char *name, size_t *bytes) {
    FILE *file = fopen(name, "rb");
    if (!file || fseek(file, 0, SEEK_END)) stop(name, "cannot be read");
    long size = ftell(file);
    rewind(file);
    char *content = allocate((double)size);
    if (size < 0 || fread(content, 1, (size_t)size, file) != (size_t)size) stop(name, "cannot be read");
    fclose(file);
    *bytes = (size_t)size;
    return content;
}

/* ----- PGM ------------------------------------------------------------------------------------------------------------- */

/* Read a number of a header, after white space and comments; -1 if there is none. */
static int read_number(FILE *file) {
    int c = getc(file), number = -1;
    while (c == '#' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        while (c == '#' && (c = getc(file)) != '\n')
            if (c == EOF) return -1;
            else c = '#';
        c = getc(file);
    }
    for (; c >= '0' && c <= '9' && number < 1 << 20; c = getc(file)) number = (number < 0 ? 0 : number) * 10 + c - '0';
    return number; /* with the one letter after it */
}

/* Read the header of the next image; return 0 at the end of the file. */
static int read_header(FILE *file, const char *name, int *H, int *W, int *largest) {
    int c;
    do c = getc(file);
    while (c == '\n' || c == '\r' || c == ' ');
    if (c == EOF) return 0;
    if (c != 'P' || getc(file) != '5') stop(name, "is no PGM file (P5): convert it, as by convert image.png image.pgm");
    *W = read_number(file), *H = read_number(file), *largest = read_number(file);
    if (*W < 1 || *H < 1 || *largest < 1 || *largest > 65535) stop(name, "is a damaged PGM file: its header has no sizes");
    return 1;
}

static void read_pixels(FILE *file, const char *name, int largest, size_t n, double *x) {
    for (size_t i = 0; i < n; i++) {
        int high = largest > 255 ? getc(file) : 0, low = getc(file);
        if (high == EOF || low == EOF) stop(name, "ends before its last pixel: it is truncated");
        x[i] = high * 256 + low;
    }
}

/* ----- a section --------------------------------------------------------------------------------------------------------- */

static struct network net;
static int standardization;
static double scale[2];              /* of rows and columns: the network's image over the stored one */
static int H, W, h, w, rows, columns; /* the image; resampled for the network; padded to what the network takes */
static double *pixels, *small, *scratch;
static float *plane, *image, *logits, *probability, *whole, *memory;
static unsigned char *mask;

static int scaled(int n, double by) {
    double size = rint(n * by); /* to even, as Python rounds */
    if (size > 1 << 24) stop("memory", "this machine has not enough of it for an image of this size: make it smaller");
    return size < 1 ? 1 : (int)size;
}

static double take_memory(void) {
    int multiple = 1 << (net.levels - 1);
    h = scaled(H, scale[0]), w = scaled(W, scale[1]);
    rows = (h + multiple - 1) / multiple * multiple, columns = (w + multiple - 1) / multiple * multiple;
    double stored = (double)H * W, resampled = (double)h * w, padded = (double)rows * columns;
    double kinds = net.classes, parts[] = {
        8 * stored, 8 * resampled, 16 * stored, 4 * resampled, 4 * padded * net.in_channels, 4 * padded * kinds,
        4 * padded * kinds, 4 * stored * kinds, network_memory(&net, rows, columns), stored,
    }, total = 0;
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) total += parts[k];
    pixels = allocate(parts[0]), small = allocate(parts[1]), scratch = allocate(parts[2]), plane = allocate(parts[3]);
    image = allocate(parts[4]), logits = allocate(parts[5]), probability = allocate(parts[6]), whole = allocate(parts[7]);
    memory = allocate(parts[8]), mask = allocate(parts[9]);
    return total;
}

/* Pixel i of a line of n that is continued by its mirror image about the last pixel; by this pixel if a side is 1. */
static int reflected(int i, int n) {
    if (h == 1 || w == 1) return i < n ? i : n - 1;
    i %= 2 * (n - 1);
    return i < n ? i : 2 * (n - 1) - i;
}

/* Read the next channel, and resample it. Return 0 at the end of the file. */
static int read_channel(FILE *file, const char *name, int *largest) {
    int high, wide;
    if (!read_header(file, name, &high, &wide, largest)) return 0;
    if (H && (high != H || wide != W)) stop(name, "holds images of several sizes: expected one size");
    if (!H) {
        H = high, W = wide;
        double bytes = take_memory();
        fprintf(stderr, "%d x %d pixels, %d x %d for the network, %.1f MB of memory\n", W, H, w, h, bytes / 1e6);
    }
    read_pixels(file, name, *largest, (size_t)H * (size_t)W, pixels);
    resample_image(pixels, H, W, small, h, w, 1, 0, scratch);
    return 1;
}

/* Mean and deviation over all sections: each channel of each image counts. */
static void measure_stack(FILE *file, const char *name, double *mean, double *deviation) {
    double count = 0, squares = 0, m, s;
    int largest;
    *mean = 0;
    while (read_channel(file, name, &largest)) { /* joined one by one (Chan et al. 1983) */
        double n = (double)h * w;
        find_moments(small, (ptrdiff_t)h * w, &m, &s);
        squares += s + (m - *mean) * (m - *mean) * count * n / (count + n);
        *mean += (m - *mean) * n / (count + n);
        count += n;
    }
    *deviation = squares > 0 ? sqrt(squares / count) : 1;
    rewind(file);
}

static void prepare(int largest, int channel, double mean, double deviation) {
    ptrdiff_t n = (ptrdiff_t)h * w;
    if (standardization == SECTION) standardize_image(small, plane, n);
    else if (standardization == STACK)
        for (ptrdiff_t i = 0; i < n; i++) plane[i] = (float)((small[i] - mean) / deviation);
    else
        for (ptrdiff_t i = 0; i < n; i++) plane[i] = (float)(small[i] / (largest > 255 ? 65535 : 255));
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            image[((ptrdiff_t)i * columns + j) * net.in_channels + channel] = plane[(ptrdiff_t)reflected(i, h) * w + reflected(j, w)];
}

/* Run the network; the probabilities at the image's own pixels are in `whole`, one plane a class. */
static void segment(void) {
    network_run(&net, image, logits, rows, columns, memory);
    for (int i = 0; i < h; i++) /* take the padding away */
        memmove(logits + (ptrdiff_t)i * w * net.classes, logits + (ptrdiff_t)i * columns * net.classes,
                (size_t)w * (size_t)net.classes * sizeof(float));
    find_probabilities(logits, (ptrdiff_t)h * w, net.classes, probability);
    for (ptrdiff_t k = 0; k < net.classes; k++) restore_image(probability + k * h * w, h, w, whole + k * H * W, H, W);
}

/* Write the mask; return the share of the foreground. */
static double write_mask(FILE *file, double threshold) {
    ptrdiff_t n = (ptrdiff_t)H * W, found = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        int most = 0;
        for (int k = 1; k < net.classes; k++)
            if (whole[k * n + i] > whole[most * n + i]) most = k;
        mask[i] = (unsigned char)(net.classes > 1 ? most : (double)whole[i] > threshold ? 255 : 0);
        found += mask[i] > 0;
    }
    fprintf(file, "P5\n%d %d\n255\n", W, H);
    fwrite(mask, 1, (size_t)n, file);
    return (double)found / (double)n;
}

/* Read the threshold, such as 0.5. */
static double read_threshold(const char *word) {
    char *end;
    double threshold = strtod(word, &end);
    if (end == word || *end || !(threshold >= 0 && threshold <= 1))
        stop(word, "is no threshold: expected a number from 0 to 1, such as 0.5");
    return threshold;
}

static FILE *open_to_write(const char *name) {
    FILE *file = fopen(name, "wb");
    if (!file) stop(name, "cannot be written");
    return file;
}

/* Close a file that was written; an error of any write is known by then. */
static void close_written(FILE *file, const char *name) {
    int failed = ferror(file);
    if (fclose(file) || failed) stop(name, "could not be written to its end: the disk is full");
}

int main(int count, char **words) {
    if (count < 4 || count > 6) stop("usage", "segment weights.bin image.pgm mask.pgm [threshold [probabilities.raw]]");
    const char *name = words[2];
    double threshold = count > 4 ? read_threshold(words[4]) : 0.5, mean = 0, deviation = 1;
    size_t bytes;
    char *weights = read_whole(words[1], &bytes);
    const char *wrong = network_open(&net, weights, bytes);
    if (wrong) stop(words[1], wrong);
    memcpy(&standardization, weights + 56, sizeof standardization);
    memcpy(scale, weights + 64, sizeof scale);
    int known = standardization >= SECTION && standardization <= UNIT;
    if (!known || !(scale[0] > 0 && scale[0] < 1e6 && scale[1] > 0 && scale[1] < 1e6))
        stop(words[1], "is damaged: its header does not say how images are prepared");
    for (int written = 3; written < count; written += 2) /* the mask, the probabilities */
        for (int other = 1; other < written; other++)
            if (!strcmp(words[written], words[other]))
                stop(words[written], "would be replaced by the result: give the result another name");
    FILE *in = fopen(name, "rb"), *out = 0, *raw = 0;
    if (!in) stop(name, "cannot be read");
    if (standardization == STACK) measure_stack(in, name, &mean, &deviation);
    int largest, channel = 0, section = 0;
    while (read_channel(in, name, &largest)) {
        prepare(largest, channel, mean, deviation);
        if (++channel < net.in_channels) continue;
        if (!section) { /* only now: an image that cannot be read leaves an earlier mask as it is */
            out = open_to_write(words[3]);
            if (count > 5) raw = open_to_write(words[5]);
        }
        segment();
        printf("section %d: foreground %.2f %%\n", section++, 100 * write_mask(out, threshold));
        if (raw) fwrite(whole, sizeof(float), (size_t)H * (size_t)W * (size_t)net.classes, raw);
        channel = 0;
    }
    if (!section || channel) stop(name, "does not hold as many images as the network takes channels");
    close_written(out, words[3]);
    if (raw) close_written(raw, words[5]);
    return 0;
}
