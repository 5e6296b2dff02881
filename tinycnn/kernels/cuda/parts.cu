// What follows a product that was cut along its depth: the parts are added, in order.
#include "common.cuh"

constexpr int MOST_THREADS = 256;

// y[i] = Σ_s parts[s, i] + bias[i % OC], or added to y.  bias may be null.
// A block has `lanes` threads for each of blockDim / lanes neighbouring elements.  Thread j of an element adds parts j,
// j + lanes, …, and the first of them adds up what they have.  Reads parts (splits, size) once, writes y (size,).
extern "C" __global__ void add_parts(const A *__restrict__ parts, int splits, int size, const T *__restrict__ bias,
                                     int OC, T *__restrict__ y, bool add, int lanes) {
    __shared__ A own[MOST_THREADS];
    int width = blockDim.x / lanes, lane = threadIdx.x / width, t = threadIdx.x % width;
    for (int first = blockIdx.x * width; first < size; first += gridDim.x * width) {
        int i = first + t;
        A sum = 0;
        if (i < size)
#pragma unroll 8
            for (int s = lane; s < splits; s += lanes) sum += parts[(long long)s * size + i];
        if (lanes > 1) {
            own[threadIdx.x] = sum;
            __syncthreads();
            for (int j = 1; j < lanes && lane == 0; j++) sum += own[j * width + t];
            __syncthreads();  // all is read before the next elements are written
        }
        if (lane > 0 || i >= size) continue;
        if (bias) sum += get(bias[(unsigned)i % (unsigned)OC]);
        if (add) sum += get(y[i]);
        put(y[i], sum);
    }
}
