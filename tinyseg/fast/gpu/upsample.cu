// upsample.py on the GPU. x (N,C,H,W), y (N,C,fh*H,fw*W). Planes lie one after the other, and so do their rows: if rows
// are counted through all planes, row `line` of x became rows line*fh ... line*fh + fh - 1 of y. Only one thread writes
// an element.

extern "C" __global__ void nearest_forward(const real* x, real* y, int size, int OW, int fh, int fw) {
  int t = thread_index();  // of the fh elements of column j that a row of x became
  if (t >= size) return;
  int j = t % OW, line = t / OW;
  float value = x[(size_t)line * (OW / fw) + j / fw];
  for (int u = 0; u < fh; ++u) y[((size_t)line * fh + u) * OW + j] = value;
}

extern "C" __global__ void nearest_grad_x(const real* gy, real* gx, int size, int W, int fh, int fw) {
  int t = thread_index();  // of gx
  if (t >= size) return;
  int q = t % W, line = t / W;
  float sum = 0;
  for (int u = 0; u < fh; ++u)
    for (int v = 0; v < fw; ++v) sum += gy[(((size_t)line * fh + u) * W + q) * fw + v];
  gx[t] = sum;
}

// Output i lies (2i + 1 - f) / 2f pixels of the input behind the first of n pixels. Returns 2f times that, clamped to
// the border.
__device__ inline int position(int i, int n, int f) {
  int p = 2 * i + 1 - f, last = 2 * f * (n - 1);
  return p < 0 ? 0 : p > last ? last : p;
}

extern "C" __global__ void bilinear_forward(const real* x, real* y, int size, int H, int W, int fh, int fw) {
  int t = thread_index();  // of y
  if (t >= size) return;
  int OH = H * fh, OW = W * fw, pr = position(t / OW % OH, H, fh), pq = position(t % OW, W, fw);
  int r = pr / (2 * fh), q = pq / (2 * fw);
  float a = (float)(pr - r * 2 * fh) / (2 * fh), b = (float)(pq - q * 2 * fw) / (2 * fw);  // weights of the next
  const real* here = x + ((size_t)(t / OW / OH) * H + r) * W + q;
  int below = r + 1 < H ? W : 0, right = q + 1 < W ? 1 : 0;  // beyond the border the weight is 0
  y[t] = (1 - a) * ((1 - b) * here[0] + b * here[right]) + a * ((1 - b) * here[below] + b * here[below + right]);
}

// The first output that pixel r is a part of, the last plus one, and the weight of r in output i: 1 - |position - r|.
__device__ inline int first_output(int r, int f) { return r ? f * (r - 1) + (f + 1) / 2 : 0; }
__device__ inline int end_of_outputs(int r, int n, int f) { return r + 1 < n ? f * (r + 1) + f / 2 : f * n; }
__device__ inline float weight(int i, int r, int n, int f) {
  int distance = position(i, n, f) - 2 * f * r;
  return (float)(2 * f - (distance < 0 ? -distance : distance)) / (2 * f);
}

extern "C" __global__ void bilinear_grad_x(const real* gy, real* gx, int size, int H, int W, int fh, int fw) {
  int t = thread_index();  // of gx
  if (t >= size) return;
  int q = t % W, r = t / W % H;
  const real* plane = gy + (size_t)(t / W / H) * H * fh * W * fw;
  float sum = 0;
  for (int i = first_output(r, fh); i < end_of_outputs(r, H, fh); ++i) {
    float row = 0;
    for (int j = first_output(q, fw); j < end_of_outputs(q, W, fw); ++j)
      row += weight(j, q, W, fw) * plane[i * W * fw + j];
    sum += weight(i, r, H, fh) * row;
  }
  gx[t] = sum;
}
