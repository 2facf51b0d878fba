// bias, PReLU, bias and learned thresholds in one pass forward and one backward.
//
// Values are float32 [images, channels, pixels].  Every operation and its order is that of the
// separate layers, so the values are theirs to the bit: compile with -ffp-contract=off.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))

struct Bend { const float *before, *slope, *after; };           // per channel; or all null
struct Quantizer { const float *thresholds, *points, *slopes;   // [n], [n + 1], [n]
                   float scale1, level, scale2; };

INLINE Floats broadcast(float value) { return value - Floats{}; }

INLINE Floats load(const float *from, int count) {
    Floats values = {};
    std::memcpy(&values, from, sizeof(float) * count);
    return values;
}

INLINE void store(float *to, Floats values, int count) {
    std::memcpy(to, &values, sizeof(float) * count);
}

INLINE double sum(Floats values) {
    double total = 0;
    for (int lane = 0; lane < LANES; ++lane) total += values[lane];
    return total;
}

template <bool BENT, int N>
INLINE void forward_row(const float *x, float *y, int count, int c, const Bend &bend,
                        const Quantizer &q, int n) {
    Floats v = load(x, count);
    if (BENT) {
        v = v + bend.before[c];
        v = (v > 0.0f ? v : v * bend.slope[c]) + bend.after[c];
    }
    if (N) {
        v = v * q.scale1;
        Ints above = {};
        for (int i = 0; i < (N > 0 ? N : n); ++i) above -= v > broadcast(q.thresholds[i]);
        v = __builtin_convertvector(above, Floats) * q.level * q.scale2;
    }
    store(y, v, count);
}

template <bool BENT, int N>
INLINE void forward_channel(const float *x, float *y, int64_t images, int64_t channels,
                            int64_t pixels, int c, const Bend &bend, const Quantizer &q, int n) {
    for (int64_t image = 0; image < images; ++image) {
        const int64_t at = (image * channels + c) * pixels;
        int64_t p = 0;
        for (; p + LANES <= pixels; p += LANES)
            forward_row<BENT, N>(x + at + p, y + at + p, LANES, c, bend, q, n);
        if (p < pixels)
            forward_row<BENT, N>(x + at + p, y + at + p, int(pixels - p), c, bend, q, n);
    }
}

// What the parameters get, per channel; `width` and `left` of all intervals from each one on.
struct Sums { double *before, *slope, *after, *scale1, *scale2, *width, *left; };

template <int N> struct Lanes {
    Floats before = {}, slope = {}, after = {}, scale1 = {}, scale2 = {};
    Floats width[N > 0 ? N : 1] = {}, left[N > 0 ? N : 1] = {};
};

template <bool BENT, int N>
INLINE void backward_row(const float *x, const float *g, float *dx, int count, int c,
                         const Bend &bend, const Quantizer &q, Lanes<N> &sums) {
    Floats u = load(x, count), w = u, grad = load(g, count);
    if (BENT) {
        u = u + bend.before[c];
        w = (u > 0.0f ? u : u * bend.slope[c]) + bend.after[c];
    }
    if (N) {
        const Floats t = w * q.scale1;
        Ints above = {};
        Floats slope = {}, left = {};
        for (int i = 0; i < N; ++i) above -= t > broadcast(q.thresholds[i]);
        Ints from[N > 0 ? N : 1];
        for (int i = 0; i < N; ++i) {
            from[i] = t > broadcast(q.points[i]);
            slope = from[i] ? broadcast(q.slopes[i]) : slope;
            left = from[i] ? broadcast(q.points[i]) : left;
        }
        slope = t > broadcast(q.points[N]) ? Floats{} : slope;
        sums.scale2 += grad * (__builtin_convertvector(above, Floats) * q.level);
        grad = grad * q.scale2 * slope;
        sums.scale1 += grad * w;
        const Floats moved = grad * (t - left);
        for (int i = 0; i < N; ++i) {
            sums.width[i] += from[i] ? grad : Floats{};
            sums.left[i] += from[i] ? moved : Floats{};
        }
        grad = grad * q.scale1;
    }
    if (BENT) {
        const Ints positive = u > 0.0f;
        sums.after += grad;
        sums.slope += positive ? Floats{} : grad * u;
        grad = positive ? grad : grad * bend.slope[c];
        sums.before += grad;
    }
    store(dx, grad, count);
}

