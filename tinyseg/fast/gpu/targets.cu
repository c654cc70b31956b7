// targets.py on the GPU. t[q] is the class number of pixel q of M. `ignored` becomes -1 if `ignoring`; *wrong becomes 1
// if another number is not in 0 ... C-1. In a CUDA graph (`blindly`) the loss is computed before the host reads *wrong.
// There a wrong number becomes -1 too, because weight[k] must exist.
extern "C" __global__ void class_numbers(const long long* t, long long* numbers, int* wrong, int M, int C,
                                         bool ignoring, int ignored, bool blindly) {
  int q = thread_index();
  if (q >= M) return;
  long long k = t[q];
  bool out = ignoring && k == ignored, none = !out && (k < 0 || k >= C);
  numbers[q] = out || (none && blindly) ? -1 : k;
  if (none) *wrong = 1;
}
