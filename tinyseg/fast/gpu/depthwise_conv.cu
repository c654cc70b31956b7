// depthwise_conv.py on the GPU, and the depthwise half of separable_conv.py. X (N,C,F*H,F*W) is x (N,C1,H,W) joined
// with x2 (N,C-C1,H,W), every pixel repeated F x F times; it is never in memory. w (C,KH,KW); d (N,C,OH,OW), or
// (C,N,OH,OW) if `by_channel`; (top, left) is the padding before, (sh, sw) the stride.
//
// Only one thread writes an element, so that no atomics are needed: grad_x *gathers* the outputs that used a pixel,
// where the maths file scatters. For stride 1, windows of 2 x 2 or 3 x 3 and F = 1 or 2 there are kernels of *strips*:
// a thread has ROWS outputs below each other, reads each value of its columns once and needs few instructions a value,
// so that memory is the limit. They take the same arguments as the others (KH = KW, sh = sw = 1).

constexpr int ROWS = 8;

// The plane of d that belongs to image n and channel c.
__device__ inline size_t plane_of_d(int n, int c, int N, int C, bool by_channel) {
  return by_channel ? (size_t)c * N + n : (size_t)n * C + c;
}

// y[i0...i0+ROWS, j] = sum_{u,v} X[i*S+u-top, j*S+v-left] * taps[u,v], with X (F*H,F*W) the repeated plane x (H,W).
template <int K, int S, int F>
__device__ inline void strip(const real* x, int H, int W, const float (&taps)[K * K], real* y, int OH, int OW,
                             int i0, int j, int top, int left) {
  float sum[ROWS] = {};
#pragma unroll
  for (int row = 0; row < (ROWS - 1) * S + K; ++row) {
    unsigned r = i0 * S + row - top;  // above the plane: very large
    bool inside = r < (unsigned)(H * F);
    unsigned line = r / F * W;
#pragma unroll
    for (int v = 0; v < K; ++v) {
      unsigned q = j * S + v - left;
      float value = inside && q < (unsigned)(W * F) ? x[line + q / F] : 0.0f;
#pragma unroll
      for (int u = 0; u < K; ++u)
        if (row >= u && (row - u) % S == 0 && row - u < ROWS * S) sum[(row - u) / S] += value * taps[u * K + v];
    }
  }
#pragma unroll
  for (int a = 0; a < ROWS; ++a)
    if (i0 + a < OH) y[(i0 + a) * OW + j] = sum[a];
}

template <int K, int F>
__device__ inline void forward_strip(const real* x, const float* w, real* d, int H, int W, int OH, int OW, int i0,
                                     int j, int top, int left) {
  float taps[K * K];
#pragma unroll
  for (int k = 0; k < K * K; ++k) taps[k] = w[k];
  strip<K, 1, F>(x, H, W, taps, d, OH, OW, i0, j, top, left);
}

// A pixel of x became F x F pixels of X, each of which K x K outputs used: these lie in K+F-1 rows of gd, and those of
// the next pixel F rows further down. So this is a correlation of gd with stride F; its taps are w turned by 180
// degrees and summed over windows of F x F.
template <int K, int F>
__device__ inline void grad_x_strip(const real* gd, const float* w, real* gx, int H, int W, int OH, int OW, int r0,
                                    int q, int top, int left) {
  constexpr int L = K + F - 1;
  float taps[L * L];
#pragma unroll
  for (int t = 0; t < L; ++t)
#pragma unroll
    for (int s = 0; s < L; ++s) {
      float sum = 0;
#pragma unroll
      for (int a = 0; a < F; ++a)
#pragma unroll
        for (int b = 0; b < F; ++b) {
          int u = K - 1 - t + a, v = K - 1 - s + b;
          if (0 <= u && u < K && 0 <= v && v < K) sum += w[u * K + v];
        }
      taps[t * L + s] = sum;
    }
  strip<L, F, 1>(gd, OH, OW, taps, gx, H, W, r0, q, K - 1 - top, K - 1 - left);
}

// The task of thread t of N*C*strips*width: strip s and column j of image n and channel c. Planes are counted in the
// order in which they are written.
struct Task {
  int n, c, plane, s, j;
};
__device__ inline Task task_of(int t, int strips, int width, int N, int C, bool by_channel) {
  int j = t % width, s = t / width % strips, plane = t / width / strips;
  return {by_channel ? plane % N : plane / C, by_channel ? plane / N : plane % C, plane, s, j};
}

