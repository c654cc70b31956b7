/* U-Net and SD-UNet in plain C: what network.c computes. All arrays are float32, with the channels last. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { NO_NORM, GROUP_NORM, SCALE_AND_SHIFT }; /* the last is what BatchNorm is after training */

struct network {
    int in_channels, classes;
    int width, levels;                  /* channels of the first level; number of resolutions */
    int stem_layers, bottleneck_layers; /* convolutions in the first and in the last block of the encoder */
    int separable;                      /* depthwise, then pointwise convolutions, everywhere but in the first layer */
    int norm, groups;
    int paper_head; /* a convolution of 3 x 3 before the logits */
    float eps;
    const float *weights;
};

/* Read the header of a file weights.bin that lies in memory, aligned to 4 bytes. Return 0, or what is wrong with it.
   The network points into the file from then on. */
const char *network_open(struct network *net, const void *file, size_t bytes);

/* Return how many bytes of working memory network_run needs for an image of H x W pixels. */
double network_memory(const struct network *net, int H, int W);

/* Compute the logits (H, W, classes) of an image (H, W, in_channels) that was prepared as for training. H and W are
   multiples of 2 to the power of levels - 1. Nothing is allocated; `memory` is aligned as malloc does it. */
void network_run(const struct network *net, const float *image, float *logits, int H, int W, float *memory);

#ifdef __cplusplus
}
#endif

#endif
