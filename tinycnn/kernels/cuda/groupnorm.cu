// Group and instance normalisation: the twins of `group_norm_forward` and `group_norm_backward` in tinycnn/layers/norm.py.
//
// An activation is N images of P pixels and C channels (NHWC memory).  The C/G = D neighbouring channels of a group are
// normalised together.  A block has one image and a *tile* of `span` channels: one group, or where groups are narrow as
// many as make up a line of the cache.  Its TX × TY threads take TX vectors of V channels and TY pixels at a time; a
// tile that is wider than TX vectors, which then is a single group, is gone through in several strides.
//
// Each direction is one kernel that reads its input twice, the second time mostly from the cache (backward needs
// another, small one, for the sums over images).  What is known of a group is three numbers in `statistics` (3, N, G):
// m, off = mean − m, and inv_std, as in batchnorm.cu.
#include "norm.cuh"

#define SLOTS 64  // the most channels in a tile of several groups

// Which part of an activation a block has.
struct Tile {
    int n, first, channels, groups, D;  // image; first channel, and how many; how many groups, and their width
    bool one;                           // whether it is a single group
    __device__ __forceinline__ Tile(int C, int G, int span) {
        int tiles = (C + span - 1) / span;
        n = blockIdx.x / tiles, first = blockIdx.x % tiles * span;
        channels = min(span, C - first), D = C / G, groups = channels / D, one = groups == 1;
    }
    // Every TX-th vector of the tile, `stride` times TX further.
    __device__ __forceinline__ Place place(int stride, int P, int C) const {
        int end = (first + channels) / V;
        return Place(first / V + stride * blockDim.x + threadIdx.x, end, C / V, (long long)n * P, P);
    }
    __device__ __forceinline__ int strides() const { return (channels / V + blockDim.x - 1) / blockDim.x; }
    // The group, in the tile, of column v of the own vector.
    __device__ __forceinline__ int group(int v) const { return one ? 0 : min((int)(threadIdx.x * V + v) / D, groups - 1); }
};

// Add up two numbers of each column, which the threads with threadIdx.y = 0 have, over the columns of every group.
// Thread g of the block gets those of group g in totals[0] and totals[1].
__device__ __forceinline__ void block_groups(const double (&sums)[2 * V], const Tile &tile, double *slots, double *lanes,
                                             double (&totals)[2]) {
    int id = threadIdx.y * blockDim.x + threadIdx.x;
    totals[0] = totals[1] = 0;
    if (tile.one) {
        EACH_V totals[0] += sums[v], totals[1] += sums[V + v];
        block_total(totals, lanes);
        return;
    }
    if (threadIdx.y == 0) EACH_V slots[2 * (threadIdx.x * V + v)] = sums[v], slots[2 * (threadIdx.x * V + v) + 1] = sums[V + v];
    __syncthreads();
    for (int i = id * tile.D; id < tile.groups && i < (id + 1) * tile.D; i++)
        totals[0] += slots[2 * i], totals[1] += slots[2 * i + 1];
}