extern "C" __global__ void forward_strips(const real* x, const real* x2, const float* w, real* d, int size, int N,
                                          int C, int C1, int H, int W, int F, int KH, int KW, int OH, int OW, int sh,
                                          int sw, int top, int left, bool by_channel) {
  if (thread_index() >= size) return;
  auto [n, c, plane, s, j] = task_of(thread_index(), (OH + ROWS - 1) / ROWS, OW, N, C, by_channel);
  const real* from = plane_of(x, x2, n, c, C1, C, H * W);
  const float* taps = w + c * KH * KW;
  real* to = d + (size_t)plane * OH * OW;
  if (KH == 3 && F == 1) forward_strip<3, 1>(from, taps, to, H, W, OH, OW, s * ROWS, j, top, left);
  else if (KH == 2 && F == 1) forward_strip<2, 1>(from, taps, to, H, W, OH, OW, s * ROWS, j, top, left);
  else if (KH == 3) forward_strip<3, 2>(from, taps, to, H, W, OH, OW, s * ROWS, j, top, left);
  else forward_strip<2, 2>(from, taps, to, H, W, OH, OW, s * ROWS, j, top, left);
}

extern "C" __global__ void forward(const real* x, const real* x2, const float* w, real* d, int size, int N, int C,
                                   int C1, int H, int W, int F, int KH, int KW, int OH, int OW, int sh, int sw,
                                   int top, int left, bool by_channel) {
  if (thread_index() >= size) return;
  auto [n, c, plane, s, j] = task_of(thread_index(), OH, OW, N, C, by_channel);
  const real* from = plane_of(x, x2, n, c, C1, C, H * W);
  const float* taps = w + c * KH * KW;
  float sum = 0;
  for (int u = 0; u < KH; ++u)
    for (int v = 0; v < KW; ++v) {
      int r = s * sh + u - top, q = j * sw + v - left;
      if (0 <= r && r < H * F && 0 <= q && q < W * F) sum += from[r / F * W + q / F] * taps[u * KW + v];
    }
  d[((size_t)plane * OH + s) * OW + j] = sum;
}

extern "C" __global__ void grad_x_strips(const real* gd, const float* w, real* gx, real* gx2, int size, int N,
                                         int C, int C1, int H, int W, int F, int KH, int KW, int OH, int OW, int sh,
                                         int sw, int top, int left, bool by_channel) {
  if (thread_index() >= size) return;
  auto [n, c, plane, s, j] = task_of(thread_index(), (H + ROWS - 1) / ROWS, W, N, C, false);
  const real* from = gd + plane_of_d(n, c, N, C, by_channel) * OH * OW;
  const float* taps = w + c * KH * KW;
  real* to = plane_of(gx, gx2, n, c, C1, C, H * W);
  if (KH == 3 && F == 1) grad_x_strip<3, 1>(from, taps, to, H, W, OH, OW, s * ROWS, j, top, left);
  else if (KH == 2 && F == 1) grad_x_strip<2, 1>(from, taps, to, H, W, OH, OW, s * ROWS, j, top, left);
  else if (KH == 3) grad_x_strip<3, 2>(from, taps, to, H, W, OH, OW, s * ROWS, j, top, left);
  else grad_x_strip<2, 2>(from, taps, to, H, W, OH, OW, s * ROWS, j, top, left);
}

extern "C" __global__ void grad_x(const real* gd, const float* w, real* gx, real* gx2, int size, int N, int C,
                                  int C1, int H, int W, int F, int KH, int KW, int OH, int OW, int sh, int sw, int top,
                                  int left, bool by_channel) {
  if (thread_index() >= size) return;
  auto [n, c, plane, s, j] = task_of(thread_index(), H, W, N, C, false);
  const real* from = gd + plane_of_d(n, c, N, C, by_channel) * OH * OW;
  const float* taps = w + c * KH * KW;
  float sum = 0;
  for (int r = s * F; r < s * F + F; ++r)
    for (int u = 0; u < KH; ++u) {
      int is = r + top - u;  // r = i*sh + u - top
      if (is < 0 || is % sh || is / sh >= OH) continue;
      for (int q = j * F; q < j * F + F; ++q)
        for (int v = 0; v < KW; ++v) {
          int js = q + left - v;
          if (js < 0 || js % sw || js / sw >= OW) continue;
          sum += from[is / sh * OW + js / sw] * taps[u * KW + v];
        }
    }
  plane_of(gx, gx2, n, c, C1, C, H * W)[s * W + j] = sum;
}

