// Runs kernels written in CUDA C on the CPU, to compare them with NumPy where there is no GPU.
//
// One block after another; every thread of a block is a fiber with a stack of its own.  A fiber runs until it comes to a
// barrier (of its block, or of its warp) and goes on when all fibers of the block (warp) that have not ended are there;
// one warp runs to a barrier of the block before the next begins.
// Shared memory is static memory, filled with NaN before every block.  What this cannot show: bank conflicts,
// occupancy, memory ordering between blocks, and instructions of particular GPUs.
#define TINYCNN_SHIM

#include <csetjmp>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static __attribute__((section("shim_shared")))
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

#define SHIM_VECTORS(V, name)                                          \
    struct alignas(2 * sizeof(V)) name##2 {                            \
        V x, y;                                                        \
    };                                                                 \
    struct alignas(4 * sizeof(V)) name##4 {                            \
        V x, y, z, w;                                                  \
    };                                                                 \
    static inline name##2 make_##name##2(V x, V y) { return {x, y}; } \
    static inline name##4 make_##name##4(V x, V y, V z, V w) { return {x, y, z, w}; }
SHIM_VECTORS(float, float)
SHIM_VECTORS(int, int)
SHIM_VECTORS(unsigned, uint)
struct alignas(16) double2 {
    double x, y;
};
static inline double2 make_double2(double x, double y) { return {x, y}; }

// ---- numbers of 16 bits

