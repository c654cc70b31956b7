// batch_norm.py and group_norm.py on the GPU, when the statistics are known. x, y, gy, gx (N,C,H,W) are N*C planes of
// P = H*W elements; a block has a slice of one. mean and rstd belong to sets of planes: plane k is of channel k % C and
// of set k / D % sets. Groups: D = C/G, sets = N*G. Channels of the whole batch: D = 1, sets = C.

extern "C" __global__ void normalize(const real* x, const float* gamma, const float* beta, const float* mean,
                                     const float* rstd, real* y, int C, int D, int sets, int P) {
  Slice s = my_slice(P);
  int c = s.plane % C, set = s.plane / D % sets;
  float m = mean[set], scale = rstd[set] * gamma[c], b = beta[c];
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) y[k] = fmaf(x[k] - m, scale, b);
}

// The sums of gy and of gy * xhat over each slice.
extern "C" __global__ void gradient_sums(const real* gy, const real* x, const float* mean, const float* rstd,
                                         float* of_gy, float* of_gy_xhat, int C, int D, int sets, int P) {
  Slice s = my_slice(P);
  int set = s.plane / D % sets;
  float m = mean[set], r = rstd[set], sum_gy = 0, sum_gy_xhat = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    float g = gy[k];
    sum_gy += g;
    sum_gy_xhat += g * ((x[k] - m) * r);
  }
  write_sum(sum_gy, of_gy + blockIdx.x);
  write_sum(sum_gy_xhat, of_gy_xhat + blockIdx.x);
}

// gx = rstd (gxhat - mean of gxhat - xhat * mean of gxhat * xhat), gxhat = gamma gy. of_gy and of_gy_xhat are the sums
// of each set, with gamma in them unless `gamma_missing`; `share` is 1 / number of elements of a set. If of_gy is null,
// the mean and rstd are constants, and no means are taken away.
extern "C" __global__ void gradient(const real* gy, const real* x, const float* gamma, const float* mean,
                                    const float* rstd, const float* of_gy, const float* of_gy_xhat, float share,
                                    bool gamma_missing, real* gx, int C, int D, int sets, int P) {
  Slice s = my_slice(P);
  int c = s.plane % C, set = s.plane / D % sets;
  float m = mean[set], r = rstd[set], g0 = gamma[c], mean_g = 0, mean_g_xhat = 0;
  if (of_gy) {
    if (gamma_missing) share *= g0;
    mean_g = of_gy[set] * share;
    mean_g_xhat = of_gy_xhat[set] * share;
  }
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x)
    gx[k] = r * (g0 * gy[k] - mean_g - ((x[k] - m) * r) * mean_g_xhat);
}
