// weight_standardization.py on the GPU, when the sums are known. A set of weights is a plane of P; a block has a slice.

extern "C" __global__ void forward(const float* v, const float* mean, const float* var, float* w, float* std, float eps,
                                   float a, int P) {
  Slice s = my_slice(P);
  float m = mean[s.plane], deviation = sqrtf(var[s.plane]), scale = a / (deviation + eps);
  if (threadIdx.x == 0 && s.from == (unsigned)s.plane * P) std[s.plane] = deviation;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) w[k] = (v[k] - m) * scale;
}

// From the sums of gw and of gw * w over each set.
extern "C" __global__ void grad_v(const float* gw, const float* w, const float* std, const float* of_gw,
                                  const float* of_gw_w, float* gv, float eps, float a, int P) {
  Slice s = my_slice(P);
  float deviation = std[s.plane], mean = of_gw[s.plane] / P, scale = a / (deviation + eps);
  float toward_scale = of_gw_w[s.plane] / P / (a * (deviation > 0 ? deviation : 1));  // w = 0 where deviation = 0
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x)
    gv[k] = (gw[k] - mean) * scale - w[k] * toward_scale;
}