static inline float shim_bits_to_float(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint32_t shim_float_to_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
#define __int_as_float(i) shim_bits_to_float((uint32_t)(i))
#define __uint_as_float(i) shim_bits_to_float(i)
#define __float_as_uint(f) shim_float_to_bits(f)
#define __float_as_int(f) ((int)shim_float_to_bits(f))

struct __half {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
};
typedef bfloat16 __nv_bfloat16;

static inline float __half2float(__half h) {
    uint32_t sign = (h.bits & 0x8000u) << 16, exponent = (h.bits >> 10) & 31, fraction = h.bits & 1023;
    if (exponent == 0) return shim_bits_to_float(sign | shim_float_to_bits(fraction * 0x1p-24f));
    if (exponent == 31) return shim_bits_to_float(sign | 0x7f800000u | fraction << 13);
    return shim_bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
}
static inline __half __float2half_rn(float f) {
    uint32_t u = shim_float_to_bits(f), sign = u >> 16 & 0x8000u;
    float a = fabsf(f);
    if (a != a) return {(uint16_t)(sign | 0x7e00u)};
    if (a >= 65520.0f) return {(uint16_t)(sign | 0x7c00u)};
    if (a < 0x1p-14f) return {(uint16_t)(sign | (uint32_t)rintf(a * 0x1p24f))};
    uint32_t v = (u & 0x7fffffffu) - (112u << 23);
    return {(uint16_t)(sign | (v + 0xfffu + (v >> 13 & 1u)) >> 13)};
}
static inline float __bfloat162float(bfloat16 b) { return shim_bits_to_float((uint32_t)b.bits << 16); }
static inline bfloat16 __float2bfloat16_rn(float f) {
    uint32_t u = shim_float_to_bits(f);
    if (f != f) return {(uint16_t)0x7fffu};
    return {(uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
}

// ---- intrinsics

template <typename V>
static inline V __ldg(const V *p) { return *p; }
template <typename V>
static inline V __ldcg(const V *p) { return *p; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
template <typename V>
static inline V min(V a, V b) { return b < a ? b : a; }
template <typename V>
static inline V max(V a, V b) { return a < b ? b : a; }
static inline float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

// ---- fibers

namespace shim {
enum State { READY, AT_BLOCK, AT_WARP, DONE };
const int MOST = 1024;
#if defined(__SANITIZE_ADDRESS__)
const size_t STACK = 512 << 10;
#else
const size_t STACK = 128 << 10;
#endif

struct Fiber {
    ucontext_t context;
    jmp_buf jump;
    State state;
    bool started;
    char *stack;
    void *fake;
};
static Fiber fibers[MOST];
static jmp_buf home;
static void *home_fake;
static const void *home_stack;
static size_t home_size;
static int current = -1, threads;
static bool plain;
alignas(16) static char slots[MOST][32];
static char *dynamic_memory;
static size_t dynamic_bytes;
static std::function<void()> body;
static char problem[200];

[[noreturn]] static void fail(const char *why) {
    fprintf(stderr, "CUDA on the CPU: %s\n", why);
    abort();
}

static void place(int i) {
    threadIdx = {(unsigned)i % blockDim.x, (unsigned)i / blockDim.x % blockDim.y, (unsigned)i / (blockDim.x * blockDim.y)};
}

static void to_home(State state) {
    Fiber &f = fibers[current];
    f.state = state;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&f.fake, home_stack, home_size);
#endif
    if (_setjmp(f.jump) == 0) _longjmp(home, 1);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(f.fake, &home_stack, &home_size);
#endif
}

static void entry() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &home_stack, &home_size);
#endif
    for (;;) {  // one turn for every block: a fiber is made once
        body();
        to_home(DONE);
    }
}

static void resume(int i) {
    current = i;
    place(i);
    Fiber &f = fibers[i];
    bool first = !f.started;
    f.started = true;
    if (first) {
        if (!f.stack) f.stack = (char *)aligned_alloc(64, STACK);
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack;
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = nullptr;
        makecontext(&f.context, entry, 0);
    }
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&home_fake, f.stack, STACK);
#endif
    if (_setjmp(home) == 0) {
        if (first)
            setcontext(&f.context);
        else
            _longjmp(f.jump, 1);
    }
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(home_fake, nullptr, nullptr);
#endif
    current = -1;
}

static void wait(State state) {
    if (plain) fail("a barrier in a kernel that was taken to have none: name helpers with barriers block_… or warp_…");
    int me = current;
    to_home(state);
    current = me;
    place(me);
}

// Release everybody of [first, last) who waits in `state`, if nobody there is still on the way.
static bool release(int first, int last, State state) {
    bool any = false;
    for (int i = first; i < last; i++) {
        if (fibers[i].state == READY || (fibers[i].state != DONE && fibers[i].state != state)) return false;
        any = any || fibers[i].state == state;
    }
    for (int i = first; any && i < last; i++)
        if (fibers[i].state == state) fibers[i].state = READY;
    return any;
}

static void begin_copies();

// One warp goes as far as it can, to the end or a barrier of its block, while the others stand still: whoever forgets
// such a barrier reads what was not yet written, or writes over what was not yet read.
static void run_warp(int warp, bool backwards) {
    int first = 32 * warp, last = first + 32 < threads ? first + 32 : threads;
    do
        for (int k = first; k < last; k++) {
            int i = backwards ? first + last - 1 - k : k;
            if (fibers[i].state == READY) resume(i);
        }
    while (release(first, last, AT_WARP));
}

static void run_block(bool backwards) {
    begin_copies();
    for (int i = 0; i < threads; i++) fibers[i].state = READY;
    int warps = (threads + 31) / 32;
    for (;;) {
        for (int k = 0; k < warps; k++) run_warp(backwards ? warps - 1 - k : k, backwards);
        bool all_done = true, in_warps = false;
        for (int i = 0; i < threads; i++) {
            all_done = all_done && fibers[i].state == DONE;
            in_warps = in_warps || fibers[i].state == AT_WARP;
        }
        if (all_done) return;
        if (in_warps) fail("threads of one warp wait at different barriers");
        if (!release(0, threads, AT_BLOCK)) fail("some threads of a block wait at a barrier that the others never reach");
    }
}

extern "C" char __start_shim_shared[] __attribute__((weak)), __stop_shim_shared[] __attribute__((weak));

// All shared memory becomes NaN.
#if defined(__SANITIZE_ADDRESS__)
__attribute__((no_sanitize("address"))) static void poison_shared() {  // between the arrays are bytes not to be touched
    for (volatile char *p = __start_shim_shared; p < __stop_shim_shared; p++) *p = (char)0xff;
}
#else
static void poison_shared() {
    if (__start_shim_shared) memset(__start_shim_shared, 0xff, __stop_shim_shared - __start_shim_shared);
}
#endif

static int launch(const unsigned *grid, const unsigned *block, size_t shared, int backwards, bool is_plain) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    threads = blockDim.x * blockDim.y * blockDim.z;
    if (threads < 1 || threads > MOST) fail("a block has 1 to 1024 threads");
    if (gridDim.x < 1 || gridDim.y < 1 || gridDim.z < 1) fail("a grid has at least one block");
    if (gridDim.y > 65535 || gridDim.z > 65535) fail("a grid has at most 65535 blocks along y and z");
    plain = is_plain;
    dynamic_bytes = shared;
    dynamic_memory = nullptr;
    if (shared && posix_memalign((void **)&dynamic_memory, 128, shared)) fail("no memory");
    long long blocks = (long long)gridDim.x * gridDim.y * gridDim.z;
    for (long long k = 0; k < blocks; k++) {
        long long b = backwards ? blocks - 1 - k : k;
        blockIdx = {(unsigned)(b % gridDim.x), (unsigned)(b / gridDim.x % gridDim.y), (unsigned)(b / gridDim.x / gridDim.y)};
        poison_shared();
        if (dynamic_memory) memset(dynamic_memory, 0xff, shared);
        if (plain)
            for (int i = 0; i < threads; i++) place(backwards ? threads - 1 - i : i), body();
        else
            run_block(backwards);
    }
    free(dynamic_memory);
    return 0;
}