template <bool BENT, int N>
INLINE void backward_channel(const float *x, const float *g, float *dx, int64_t images,
                             int64_t channels, int64_t pixels, int c, const Bend &bend,
                             const Quantizer &q, const Sums &to) {
    for (int64_t image = 0; image < images; ++image) {
        const int64_t at = (image * channels + c) * pixels;
        Lanes<N> sums;
        int64_t p = 0;
        for (; p + LANES <= pixels; p += LANES)
            backward_row<BENT, N>(x + at + p, g + at + p, dx + at + p, LANES, c, bend, q, sums);
        if (p < pixels)
            backward_row<BENT, N>(x + at + p, g + at + p, dx + at + p, int(pixels - p), c, bend,
                                  q, sums);
        if (BENT) {
            to.before[c] += sum(sums.before);
            to.slope[c] += sum(sums.slope);
            to.after[c] += sum(sums.after);
        }
        if (N) {
            to.scale1[c] += sum(sums.scale1);
            to.scale2[c] += sum(sums.scale2);
            for (int i = 0; i < N; ++i) {
                to.width[c * N + i] += sum(sums.width[i]);
                to.left[c * N + i] += sum(sums.left[i]);
            }
        }
    }
}

#define EVERY(BENT, DO)             \
    switch (n) {                    \
        case 0: DO(BENT, 0); break; \
        case 1: DO(BENT, 1); break; \
        case 3: DO(BENT, 3); break; \
        case 7: DO(BENT, 7); break; \
        case 15: DO(BENT, 15); break; \
    }

void forward(const float *x, float *y, int64_t images, int64_t channels, int64_t pixels,
                    int c, const Bend &bend, const Quantizer &q, int n) {
#define DO(BENT, N) forward_channel<BENT, N>(x, y, images, channels, pixels, c, bend, q, n)
    if (bend.before) { EVERY(true, DO) } else { EVERY(false, DO) }
#undef DO
}

void backward(const float *x, const float *g, float *dx, int64_t images, int64_t channels,
                     int64_t pixels, int c, const Bend &bend, const Quantizer &q, const Sums &to,
                     int n) {
#define DO(BENT, N) backward_channel<BENT, N>(x, g, dx, images, channels, pixels, c, bend, q, to)
    if (bend.before) { EVERY(true, DO) } else { EVERY(false, DO) }
#undef DO
}

}  // namespace

extern "C" {

// `sizes`: images, channels, pixels, n, threads.  `bend`: before, slope, after [channels] each.
// `quantizer`: thresholds [n], points [n + 1], slopes [n], scale1, level, scale2.
void n2uq_forward(const int64_t *sizes, const float *x, float *y, const float *bend,
                  const float *quantizer) {
    const int64_t images = sizes[0], channels = sizes[1], pixels = sizes[2];
    const int n = int(sizes[3]);
    const Bend b = bend ? Bend{bend, bend + channels, bend + 2 * channels} : Bend{};
    const float *s = quantizer + 3 * n + 1;
    const Quantizer q = n ? Quantizer{quantizer, quantizer + n, quantizer + 2 * n + 1, s[0], s[1],
                                      s[2]} : Quantizer{};
#pragma omp parallel for num_threads(int(sizes[4])) schedule(static)
    for (int64_t c = 0; c < channels; ++c)
        forward(x, y, images, channels, pixels, int(c), b, q, n);
}

// `sums`: before, slope, after, scale1, scale2 [channels] each, then width and left [channels, n].
void n2uq_backward(const int64_t *sizes, const float *x, const float *g, float *dx,
                   const float *bend, const float *quantizer, double *sums) {
    const int64_t images = sizes[0], channels = sizes[1], pixels = sizes[2];
    const int n = int(sizes[3]);
    const Bend b = bend ? Bend{bend, bend + channels, bend + 2 * channels} : Bend{};
    const float *s = quantizer + 3 * n + 1;
    const Quantizer q = n ? Quantizer{quantizer, quantizer + n, quantizer + 2 * n + 1, s[0], s[1],
                                      s[2]} : Quantizer{};
    const Sums to{sums, sums + channels, sums + 2 * channels, sums + 3 * channels,
                  sums + 4 * channels, sums + 5 * channels, sums + (5 + n) * channels};
#pragma omp parallel for num_threads(int(sizes[4])) schedule(static)
    for (int64_t c = 0; c < channels; ++c)
        backward(x, g, dx, images, channels, pixels, int(c), b, q, to, n);
}

}