// Statistics of every group, and y = γ·x̂ + β.  `measured` (2, N, G), if it is there, takes mean and variance.
// Grid: images · tiles; block (TX, TY).  Reads x twice, writes y.
extern "C" __global__ void __launch_bounds__(THREADS, 3) group_norm_forward(
    const T *__restrict__ x, T *__restrict__ y, A *statistics, double *measured, const A *__restrict__ w,
    const A *__restrict__ b, int N, int P, int C, int G, int span, double eps) {
    __shared__ double lanes[2 * V * WAITING], slots[2 * SLOTS];
    __shared__ A bases[SLOTS], found[3 * SLOTS];
    Tile tile(C, G, span);
    int tx = threadIdx.x, ty = threadIdx.y, TY = blockDim.y, id = ty * blockDim.x + tx;
    Moments moments;
    double n = 0;
    for (int k = 0; k < tile.strides(); k++) {
        Place place = tile.place(k, P, C);
        for (ROWS(place, row)) {
            Pack p[UNROLL];
            long long i = place.index(row, C);
            EACH_U if (EXISTS(place, row, u)) p[u] = load(x, i + u * place.step);
            moments.add(p, place, row, k == 0 && row == ty);
        }
        n += max(0, (place.rows - ty + TY - 1) / TY);
    }
    // Sums are taken relative to one number of each group: the one that its first column was summed up with.
    if (ty == 0) EACH_V if (tx * V + v < SLOTS) bases[tx * V + v] = moments.k[v];
    __syncthreads();
    double sums[2 * V], totals[2];
    EACH_V {
        moments.rebase(v, bases[tile.group(v) * tile.D], n);
        sums[v] = moments.s1[v], sums[V + v] = moments.s2[v];
    }
    if (!tile.one) block_columns(sums, lanes);
    block_groups(sums, tile, slots, lanes, totals);
    if (id < tile.groups) {
        double M = (double)tile.D * P, by = totals[0] / M, mean = bases[id * tile.D] + by;
        double var = max(totals[1] / M - by * by, 0.0), inv_std = 1 / sqrt(var + eps);
        long long g = (long long)tile.n * G + tile.first / tile.D + id, all = (long long)N * G;
        A m = (A)mean, off = (A)(mean - m);
        found[id] = statistics[g] = m;
        found[SLOTS + id] = statistics[all + g] = off;
        found[2 * SLOTS + id] = statistics[2 * all + g] = (A)inv_std;
        if (measured) measured[g] = mean, measured[all + g] = var;
    }
    __syncthreads();
    for (int k = 0; k < tile.strides(); k++) {
        Place place = tile.place(k, P, C);
        Numbers a(w, place, 1), c(b, place), m(nullptr, place);
        EACH_V {
            int g = tile.group(v);
            m.v[v] = found[g];
            a.v[v] *= found[2 * SLOTS + g];
            c.v[v] -= found[SLOTS + g] * a.v[v];
        }
        for (ROWS(place, row)) {
            Pack p[UNROLL];
            long long i = place.index(row, C);
            EACH_U if (EXISTS(place, row, u)) p[u] = load(x, i + u * place.step);
            EACH_U if (EXISTS(place, row, u)) {
                EACH_V put(p[u].v[v], fused(get(p[u].v[v]) - m.v[v], a.v[v], c.v[v]));
                store(y, i + u * place.step, p[u]);
            }
        }
    }
}