template <typename... P, size_t... I>
static int call(void (*f)(P...), void **args, std::index_sequence<I...>, const unsigned *grid, const unsigned *block,
                size_t shared, int backwards, bool is_plain) {
    auto values = std::make_tuple(*(std::remove_const_t<P> *)args[I]...);
    body = [&] { std::apply(f, values); };
    return launch(grid, block, shared, backwards, is_plain);
}

template <typename... P>
static int run(void (*f)(P...), void **args, const unsigned *grid, const unsigned *block, size_t shared, int backwards,
               bool is_plain) {
    return call(f, args, std::index_sequence_for<P...>(), grid, block, shared, backwards, is_plain);
}

static int lane() { return current % 32; }
static int warp_end() {
    int first = current / 32 * 32;
    return first + 32 < threads ? first + 32 : threads;
}

// What lane `from` of this warp brings; one's own where there is no such thread.
template <typename V>
static V exchange(V value, int from) {
    static_assert(sizeof(V) <= 16, "at most 16 bytes");
    if (plain) fail("a warp operation in a kernel that was taken to have none");
    int source = current / 32 * 32 + from;
    memcpy(slots[current], &value, sizeof value);
    wait(AT_WARP);
    V result = value;
    if (from >= 0 && from < 32 && source < warp_end()) memcpy(&result, slots[source], sizeof result);
    wait(AT_WARP);
    return result;
}
}  // namespace shim

#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(shim::dynamic_memory)

static inline void __syncthreads() { shim::wait(shim::AT_BLOCK); }
static inline void __syncwarp(unsigned = 0xffffffffu) { shim::wait(shim::AT_WARP); }
static inline void __threadfence() {}
template <typename V>
static V __shfl_sync(unsigned, V x, int from) { return shim::exchange(x, from & 31); }
template <typename V>
static V __shfl_xor_sync(unsigned, V x, int mask) { return shim::exchange(x, shim::lane() ^ mask); }
template <typename V>
static V __shfl_down_sync(unsigned, V x, int by) { return shim::exchange(x, shim::lane() + by); }
template <typename V>
static V __shfl_up_sync(unsigned, V x, int by) { return shim::exchange(x, shim::lane() - by); }
static inline unsigned __ballot_sync(unsigned, int yes) {
    unsigned all = 0;
    for (int i = 0; i < 32; i++) all |= (shim::exchange(yes != 0, i) && shim::current / 32 * 32 + i < shim::warp_end()) ? 1u << i : 0u;
    return all;
}
static inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }

// ---- copies that arrive later: at copy_wait, and not before

namespace shim {
struct Copy {
    void *to;
    const void *from;
    size_t bytes;
    int group;
};
static std::vector<Copy> copies[MOST];
static int groups[MOST];

static void begin_copies() {
    for (int i = 0; i < threads; i++) copies[i].clear(), groups[i] = 0;
}
}  // namespace shim

