// Adam (optim.py) on the GPU: all parameters in one launch. `table` has six rows of K numbers, one for each parameter:
// the addresses of w, g, m and v, its size, and its first block. A block has 4 * blockDim.x elements of one parameter.
// In a CUDA graph, whose arguments stay the same, eps, rate and shrink come from memory (`changing`), and *go = 0
// forbids the step. gain1 and gain2 are 1 - b1 and 1 - b2.
extern "C" __global__ void adam(const unsigned long long* table, int K, float gain1, float gain2, float eps, float rate,
                                float shrink, const float* changing, const int* go) {
  if (go && !*go) return;
  if (changing) eps = changing[0], rate = changing[1], shrink = changing[2];
  const unsigned long long* first = table + 5 * (size_t)K;
  int k = 0, end = K;  // the last parameter that begins at this block or before
  while (end - k > 1) {
    int middle = (k + end) / 2;
    if (first[middle] <= blockIdx.x) k = middle;
    else end = middle;
  }
  float *w = (float*)table[k], *m = (float*)table[2 * K + k], *v = (float*)table[3 * K + k];
  const float* g = (const float*)table[K + k];
  long long size = table[4 * K + k], start = (blockIdx.x - first[k]) * 4 * blockDim.x + threadIdx.x;
#pragma unroll
  for (int turn = 0; turn < 4; ++turn) {
    long long t = start + turn * (long long)blockDim.x;
    if (t >= size) return;
    float mean = m[t] + gain1 * (g[t] - m[t]), square = v[t] + gain2 * (g[t] * g[t] - v[t]);
    m[t] = mean;
    v[t] = square;
    w[t] = shrink * w[t] - mean / (sqrtf(square) + eps) * rate;
  }
}

// clip_grad_norm of tinyseg/optim.py by one thread, for a step whose numbers the host does not read. `table` has the
// addresses of K sums of squares. As there, they are added up in their order, in double.
extern "C" __global__ void judge(const unsigned long long* table, int K, const double* max_norm, const float* loss,
                                 const int* wrong, double* figures, float* factor, int* go) {
  if (thread_index()) return;
  double total = 0;
  for (int k = 0; k < K; ++k) total += *(const float*)table[k];
  double norm = sqrt(total);
  bool good = norm - norm == 0 && *loss - *loss == 0 && !*wrong;  // what is not finite differs from itself
  figures[0] = *loss;
  figures[1] = norm;
  figures[2] = *wrong;
  *go = good;
  *factor = good && norm > *max_norm ? (float)(*max_norm / norm) : 1;
}
