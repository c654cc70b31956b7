// Sums over sets of planes, which have P elements each. First a block adds up a slice (my_slice in common.cuh). Then a
// block adds up the slices of a set: the slices are an array (outer, sets, inner), and set s has those at [o, s, i] for
// all o and i. No atomics: equal inputs give equal bits.

// Mean of each slice, and the sum of squared distances from it.
extern "C" __global__ void slice_moments(const real* x, float* mean, float* squares, int P) {
  Slice s = my_slice(P);
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

// Mean and (biased) variance of each set, from the moments of its slices. `var` or `rstd` = 1 / sqrt(variance + eps)
// may be null.
extern "C" __global__ void fold_moments(const float* means, const float* squares, float* mean, float* var, float* rstd,
                                        float eps, int P, int outer, int inner) {
  int slices = slices_of(P), all = outer * inner;
  float total = (float)outer * (inner / slices) * P, sum = 0, rest = 0, square = 0;
  for (int k = threadIdx.x; k < all; k += blockDim.x) {
    int i = index_in_set(k, inner);
    sum += min(SLICE, P - i % slices * SLICE) * means[i];
  }
  float m = block_sum(sum) / total;
  for (int k = threadIdx.x; k < all; k += blockDim.x) {
    int i = index_in_set(k, inner);
    rest += min(SLICE, P - i % slices * SLICE) * (means[i] - m);
  }
  m += block_sum(rest) / total;
  for (int k = threadIdx.x; k < all; k += blockDim.x) {
    int i = index_in_set(k, inner);
    float d = means[i] - m;
    square += squares[i] + min(SLICE, P - i % slices * SLICE) * d * d;
  }
  square = block_sum(square) / total;
  if (threadIdx.x) return;
  mean[blockIdx.x] = m;
  if (var) var[blockIdx.x] = square;
  if (rstd) rstd[blockIdx.x] = 1 / sqrtf(square + eps);
}

// The sums of a and of a * b over each slice.
extern "C" __global__ void slice_products(const float* a, const float* b, float* of_a, float* of_ab, int P) {
  Slice s = my_slice(P);
  float sum_a = 0, sum_ab = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    sum_a += a[k];
    sum_ab += a[k] * b[k];
  }
  write_sum(sum_a, of_a + blockIdx.x);
  write_sum(sum_ab, of_ab + blockIdx.x);
}

// The sums of a and of b, which have a number for each slice, over each set. A plane has `slices` slices, and what
// comes from plane k is multiplied by factor[k % C], unless `factor` is null.
extern "C" __global__ void fold_sums(const float* a, const float* b, const float* factor, float* of_a, float* of_b,
                                     int slices, int C, int outer, int inner) {
  float sum_a = 0, sum_b = 0;
  for (int k = threadIdx.x; k < outer * inner; k += blockDim.x) {
    int i = index_in_set(k, inner);
    float f = factor ? factor[i / slices % C] : 1;
    sum_a += f * a[i];
    sum_b += f * b[i];
  }
  write_sum(sum_a, of_a + blockIdx.x);
  write_sum(sum_b, of_b + blockIdx.x);
}
