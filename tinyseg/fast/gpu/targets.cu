// ----- cross-entropy: the pixels (n,i,j) of all images are one plane of M; HW of them make an image
// Class numbers with -1 for those to be ignored; *wrong becomes 1 if another one is not 0 ... C-1. Where nobody looks
// before the loss is computed (`blindly`, in a CUDA graph) such a one becomes -1 too, lest weight[k] be none.
extern "C" __global__ void class_numbers(const long long* t, long long* numbers, int* wrong, int M, int C, bool ignoring,
                                         int ignored, bool blindly) {
  int q = thread_index();
  if (q >= M) return;
  long long k = t[q];
  bool out = ignoring && k == ignored, none = !out && (k < 0 || k >= C);
  numbers[q] = out || (none && blindly) ? -1 : k;
  if (none) *wrong = 1;
}