// dx = a·dy − (d·q + r), d = x − m, with a = γ·inv_std, q = inv_std²·mean(γ·dy·x̂) and r = inv_std·mean(γ·dy) − off·q,
// means over the group.  The sums over the pixels of each image, Σ dy·x̂ and Σ dy, go to parts (N, 2, C), if it is there.
// Grid: images · tiles; block (TX, TY).  Reads dy and x twice, writes dx (if it is there).
extern "C" __global__ void __launch_bounds__(THREADS, 2) group_norm_backward(
    const T *__restrict__ dy, const T *__restrict__ x, const A *__restrict__ statistics, const A *__restrict__ w,
    T *__restrict__ dx, double *parts, int N, int P, int C, int G, int span) {
    __shared__ double lanes[2 * V * WAITING], slots[2 * SLOTS];
    __shared__ A qs[SLOTS], rs[SLOTS];
    Tile tile(C, G, span);
    int ty = threadIdx.y, id = ty * blockDim.x + threadIdx.x;
    long long all = (long long)N * G, g0 = (long long)tile.n * G + tile.first / tile.D;
    double group[2 * V], totals[2];
    EACH_V group[v] = group[V + v] = 0;
    for (int k = 0; k < tile.strides(); k++) {
        Place place = tile.place(k, P, C);
        Numbers gain(w, place, 1);
        double sums[2 * V];
        EACH_V sums[v] = sums[V + v] = 0;
        A m[V];
        EACH_V m[v] = statistics[g0 + tile.group(v)];
        for (ROWS(place, row)) {
            Pack g[UNROLL], p[UNROLL];
            long long i = place.index(row, C);
            EACH_U if (EXISTS(place, row, u)) g[u] = load(dy, i + u * place.step), p[u] = load(x, i + u * place.step);
            EACH_V {
                A s1 = 0, s2 = 0;
                EACH_U if (EXISTS(place, row, u)) {
                    A value = get(g[u].v[v]);
                    s1 += value, s2 += value * (get(p[u].v[v]) - m[v]);
                }
                sums[v] += s1, sums[V + v] += s2;
            }
        }
        block_columns(sums, lanes);
        if (ty == 0 && place.rows) EACH_V {
            long long s = g0 + tile.group(v);
            double total = sums[v], dot = (sums[V + v] - statistics[all + s] * total) * statistics[2 * all + s];
            double *part = parts + 2LL * tile.n * C + place.vector * V + v;
            if (parts) part[0] = dot, part[C] = total;
            group[v] += gain.v[v] * total, group[V + v] += gain.v[v] * dot;
        }
    }
    if (!dx) return;
    block_groups(group, tile, slots, lanes, totals);
    if (id < tile.groups) {
        double M = (double)tile.D * P, inv_std = statistics[2 * all + g0 + id], slope = inv_std * inv_std * totals[1] / M;
        qs[id] = (A)slope, rs[id] = (A)(inv_std * totals[0] / M - statistics[all + g0 + id] * slope);
    }
    __syncthreads();
    for (int k = 0; k < tile.strides(); k++) {
        Place place = tile.place(k, P, C);
        Numbers a(w, place, 1);
        A m[V], q[V], r[V];
        EACH_V {
            int s = tile.group(v);
            m[v] = statistics[g0 + s], q[v] = qs[s], r[v] = rs[s];
            a.v[v] *= statistics[2 * all + g0 + s];
        }
        for (ROWS(place, row)) {
            Pack g[UNROLL], p[UNROLL];
            long long i = place.index(row, C);
            EACH_U if (EXISTS(place, row, u)) g[u] = load(dy, i + u * place.step), p[u] = load(x, i + u * place.step);
            EACH_U if (EXISTS(place, row, u)) {
                EACH_V put(p[u].v[v], a.v[v] * get(g[u].v[v]) - fused(get(p[u].v[v]) - m[v], q[v], r[v]));
                store(dx, i + u * place.step, p[u]);
            }
        }
    }
}

// dγ and dβ, written to (or added to) dw and db: the sums over the images of parts (N, 2, C).
// Grid: C/32; block (32, 8).
extern "C" __global__ void sum_images(const double *__restrict__ parts, A *dw, A *db, int N, int C, bool add_w, bool add_b) {
    __shared__ double lanes[2 * WAITING];
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    double sums[2] = {0, 0};
    for (int n = threadIdx.y; c < C && n < N; n += blockDim.y)
        sums[0] += parts[2LL * n * C + c], sums[1] += parts[(2LL * n + 1) * C + c];
    block_columns(sums, lanes);
    if (threadIdx.y == 0 && c < C) {
        if (dw) dw[c] = (A)sums[0] + (add_w ? dw[c] : (A)0);
        if (db) db[c] = (A)sums[1] + (add_b ? db[c] : (A)0);
    }
}

// Running statistics, moved by `share` towards the means over the images of measured (2, N, C), mean and variance of
// every channel of every image of P pixels.  Grid: C/32; block (32, 8).
extern "C" __global__ void move_averages(const double *__restrict__ measured, A *mean, A *var, int N, int P, int C, double share) {
    __shared__ double lanes[2 * WAITING];
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    double sums[2] = {0, 0};
    for (int n = threadIdx.y; c < C && n < N; n += blockDim.y)
        sums[0] += measured[(long long)n * C + c], sums[1] += measured[((long long)N + n) * C + c];
    block_columns(sums, lanes);
    if (threadIdx.y == 0 && c < C) {
        mean[c] = (A)((1 - share) * mean[c] + share * (sums[0] / N));
        var[c] = (A)((1 - share) * var[c] + share * (sums[1] / N * P / (P - 1)));
    }
}
