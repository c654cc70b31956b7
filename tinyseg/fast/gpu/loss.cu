// loss.py on the GPU. Sums are of slices (common.cuh); the few of them are added up in a second step, always in the
// same order. z, p, t and gradients are (N,C,H,W), class numbers (N,H,W).

// ----- binary cross-entropy: all elements are one plane. Element k has weight number k / inner % length.
extern "C" __global__ void bce(const float* z, const float* t, const float* weight, const float* pos_weight,
                               float* sums, int P, int size, int inner, int length, int pos_inner, int pos_length) {
  Slice s = my_slice(P, size);
  float sum = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    float softplus = log1pf(expf(-fabsf(z[k]))) + (z[k] > 0 ? 0 : -z[k]);  // log(1 + exp(-z))
    float positive = 1 + (pos_weight[k / pos_inner % pos_length] - 1) * t[k];
    sum += weight[k / inner % length] * ((1 - t[k]) * z[k] + positive * softplus);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void bce_grad(const float* z, const float* t, const float* weight, const float* pos_weight,
                                    float* gz, int P, int inner, int length, int pos_inner, int pos_length) {
  int k = thread_index();
  if (k >= P) return;
  float e = expf(-fabsf(z[k])), sigmoid = (z[k] <= 0 ? 1 : e) / (1 + e);  // of -z
  float positive = 1 + (pos_weight[k / pos_inner % pos_length] - 1) * t[k];
  gz[k] = weight[k / inner % length] * ((1 - t[k]) - positive * sigmoid);
}

// ----- cross-entropy: the pixels (n,i,j) of all images are one plane of M; HW of them make an image. Class -1: ignored.
extern "C" __global__ void ce(const float* z, const long long* t, const float* weight, float* losses, float* weights,
                              int M, int size, int C, int HW) {
  Slice s = my_slice(M, size);
  float sum = 0, count = 0;
  for (unsigned q = s.from + threadIdx.x; q < s.to; q += blockDim.x) {
    const float* of_pixel = z + q / HW * C * HW + q % HW;
    int k = (int)t[q];
    float top = largest(of_pixel, C, HW), w = k < 0 ? 0 : weight[k];
    sum += w * (logf(sum_exp(of_pixel, top, C, HW)) - (of_pixel[(k < 0 ? 0 : k) * HW] - top));
    count += w;
  }
  sum = block_sum(sum);
  count = block_sum(count);
  if (threadIdx.x) return;
  losses[blockIdx.x] = sum;
  weights[blockIdx.x] = count;
}

extern "C" __global__ void ce_grad(const float* z, const long long* t, const float* weight, float* gz, int M, int C,
                                   int HW) {
  int q = thread_index();
  if (q >= M) return;
  int first = q / HW * C * HW + q % HW, k = (int)t[q];
  z += first, gz += first;
  float top = largest(z, C, HW), sum = sum_exp(z, top, C, HW), w = k < 0 ? 0 : weight[k];
  for (int c = 0; c < C; ++c) gz[c * HW] = w * (expf(z[c * HW] - top) / sum - (c == k));
}

// ----- soft Dice: planes (n,c) of P pixels
extern "C" __global__ void dice_sums(const float* p, const float* t, float* both, float* product, int P, int size) {
  Slice s = my_slice(P, size);
  float one = 0, two = 0;
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) {
    one += p[k] + t[k];
    two += p[k] * t[k];
  }
  one = block_sum(one);
  two = block_sum(two);
  if (threadIdx.x) return;
  both[blockIdx.x] = one;
  product[blockIdx.x] = two;
}

// Block s has set s of `sets` = gridDim.x, whose slices are number (o * sets + s) * inner + i for all o, i.
extern "C" __global__ void dice(const float* both, const float* product, float* D, float* denominator, float smooth,
                                int outer, int inner) {
  int sets = gridDim.x;
  float one = 0, two = 0;
  for (int k = threadIdx.x; k < outer * inner; k += blockDim.x) {
    int i = (k / inner * sets + blockIdx.x) * inner + k % inner;
    one += both[i];
    two += product[i];
  }
  one = block_sum(one) + smooth;
  two = 2 * block_sum(two) + smooth;
  if (threadIdx.x) return;
  const float tiny = 1.17549435e-38f;  // all 0 and no smoothing: D = 0, not 0/0
  one = one < tiny ? tiny : one;
  D[blockIdx.x] = two / one;
  denominator[blockIdx.x] = one;
}

// Plane k has number k % length of D, denominator and gD.
extern "C" __global__ void dice_grad(const float* gD, const float* t, const float* D, const float* denominator,
                                     float* gp, int P, int size, int gD_length, int length) {
  Slice s = my_slice(P, size);
  float factor = gD[s.plane % gD_length] / denominator[s.plane % length], d = D[s.plane % length];
  for (unsigned k = s.from + threadIdx.x; k < s.to; k += blockDim.x) gp[k] = factor * (2 * t[k] - d);
}
