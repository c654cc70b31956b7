// conv2d.py and fused_conv.py on the GPU: the columns that a matrix product takes, and their gradients. X (N,C,F*H,F*W)
// is x (N,C1,H,W) joined with x2 (N,C-C1,H,W), every pixel repeated F x F times; it is never in memory. cols
// (C*KH*KW, count) has the columns of outputs first ... first + count - 1, where output (i, j) of image n is number
// (n*OH + i)*OW + j. (top, left) is the padding before, (sh, sw) the stride.

// X[r, q] of a plane of x, 0 beyond the border. F_ is F if the compiler knows it, else 0.
template <int F_>
__device__ inline float value_at(const real* x, int r, int q, int H, int W, int F) {
  const int f = F_ ? F_ : F;
  return 0 <= r && r < H * f && 0 <= q && q < W * f ? x[r / f * W + q / f] : 0.0f;
}

// A thread copies what one window sees of one channel: here K x K values, all read before the first is written.
template <int K, int F>
__device__ inline void copy_window(const real* x, real* cols, int r, int q, int H, int W, int count) {
  float seen[K * K];
#pragma unroll
  for (int k = 0; k < K * K; ++k) seen[k] = value_at<F>(x, r + k / K, q + k % K, H, W, F);
#pragma unroll
  for (int k = 0; k < K * K; ++k) cols[(size_t)k * count] = seen[k];
}

extern "C" __global__ void im2col(const real* x, const real* x2, real* cols, int C, int C1, int H, int W, int F,
                                  int KH, int KW, int OH, int OW, int sh, int sw, int top, int left, int first,
                                  int count) {
  int t = thread_index(), m = t % count, c = t / count;
  if (c >= C) return;
  int j = (first + m) % OW, i = (first + m) / OW % OH, n = (first + m) / OW / OH;
  int r = i * sh - top, q = j * sw - left;
  const real* plane = plane_of(x, x2, n, c, C1, C, H * W);
  real* to = cols + (size_t)c * KH * KW * count + m;
  if (KH == 3 && KW == 3 && F == 1) copy_window<3, 1>(plane, to, r, q, H, W, count);
  else if (KH == 2 && KW == 2 && F == 2) copy_window<2, 2>(plane, to, r, q, H, W, count);
  else
    for (int k = 0; k < KH * KW; ++k)
      to[(size_t)k * count] = value_at<0>(plane, r + k / KW, q + k % KW, H, W, F);
}

// The sum for pixel (r, q) of x over the windows that saw it, as far as their columns are in `cols`. Here for stride 1,
// and a kernel and factor that the compiler knows: all is read before the first addition.
template <int K, int F>
__device__ inline float gathered(const real* cols, int n, int r, int q, int OH, int OW, int top, int left, int first,
                                 int count) {
  float sum = 0;
#pragma unroll
  for (int k = 0; k < F * F * K * K; ++k) {
    int v = k % K, u = k / K % K, b = k / K / K % F, a = k / K / K / F;
    int i = r * F + a + top - u, j = q * F + b + left - v;
    unsigned m = (n * OH + i) * OW + j - first;  // of an earlier tile: very large
    bool here = 0 <= i && i < OH && 0 <= j && j < OW && m < (unsigned)count;
    sum += here ? cols[(size_t)(u * K + v) * count + m] : 0.0f;
  }
  return sum;
}

// Any stride, kernel and factor.
__device__ inline float gathered(const real* cols, int n, int r, int q, int F, int KH, int KW, int OH, int OW, int sh,
                                 int sw, int top, int left, int first, int count) {
  float sum = 0;
  for (int R = r * F + top; R < r * F + F + top; ++R)
    for (int u = 0; u < KH; ++u) {
      int i = (R - u) / sh;  // R = i*sh + u
      if (R < u || i >= OH || (R - u) % sh) continue;
      int row = (n * OH + i) * OW - first;
      for (int Q = q * F + left; Q < q * F + F + left; ++Q)
        for (int v = 0; v < KW; ++v) {
          int j = (Q - v) / sw;
          if (Q < v || j >= OW || (Q - v) % sw || row + j < 0 || row + j >= count) continue;
          sum += cols[(size_t)(u * KW + v) * count + row + j];
        }
    }
  return sum;
}

// A thread has one pixel and channel of gx or gx2: of pixels from ... from + pixels - 1, counted through all images.
// The sum is added to what is there if `add`.
extern "C" __global__ void col2im(const real* cols, real* gx, real* gx2, int C, int C1, int H, int W, int F, int KH,
                                  int KW, int OH, int OW, int sh, int sw, int top, int left, int first, int count,
                                  int from, int pixels, bool add) {
  int t = thread_index(), m = t % pixels, c = t / pixels;
  if (c >= C) return;
  int q = (from + m) % W, r = (from + m) / W % H, n = (from + m) / W / H;
  cols += (size_t)c * KH * KW * count;
  float sum;
  if (KH == 3 && KW == 3 && sh == 1 && sw == 1 && F == 1)
    sum = gathered<3, 1>(cols, n, r, q, OH, OW, top, left, first, count);
  else if (KH == 2 && KW == 2 && sh == 1 && sw == 1 && F == 2)
    sum = gathered<2, 2>(cols, n, r, q, OH, OW, top, left, first, count);
  else sum = gathered(cols, n, r, q, F, KH, KW, OH, OW, sh, sw, top, left, first, count);
  real* to = plane_of(gx, gx2, n, c, C1, C, H * W) + r * W + q;
  *to = add ? *to + sum : sum;
}
