// dropout.py on the GPU: from the same seed the same mask as the maths file.

__device__ inline unsigned scramble(unsigned h) {
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  return h ^ (h >> 16);
}

// The keys are arguments, or numbers in memory for a CUDA graph, whose arguments stay the same.
extern "C" __global__ void mask(float* m, int size, const unsigned* keys, unsigned key1, unsigned key2,
                                unsigned threshold, float scale) {
  int t = thread_index();
  if (keys) key1 = keys[0], key2 = keys[1];
  if (t < size) m[t] = scramble(scramble(t ^ key1) + key2) >= threshold ? scale : 0;
}
