// Sums over planes of P elements, which lie one after the other in slices of at most `size` (my_slice in common.cuh).
// A block adds up a slice; then a block gathers the slices of a *set* of planes. Set s of `sets` has, from each of
// `outer` stretches of the array, `inner` slices in a row: number (o * sets + s) * inner + i. No atomics: equal inputs
// give equal bits.

// Mean of each slice, and the sum of squared distances from it.
extern "C" __global__ void slice_moments(const real* x, float* mean, float* squares, int P, int size) {
  Slice s = my_slice(P, size);
  float n = s.to - s.from, sum = 0, rest = 0, square = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) sum += x[k];
  float m = block_sum(sum) / n;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    float d = x[k] - m;
    rest += d;
    square += d * d;
  }
  rest = block_sum(rest) / n;  // what rounding left of the mean
  square = block_sum(square);
  if (threadIdx.x) return;
  mean[blockIdx.x] = m + rest;
  squares[blockIdx.x] = square;
}

// Mean and (biased) variance of each set, of slices with the moments above; one of `var` and `rstd` = 1 / sqrt(variance
// + eps) may be null.
extern "C" __global__ void fold_moments(const float* means, const float* squares, float* mean, float* var, float* rstd,
                                        float eps, int P, int size, int outer, int inner) {
  int slices = (P - 1) / size + 1, sets = gridDim.x, all = outer * inner;
  float total = (float)outer * (inner / slices) * P, sum = 0, rest = 0, square = 0;
  for (int k = threadIdx.x; k < all; k += blockDim.x) {
    int i = (k / inner * sets + blockIdx.x) * inner + k % inner;
    sum += min(size, P - i % slices * size) * means[i];
  }
  float m = block_sum(sum) / total;
  for (int k = threadIdx.x; k < all; k += blockDim.x) {
    int i = (k / inner * sets + blockIdx.x) * inner + k % inner;
    rest += min(size, P - i % slices * size) * (means[i] - m);
  }
  m += block_sum(rest) / total;
  for (int k = threadIdx.x; k < all; k += blockDim.x) {
    int i = (k / inner * sets + blockIdx.x) * inner + k % inner;
    float d = means[i] - m;
    square += squares[i] + min(size, P - i % slices * size) * d * d;
  }
  square = block_sum(square) / total;
  if (threadIdx.x) return;
  mean[blockIdx.x] = m;
  if (var) var[blockIdx.x] = square;
  if (rstd) rstd[blockIdx.x] = 1 / sqrtf(square + eps);
}

// Of each slice the sums of a and of a * b.
extern "C" __global__ void slice_products(const float* a, const float* b, float* of_a, float* of_ab, int P, int size) {
  Slice s = my_slice(P, size);
  float one = 0, two = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    one += a[k];
    two += a[k] * b[k];
  }
  one = block_sum(one);
  two = block_sum(two);
  if (threadIdx.x) return;
  of_a[blockIdx.x] = one;
  of_ab[blockIdx.x] = two;
}

// Of each set the sums of a and b, both given for each slice; times factor[c] where a slice's plane is of channel c of C.
extern "C" __global__ void fold_sums(const float* a, const float* b, const float* factor, float* of_a, float* of_b,
                                     int slices, int C, int outer, int inner) {
  int sets = gridDim.x;
  float one = 0, two = 0;
  for (int k = threadIdx.x; k < outer * inner; k += blockDim.x) {
    int i = (k / inner * sets + blockIdx.x) * inner + k % inner;
    float f = factor ? factor[i / slices % C] : 1;
    one += f * a[i];
    two += f * b[i];
  }
  one = block_sum(one);
  two = block_sum(two);
  if (threadIdx.x) return;
  of_a[blockIdx.x] = one;
  of_b[blockIdx.x] = two;
}
