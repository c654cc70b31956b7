// activation.py on the GPU. A thread has one element. For softmax it has one pixel with its A classes, which lie
// `inner` elements apart: neighbouring threads read neighbouring elements of every class.

extern "C" __global__ void relu_forward(const real* x, real* y, int size) {
  int t = thread_index();
  if (t >= size) return;
  float v = x[t];
  y[t] = v < 0 ? 0.0f : v;  // NaN stays NaN
}

extern "C" __global__ void relu_grad(const real* gy, const real* y, real* gx, int size) {
  int t = thread_index();
  if (t < size) gx[t] = y[t] > 0 ? (float)gy[t] : 0.0f;  // not gy * 0, which is NaN for an infinite gy
}

extern "C" __global__ void sigmoid_forward(const real* x, real* y, int size) {
  int t = thread_index();
  if (t >= size) return;
  float v = x[t], e = expf(-fabsf(v));
  y[t] = (v >= 0 ? 1 : e) / (1 + e);
}

extern "C" __global__ void sigmoid_grad(const real* gy, const real* y, real* gx, int size) {
  int t = thread_index();
  if (t < size) gx[t] = gy[t] * y[t] * (1 - y[t]);
}

extern "C" __global__ void softmax_forward(const real* x, real* y, int pixels, int A, int inner) {
  int t = thread_index();
  if (t >= pixels) return;
  int first = t / inner * A * inner + t % inner;
  x += first, y += first;
  float top = largest(x, A, inner), sum = sum_exp(x, top, A, inner);
  for (int c = 0; c < A; ++c) y[c * inner] = expf(x[c * inner] - top) / sum;
}

extern "C" __global__ void softmax_grad(const real* gy, const real* y, real* gx, int pixels, int A, int inner) {
  int t = thread_index();
  if (t >= pixels) return;
  int first = t / inner * A * inner + t % inner;
  gy += first, y += first, gx += first;
  float sum = 0;
  for (int c = 0; c < A; ++c) sum += gy[c * inner] * y[c * inner];
  for (int c = 0; c < A; ++c) gx[c * inner] = y[c * inner] * (gy[c * inner] - sum);
}

extern "C" __global__ void log_softmax_forward(const real* x, real* y, int pixels, int A, int inner) {
  int t = thread_index();
  if (t >= pixels) return;
  int first = t / inner * A * inner + t % inner;
  x += first, y += first;
  float top = largest(x, A, inner), log_sum = logf(sum_exp(x, top, A, inner));
  for (int c = 0; c < A; ++c) y[c * inner] = x[c * inner] - top - log_sum;
}

extern "C" __global__ void log_softmax_grad(const real* gy, const real* y, real* gx, int pixels, int A, int inner) {
  int t = thread_index();
  if (t >= pixels) return;
  int first = t / inner * A * inner + t % inner;
  gy += first, y += first, gx += first;
  float sum = 0;
  for (int c = 0; c < A; ++c) sum += gy[c * inner];
  for (int c = 0; c < A; ++c) gx[c * inner] = gy[c * inner] - expf(y[c * inner]) * sum;
}