template <int BYTES, typename V>
static inline void copy_async(V *shared, int offset, const V *from, bool wanted) {
    V *to = shared + offset;
    static_assert(BYTES == 2 || BYTES == 4 || BYTES == 8 || BYTES == 16, "sizes that cp.async can copy, and one element");
    if ((uintptr_t)to % BYTES || (uintptr_t)from % BYTES) shim::fail("a copy to or from an address that is not aligned");
    if (BYTES == 2) {
        wanted ? (void)memcpy(to, from, BYTES) : (void)memset(to, 0, BYTES);
        return;
    }
    shim::copies[shim::current].push_back({to, wanted ? from : nullptr, BYTES, shim::groups[shim::current]});
}
static inline void copy_commit() { shim::groups[shim::current]++; }
template <int PENDING>
static inline void copy_wait() {
    auto &own = shim::copies[shim::current];
    size_t n = 0;
    for (; n < own.size() && own[n].group < shim::groups[shim::current] - PENDING; n++)
        own[n].from ? (void)memcpy(own[n].to, own[n].from, own[n].bytes) : (void)memset(own[n].to, 0, own[n].bytes);
    own.erase(own.begin(), own.begin() + n);
}

// ---- tensor cores: what each lane holds of the matrices is written in the PTX manual, "Matrix multiply-accumulate"

namespace shim {
// What every lane of the warp brings.
template <typename V>
static void gather(const V &value, V all[32]) {
    static_assert(sizeof(V) <= sizeof slots[0], "too much for one exchange");
    if (plain) fail("a warp operation in a kernel that was taken to have none");
    int first = current / 32 * 32;
    if (warp_end() - first != 32) fail("tensor cores need a full warp");
    memcpy(slots[current], &value, sizeof value);
    wait(AT_WARP);
    for (int i = 0; i < 32; i++) memcpy(&all[i], slots[first + i], sizeof(V));
    wait(AT_WARP);
}
}  // namespace shim

template <typename V>
static inline void mma_load(unsigned r[4], const V *shared, int offset) {
    const V *p = shared + offset;
    const unsigned *rows[32];
    if ((uintptr_t)p % 16) shim::fail("ldmatrix from an address that is not aligned");
    shim::gather((const unsigned *)p, rows);
    for (int i = 0; i < 4; i++) r[i] = rows[8 * i + shim::lane() / 4][shim::lane() % 4];
}
template <typename V>
static inline void mma_load_trans(unsigned r[4], const V *shared, int offset) {
    const V *p = shared + offset;
    const uint16_t *rows[32];
    if ((uintptr_t)p % 16) shim::fail("ldmatrix from an address that is not aligned");
    shim::gather((const uint16_t *)p, rows);
    int g = shim::lane() / 4, t = shim::lane() % 4;
    for (int i = 0; i < 4; i++) r[i] = rows[8 * i + 2 * t][g] | (unsigned)rows[8 * i + 2 * t + 1][g] << 16;
}
static inline unsigned to_tf32(unsigned x) {
    return (x & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : (x + 0x1000u) & 0xffffe000u;
}

// Element k of four lanes' words: 32 bits hold one TF32, or two of 16 bits.
static inline float shim_factor(float, unsigned word, int) { return shim_bits_to_float(word & 0xffffe000u); }
static inline float shim_factor(__half, unsigned word, int half) {
    return __half2float(__half{(uint16_t)(word >> 16 * half)});
}
static inline float shim_factor(bfloat16, unsigned word, int half) {
    return __bfloat162float(bfloat16{(uint16_t)(word >> 16 * half)});
}
template <typename F>
static void mma_multiply(F type, float c[4], const unsigned a[4], const unsigned b[2]) {
    struct Words {
        unsigned a[4], b[2];
    } own, all[32];
    memcpy(own.a, a, sizeof own.a), memcpy(own.b, b, sizeof own.b);
    shim::gather(own, all);
    int g = shim::lane() / 4, t = shim::lane() % 4, per = 4 / sizeof(F);  // elements in a word
    for (int e = 0; e < 4; e++)
        for (int k = 0; k < 8 * per; k++) {
            int lane = k / per % 4, late = k / per / 4, column = 2 * t + e % 2;
            unsigned x = all[4 * g + lane].a[e / 2 + 2 * late], y = all[4 * column + lane].b[late];
            c[e] += shim_factor(type, x, k % per) * shim_factor(type, y, k % per);
        }
}

template <typename V>
static V atomicMin(V *p, V x) {
    V old = *p;
    if (x < old) *p = x;
    return old;
}
template <typename V>
static V atomicAdd(V *p, V x) {
    V old = *p;
    *p = old + x;
    return old;
}