// ----- gradient of the taps: each block adds up a part of all images, and the caller adds up the parts --------------

// All K x K taps of a channel at once: a thread reads strips of gd and the rows of X that they saw.
template <int K, int F>
__device__ inline void sums_of_taps(const real* x, const real* x2, const real* gd, float* gw, int c, int from,
                                    int to, int N, int C, int C1, int H, int W, int OH, int OW, int top, int left,
                                    bool by_channel) {
  float sum[K * K] = {};
  int strips = (OH + ROWS - 1) / ROWS;
  for (int task = from + threadIdx.x; task < to; task += blockDim.x) {
    int j = task % OW, i0 = task / OW % strips * ROWS, n = task / OW / strips;
    const real* plane = plane_of(x, x2, n, c, C1, C, H * W);
    const real* g = gd + plane_of_d(n, c, N, C, by_channel) * OH * OW + j;
    float below[ROWS];
#pragma unroll
    for (int a = 0; a < ROWS; ++a) below[a] = i0 + a < OH ? g[(i0 + a) * OW] : 0.0f;
#pragma unroll
    for (int row = 0; row < ROWS + K - 1; ++row) {
      unsigned r = i0 + row - top;
      bool inside = r < (unsigned)(H * F);
      unsigned line = r / F * W;
#pragma unroll
      for (int v = 0; v < K; ++v) {
        unsigned q = j + v - left;
        float value = inside && q < (unsigned)(W * F) ? plane[line + q / F] : 0.0f;
#pragma unroll
        for (int u = 0; u < K; ++u)
          if (0 <= row - u && row - u < ROWS) sum[u * K + v] += value * below[row - u];
      }
    }
  }
#pragma unroll
  for (int k = 0; k < K * K; ++k) write_sum(sum[k], gw + k);
}

// gw (parts,C,KH,KW): one block for each part and channel.
extern "C" __global__ void grad_w_strips(const real* x, const real* x2, const real* gd, float* gw, int parts, int N,
                                         int C, int C1, int H, int W, int F, int KH, int KW, int OH, int OW, int sh,
                                         int sw, int top, int left, bool by_channel) {
  int c = blockIdx.x % C, part = blockIdx.x / C;
  long long tasks = (long long)N * ((OH + ROWS - 1) / ROWS) * OW;
  int from = (int)(tasks * part / parts), to = (int)(tasks * (part + 1) / parts);
  gw += (size_t)blockIdx.x * KH * KW;
  if (KH == 3 && F == 1)
    sums_of_taps<3, 1>(x, x2, gd, gw, c, from, to, N, C, C1, H, W, OH, OW, top, left, by_channel);
  else if (KH == 2 && F == 1)
    sums_of_taps<2, 1>(x, x2, gd, gw, c, from, to, N, C, C1, H, W, OH, OW, top, left, by_channel);
  else if (KH == 3) sums_of_taps<3, 2>(x, x2, gd, gw, c, from, to, N, C, C1, H, W, OH, OW, top, left, by_channel);
  else sums_of_taps<2, 2>(x, x2, gd, gw, c, from, to, N, C, C1, H, W, OH, OW, top, left, by_channel);
}

// gw (parts,C,KH,KW): one block for each part, channel and tap.
extern "C" __global__ void grad_w(const real* x, const real* x2, const real* gd, float* gw, int parts, int N, int C,
                                  int C1, int H, int W, int F, int KH, int KW, int OH, int OW, int sh, int sw, int top,
                                  int left, bool by_channel) {
  int v = blockIdx.x % KW, u = blockIdx.x / KW % KH, c = blockIdx.x / (KW * KH) % C, part = blockIdx.x / (KW * KH) / C;
  long long rows = (long long)N * OH;
  int from = (int)(rows * part / parts), to = (int)(rows * (part + 1) / parts);
  float sum = 0;
  for (int k = threadIdx.x; k < (to - from) * OW; k += blockDim.x) {
    int row = from + k / OW, j = k % OW, n = row / OH, i = row % OH;
    int r = i * sh + u - top, q = j * sw + v - left;
    if (0 <= r && r < H * F && 0 <= q && q < W * F)
      sum += plane_of(x, x2, n, c, C1, C, H * W)[r / F * W + q / F] *
             gd[plane_of_d(n, c, N, C, by_channel) * OH * OW + i * OW + j];
  }
  write_sum(sum, gw + blockIdx.x);
}
