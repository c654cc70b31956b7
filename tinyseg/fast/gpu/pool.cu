// pool.py on the GPU. x (N,C,H,W), y and winner (N,C,OH,OW); (top, left) is the padding before, (sh, sw) the stride.
// Planes (n, c) lie one after the other. Only one thread writes an element: gradients are gathered from the windows
// that saw a pixel.

// Largest value of a window, and its tap; a NaN wins, so that it is seen. If K > 0, the window is K x K, and the
// compiler knows its size.
template <int K>
__device__ inline float largest(const real* x, int r0, int q0, int H, int W, int KH, int KW, int& winner) {
  const int kh = K ? K : KH, kw = K ? K : KW;
  float best = -__int_as_float(0x7f800000);  // minus infinity
  winner = (r0 < 0 ? -r0 : 0) * kw + (q0 < 0 ? -q0 : 0);  // the first pixel inside, if all are minus infinity
#pragma unroll
  for (int u = 0; u < kh; ++u)
#pragma unroll
    for (int v = 0; v < kw; ++v) {
      int r = r0 + u, q = q0 + v;
      if (r < 0 || r >= H || q < 0 || q >= W) continue;
      float value = x[r * W + q];
      if (value > best || value != value) {
        best = value;
        winner = u * kw + v;
      }
    }
  return best;
}

extern "C" __global__ void max_forward(const real* x, real* y, unsigned char* winner, int size, int H, int W, int KH,
                                       int KW, int OH, int OW, int sh, int sw, int top, int left) {
  int t = thread_index();  // of y
  if (t >= size) return;
  int r = t / OW % OH * sh - top, q = t % OW * sw - left;
  const real* plane = x + (size_t)(t / OW / OH) * H * W;
  int tap;
  if (KH == 2 && KW == 2) y[t] = largest<2>(plane, r, q, H, W, 2, 2, tap);
  else y[t] = largest<0>(plane, r, q, H, W, KH, KW, tap);
  winner[t] = (unsigned char)tap;
}

// Windows of 2 x 2 that do not overlap. A thread has the two pixels of a column of a window; at the border no window
// may have seen them.
extern "C" __global__ void max_of_four_gradient(const real* gy, const unsigned char* winner, real* gx, int size,
                                                int H, int W, int OH, int OW) {
  int t = thread_index(), pairs = (H + 1) / 2;
  if (t >= size) return;
  int q = t % W, i = t / W % pairs, plane = t / W / pairs, j = q / 2, tap = -1;
  float g = 0;
  if (i < OH && j < OW) {
    size_t at = ((size_t)plane * OH + i) * OW + j;
    g = gy[at];
    tap = winner[at];
  }
  real* to = gx + ((size_t)plane * H + 2 * i) * W + q;
  to[0] = tap == q % 2 ? g : 0.0f;
  if (2 * i + 1 < H) to[W] = tap == 2 + q % 2 ? g : 0.0f;
}

// Of n windows of k pixels that begin s apart: the first that sees pixel p, and the last plus one.
__device__ inline int first_window(int p, int k, int s) { return p < k ? 0 : (p - k) / s + 1; }
__device__ inline int end_of_windows(int p, int s, int n) { return p / s + 1 < n ? p / s + 1 : n; }

extern "C" __global__ void max_grad_x(const real* gy, const unsigned char* winner, real* gx, int size, int H, int W,
                                      int KH, int KW, int OH, int OW, int sh, int sw, int top, int left) {
  int t = thread_index();  // of gx
  if (t >= size) return;
  int q = t % W + left, r = t / W % H + top;
  size_t plane = (size_t)(t / W / H) * OH * OW;
  float sum = 0;
  for (int i = first_window(r, KH, sh); i < end_of_windows(r, sh, OH); ++i)
    for (int j = first_window(q, KW, sw); j < end_of_windows(q, sw, OW); ++j)
      if (winner[plane + i * OW + j] == (r - i * sh) * KW + q - j * sw) sum += gy[plane + i * OW + j];
  gx[t] = sum;
}

extern "C" __global__ void avg_forward(const real* x, real* y, int size, int H, int W, int KH, int KW, int OH,
                                       int OW, int sh, int sw, int top, int left) {
  int t = thread_index();  // of y
  if (t >= size) return;
  int r0 = t / OW % OH * sh - top, q0 = t % OW * sw - left;
  const real* plane = x + (size_t)(t / OW / OH) * H * W;
  float sum = 0;
  for (int r = r0 < 0 ? 0 : r0; r < r0 + KH && r < H; ++r) {
    float of_row = 0;  // shorter sums round less: a window may be as large as the image
    for (int q = q0 < 0 ? 0 : q0; q < q0 + KW && q < W; ++q) of_row += plane[r * W + q];
    sum += of_row;
  }
  y[t] = sum / (KH * KW);
}

extern "C" __global__ void avg_grad_x(const real* gy, real* gx, int size, int H, int W, int KH, int KW, int OH,
                                      int OW, int sh, int sw, int top, int left) {
  int t = thread_index();  // of gx
  if (t >= size) return;
  int q = t % W + left, r = t / W % H + top;
  const real* plane = gy + (size_t)(t / W / H) * OH * OW;
  float sum = 0;
  for (int i = first_window(r, KH, sh); i < end_of_windows(r, sh, OH); ++i)
    for (int j = first_window(q, KW, sw); j < end_of_windows(q, sw, OW); ++j) sum += plane[i * OW + j];
  gx[t] = sum / (KH * KW);
}
