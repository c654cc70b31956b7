// loss.py on the GPU. A block adds up a slice (common.cuh); the few sums of slices are added up in a second step,
// always in the same order. z, p, t and gradients are (N,C,H,W), class numbers (N,H,W).

// ----- binary cross-entropy: all elements are one plane. Element k has weight number k / inner % length.
extern "C" __global__ void bce(const float* z, const float* t, const float* weight, const float* pos_weight,
                               float* sums, int inner, int length, int pos_inner, int pos_length, int P) {
  Slice s = my_slice(P);
  float sum = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    float softplus = log1pf(expf(-fabsf(z[k]))) + (z[k] > 0 ? 0 : -z[k]);  // log(1 + exp(-z))
    float positive = 1 + (pos_weight[k / pos_inner % pos_length] - 1) * t[k];
    float w = weight[k / inner % length];
    sum += w != 0 ? w * ((1 - t[k]) * z[k] + positive * softplus) : 0;  // 0 * NaN would be NaN
  }
  write_sum(sum, sums + blockIdx.x);
}

extern "C" __global__ void bce_grad(const float* z, const float* t, const float* weight, const float* pos_weight,
                                    float* gz, int P, int inner, int length, int pos_inner, int pos_length) {
  int k = thread_index();
  if (k >= P) return;
  float e = expf(-fabsf(z[k])), sigmoid = (z[k] <= 0 ? 1 : e) / (1 + e);  // of -z
  float positive = 1 + (pos_weight[k / pos_inner % pos_length] - 1) * t[k];
  float w = weight[k / inner % length];
  gz[k] = w != 0 ? w * ((1 - t[k]) - positive * sigmoid) : 0;
}

// ----- cross-entropy: the pixels (n,i,j) of all images are one plane of M; HW of them make an image. Pixels of class
// -1 are ignored, and so are pixels of a class with weight 0.
extern "C" __global__ void ce(const float* z, const long long* t, const float* weight, float* losses, float* weights,
                              int C, int HW, int M) {
  Slice s = my_slice(M);
  float sum = 0, count = 0;
  for (unsigned q = s.from + threadIdx.x; q < s.to; q += blockDim.x) {
    const float* of_pixel = z + q / HW * C * HW + q % HW;
    int k = (int)t[q];
    float top = largest(of_pixel, C, HW), w = k < 0 ? 0 : weight[k];
    if (w == 0) continue;  // whatever its logits are
    sum += w * (logf(sum_exp(of_pixel, top, C, HW)) - (of_pixel[k * HW] - top));
    count += w;
  }
  write_sum(sum, losses + blockIdx.x);
  write_sum(count, weights + blockIdx.x);
}

extern "C" __global__ void ce_grad(const float* z, const long long* t, const float* weight, float* gz, int C, int HW,
                                   int M) {
  int q = thread_index();
  if (q >= M) return;
  int first = q / HW * C * HW + q % HW, k = (int)t[q];
  z += first, gz += first;
  float top = largest(z, C, HW), sum = sum_exp(z, top, C, HW), w = k < 0 ? 0 : weight[k];
  for (int c = 0; c < C; ++c) gz[c * HW] = w != 0 ? w * (expf(z[c * HW] - top) / sum - (c == k)) : 0;
}

// ----- soft Dice: planes (n,c) of P pixels. First the sums of p + t and of p * t over each slice.
extern "C" __global__ void dice_sums(const float* p, const float* t, float* sums, float* products, int P) {
  Slice s = my_slice(P);
  float sum = 0, product = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    sum += p[k] + t[k];
    product += p[k] * t[k];
  }
  write_sum(sum, sums + blockIdx.x);
  write_sum(product, products + blockIdx.x);
}

// Then a block adds up the slices of a set of planes.
extern "C" __global__ void dice(const float* sums, const float* products, float* D, float* denominator, float smooth,
                                int outer, int inner) {
  float sum = 0, product = 0;
  for (int k = threadIdx.x; k < outer * inner; k += blockDim.x) {
    sum += sums[index_in_set(k, inner)];
    product += products[index_in_set(k, inner)];
  }
  sum = block_sum(sum) + smooth;
  product = 2 * block_sum(product) + smooth;
  if (threadIdx.x) return;
  const float tiny = 1.17549435e-38f;  // all 0 and no smoothing: D = 0, not 0/0
  sum = sum < tiny ? tiny : sum;
  D[blockIdx.x] = product / sum;
  denominator[blockIdx.x] = sum;
}

// Plane k has number k % length of D, denominator and gD.
extern "C" __global__ void dice_grad(const float* gD, const float* t, const float* D, const float* denominator,
                                     float* gp, int gD_length, int length, int P) {
  Slice s = my_slice(P);
  float factor = gD[s.plane % gD_length] / denominator[s.plane % length], d = D[s.plane % length];
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) gp[k] = factor * (2 * t[k] - d);
}
