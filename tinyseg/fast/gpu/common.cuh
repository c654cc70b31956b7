// Put before every kernel file. All arrays are C-contiguous, and sizes fit an int.

// A float16 as it lies in memory. All arithmetic is float's: `half` becomes float where it is read, and is rounded, to
// the nearest and of two to the even one, where a float is assigned to it. In "a ? b : c" write 0.0f, not 0: beside an
// int it would become an int.
struct half {
  unsigned short bits;
#ifdef __CUDACC_RTC__
  __device__ operator float() const {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
  }
  __device__ void operator=(float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
#else  // tests/gpu_stand_in/cuda_on_cpu.py
  operator float() const { return host::from_half(bits); }
  void operator=(float x) { bits = host::to_half(x); }
#endif
};

// The type of activations and of their gradients, chosen by `tinyseg.fast.gpu.launch.load`. Parameters, statistics and
// sums are float in any case.
typedef REAL real;

// Index of this thread among all threads of the launch.
__device__ inline int thread_index() { return (int)(blockIdx.x * blockDim.x + threadIdx.x); }

// The sum of `value` over the block, in every thread. It adds pairs, then pairs of pairs, and so on: the same order
// every time, so that equal inputs give equal bits. All threads must call it; blockDim.x is a power of two of at most
// 1024.
__device__ inline float block_sum(float value) {
  __shared__ float part[1024];
  int t = threadIdx.x;
  part[t] = value;
  __syncthreads();
  for (int distance = blockDim.x / 2; distance > 0; distance /= 2) {
    if (t < distance) part[t] += part[t + distance];
    __syncthreads();
  }
  float sum = part[0];
  __syncthreads();  // no thread writes the next sum before all have read this one
  return sum;
}

// One thread writes that sum to *to.
__device__ inline void write_sum(float value, float* to) {
  float sum = block_sum(value);
  if (threadIdx.x == 0) *to = sum;
}

// The classes of a pixel: the largest of n numbers that lie `step` apart, and the sum of exp(x - largest).
__device__ inline float largest(const real* x, int n, int step) {
  float top = x[0];
  for (int k = 1; k < n; ++k) {
    float v = x[k * step];
    top = v > top ? v : top;
  }
  return top;
}
__device__ inline float sum_exp(const real* x, float top, int n, int step) {
  float sum = 0;
  for (int k = 0; k < n; ++k) sum += expf(x[k * step] - top);
  return sum;
}

// An array is planes of P elements, one after the other. Blocks go through it in slices of at most SLICE elements
// (launch.py) of one plane. The slice of this block: elements from ... to - 1 of the array, in plane `plane`.
struct Slice {
  int plane;
  unsigned from, to;
};
__device__ inline int slices_of(int P) { return (P - 1) / SLICE + 1; }
__device__ inline Slice my_slice(int P) {
  int plane = blockIdx.x / slices_of(P), first = blockIdx.x % slices_of(P) * SLICE;
  unsigned from = (unsigned)plane * P + first;
  return {plane, from, from + min(SLICE, P - first)};
}

// In an array (outer, sets, inner) of which block s adds up set s: the index of element k of this block's set.
__device__ inline int index_in_set(int k, int inner) {
  return (k / inner * gridDim.x + blockIdx.x) * inner + k % inner;
}

// Where plane (n, c) begins in x (N,C1,...) and x2 (N,C-C1,...), which are joined along the channels; planes of `size`.
template <class T>
__device__ inline T* plane_of(T* x, T* x2, int n, int c, int C1, int C, int size) {
  return c < C1 ? x + ((size_t)n * C1 + c) * size : x2 + ((size_t)n * (C - C1) + c - C1) * size;
}
