// batch_norm.py and group_norm.py on the GPU, from the statistics on. x, y, gy, gx (N,C,H,W) are N*C planes of P = H*W
// elements; a block has a slice of one. mean and rstd belong to sets of planes: plane k is of channel k % C and of
// set k / D % sets. Groups: D = C/G, sets = N*G. Channels of the whole batch: D = 1, sets = C.

// One function for the forward pass and the ReLU of the backward pass: they must agree to the last bit.
__device__ inline float normalized(float d, float scale, float beta) { return fmaf(d, scale, beta); }

extern "C" __global__ void normalize(const real* x, const float* gamma, const float* beta, const float* mean,
                                     const float* rstd, real* y, int P, int size, int C, int D, int sets, bool relu) {
  Slice s = my_slice(P, size);
  int c = s.plane % C, set = s.plane / D % sets;
  float m = mean[set], scale = rstd[set] * gamma[c], b = beta[c];
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    float v = normalized(x[k] - m, scale, b);
    y[k] = relu && v < 0 ? 0.0f : v;  // NaN stays NaN
  }
}

// Of each slice the sums of gy and of gy * xhat. Here and below gy is 0 where the ReLU was off, if `beta` is not null.
extern "C" __global__ void gradient_sums(const real* gy, const real* x, const float* gamma, const float* beta,
                                         const float* mean, const float* rstd, float* of_gy, float* of_gy_xhat, int P,
                                         int size, int C, int D, int sets) {
  Slice s = my_slice(P, size);
  int c = s.plane % C, set = s.plane / D % sets;
  float m = mean[set], r = rstd[set], scale = r * gamma[c], b = beta ? beta[c] : 0, one = 0, two = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    float d = x[k] - m, on = !beta || normalized(d, scale, b) > 0, g = on * gy[k];
    one += g;
    two += g * (d * r);
  }
  one = block_sum(one);
  two = block_sum(two);
  if (threadIdx.x) return;
  of_gy[blockIdx.x] = one;
  of_gy_xhat[blockIdx.x] = two;
}

// gx = rstd (gxhat - mean of gxhat - xhat * mean of gxhat * xhat), gxhat = gamma gy. `sums` of gy and gy * xhat for each
// set, times `share`, are the means: gamma is in them, or (gamma_missing) still to come. Null: no means to take out.
extern "C" __global__ void gradient(const real* gy, const real* x, const float* gamma, const float* beta,
                                    const float* mean, const float* rstd, const float* of_gy, const float* of_gy_xhat,
                                    float share, bool gamma_missing, real* gx, int P, int size, int C, int D,
                                    int sets) {
  Slice s = my_slice(P, size);
  int c = s.plane % C, set = s.plane / D % sets;
  float m = mean[set], r = rstd[set], g0 = gamma[c], scale = r * g0, b = beta ? beta[c] : 0, one = 0, two = 0;
  if (of_gy) {
    if (gamma_missing) share *= g0;
    one = of_gy[set] * share;
    two = of_gy_xhat[set] * share;
  }
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    float d = x[k] - m, on = !beta || normalized(d, scale, b) > 0;
    gx[k] = r * (g0 * (on * gy[k]) - one - (d * r) * two);
  }
}
