// batch_norm.py and group_norm.py on the GPU, from the statistics on. x, y, gy, gx (N,C,H,W) are N*C planes of P = H*W
// elements; a block has a slice of one. mean and rstd belong to sets of planes: plane k is of channel k % C and of
// set k / D % sets. Groups: D = C/G, sets = N*G. Channels of the whole batch: D = 1, sets = C.

extern "C" __global__ void normalize(const real* x, const float* gamma, const float* beta, const float* mean,
                                     const float* rstd, real* y, int P, int size, int C, int D, int sets) {
  Slice s = my_slice(P, size);
  int c = s.plane % C, set = s.plane / D % sets;
  float m = mean[set], scale = rstd[set] * gamma[c], b = beta[c];
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) y[k] = fmaf(x[k] - m, scale, b);
}

// Of each slice the sums of gy and of gy * xhat.
extern "C" __global__ void gradient_sums(const real* gy, const real* x, const float* mean, const float* rstd,
                                         float* of_gy, float* of_gy_xhat, int P, int size, int C, int D, int sets) {
  Slice s = my_slice(P, size);
  int set = s.plane / D % sets;
  float m = mean[set], r = rstd[set], one = 0, two = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    float g = gy[k];
    one += g;
    two += g * ((x[k] - m) * r);
  }
  one = block_sum(one);
  two = block_sum(two);
  if (threadIdx.x) return;
  of_gy[blockIdx.x] = one;
  of_gy_xhat[blockIdx.x] = two;
}

// gx = rstd (gxhat - mean of gxhat - xhat * mean of gxhat * xhat), gxhat = gamma gy. `sums` of gy and gy * xhat for each
// set, times `share`, are the means: gamma is in them, or (gamma_missing) still to come. Null: no means to take out.
extern "C" __global__ void gradient(const real* gy, const real* x, const float* gamma, const float* mean,
                                    const float* rstd, const float* of_gy, const float* of_gy_xhat, float share,
                                    bool gamma_missing, real* gx, int P, int size, int C, int D, int sets) {
  Slice s = my_slice(P, size);
  int c = s.plane % C, set = s.plane / D % sets;
  float m = mean[set], r = rstd[set], g0 = gamma[c], one = 0, two = 0;
  if (of_gy) {
    if (gamma_missing) share *= g0;
    one = of_gy[set] * share;
    two = of_gy_xhat[set] * share;
  }
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x)
    gx[k] = r * (g0 * gy[k] - one - ((x[k] - m) * r) * two);
}
