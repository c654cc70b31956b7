// What comes before and after the matrix products of convolutions on the GPU. The pixels of all images are the columns
// of one matrix: pixel p of image n (of N, with P pixels each) is column n*P + p.

constexpr int PER_THREAD = 4;

// y[n,k,p] = z[k, n*P+p - first] + b[k], at least 0 if `relu`, for the `count` columns from `first` on. b may be null;
// z may be y if there is one image.
extern "C" __global__ void finish(const real* z, const float* b, real* y, int K, int P, int first, int count,
                                  bool relu) {
  int blocks = (count - 1) / (PER_THREAD * blockDim.x) + 1, k = blockIdx.x / blocks;
  int m = blockIdx.x % blocks * PER_THREAD * blockDim.x + threadIdx.x;
  float bias = b ? b[k] : 0.0f;
  float v[PER_THREAD];
#pragma unroll
  for (int e = 0; e < PER_THREAD; ++e)
    if (m + e * blockDim.x < count) v[e] = z[(size_t)k * count + m + e * blockDim.x] + bias;
#pragma unroll
  for (int e = 0; e < PER_THREAD; ++e, m += blockDim.x)
    if (m < count) {
      int n = (first + m) / P, p = (first + m) % P;
      y[((size_t)n * K + k) * P + p] = relu && v[e] < 0 ? 0.0f : v[e];  // NaN stays
    }
}

// Backward: g[k, n*P+p] = gy[n,k,p], or 0 where y is not positive; gb (parts,K) are the sums of g over parts of the
// columns. y may be null (no ReLU), and g (only gb is wanted). One block for each part and k.
extern "C" __global__ void begin_backward(const real* __restrict__ gy, const real* __restrict__ y, real* __restrict__ g,
                                          float* gb, int parts, int N, int K, int P) {
  int k = blockIdx.x % K, part = blockIdx.x / K, count = N * P;
  int from = (int)((long long)count * part / parts), to = (int)((long long)count * (part + 1) / parts);
  float sum = 0;
#pragma unroll 4
  for (int m = from + threadIdx.x; m < to; m += blockDim.x) {
    int n = m / P, p = m % P;
    size_t at = ((size_t)n * K + k) * P + p;
    float v = y && !(y[at] > 0) ? 0.0f : gy[at];
    if (g) g[(size_t)k * count + m] = v;
    sum += v;
  }
  write_sum(sum, gb + blockIdx.x);
}
