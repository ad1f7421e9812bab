// What the CPU's kernels share: kinds of numbers, vectors of them, threads, and the best of some scores. Vectors
// are GCC's and Clang's own, of 16 numbers whatever the machine's are. Without headers of PyTorch's all is
// compiled in a few seconds.

#pragma once

#include <omp.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace {

constexpr int64_t WIDE = 16;
constexpr int32_t ALL_PIECES = -1;

typedef float Floats __attribute__((vector_size(4 * WIDE)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDE)));
typedef float Unaligned __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

struct Bfloat16 { uint16_t bits; };

// Of heads and tokens.
struct Rows {
    void* data;
    int64_t head, token;

    template <class T> T* at(int64_t h, int64_t t) const { return static_cast<T*>(data) + h * head + t * token; }
};

inline float as_float(float x) { return x; }
inline float as_float(Bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float found;
    __builtin_memcpy(&found, &bits, 4);
    return found;
}
inline void store(float x, float* at) { *at = x; }
inline void store(float x, Bfloat16* at) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    // To the nearest, ties to even; NaN stays one.
    at->bits = std::isnan(x) ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#ifdef __FLT16_MAX__
inline float as_float(_Float16 x) { return float(x); }
inline void store(float x, _Float16* at) { *at = _Float16(x); }
#endif

template <class T> inline Floats load(const T* x) {
    Floats found;
    for (int i = 0; i < WIDE; i++) found[i] = as_float(x[i]);
    return found;
}
template <> inline Floats load(const float* x) { return *reinterpret_cast<const Unaligned*>(x); }

// The first `some` numbers, and zeros.
template <class T> inline Floats load(const T* x, int64_t some) {
    if (some == WIDE) return load(x);
    Floats found{};
    for (int64_t i = 0; i < some; i++) found[i] = as_float(x[i]);
    return found;
}

inline float sum(Floats x) {
    float found = 0;
    for (int i = 0; i < WIDE; i++) found += x[i];
    return found;
}

// 2^x, to some 2e-7 of it, for -126 <= x <= 126, and that of the nearest of these: 2^(n + r) with |r| <= 1/2, and
// r's power by its series. NaN stays one.
inline Floats exp2(Floats x) {
    x = x < -126.0f ? Floats{} - 126.0f : x;
    x = x > 126.0f ? Floats{} + 126.0f : x;
    Ints whole = __builtin_convertvector(x + (x < 0 ? Floats{} - 0.5f : Floats{} + 0.5f), Ints);
    Floats rest = x - __builtin_convertvector(whole, Floats);
    Floats found = rest * 1.52529e-5f + 1.5403530e-4f;
    found = found * rest + 1.3333558e-3f;
    found = found * rest + 9.6181291e-3f;
    found = found * rest + 5.5504109e-2f;
    found = found * rest + 2.4022651e-1f;
    found = found * rest + 6.9314718e-1f;
    found = found * rest + 1.0f;
    return found * (Floats)((whole + 127) << 23);
}

constexpr float LOG2_E = 1.44269504f;

// Threads that may be used, and bytes to read from which on one more is woken.
struct Threads {
    int64_t most, least_bytes;

    int64_t for_bytes(int64_t bytes) const { return std::clamp<int64_t>(bytes / least_bytes, 1, most); }
};

// Numbers of a row are read by vectors, and what is left over after them.
inline int64_t vectors(int64_t dim) { return (dim + WIDE - 1) / WIDE; }

// Write the `kept` greatest of `scores`, in their order, the first of equal ones.
template <class Index> void best(const std::vector<float>& scores, int64_t kept, Index* found) {
    std::vector<float> sorted(scores);
    std::nth_element(sorted.begin(), sorted.begin() + kept - 1, sorted.end(), std::greater<float>());
    const float least = sorted[kept - 1];
    int64_t equal = kept - std::count_if(scores.begin(), scores.end(), [=](float x) { return x > least; });
    for (size_t i = 0; i < scores.size(); i++)
        if (scores[i] > least || (scores[i] == least && equal-- > 0)) *found++ = i;
}

enum Result { DONE, UNKNOWN, NOT_THERE, OUT_OF_RANGE };

// One body for every kind of numbers; UNKNOWN where the compiler has no such.
template <class Body> int by_kind(int64_t kind, Body body) {
    switch (kind) {
        case 0: return body(float());
        case 1: return body(Bfloat16());
#ifdef __FLT16_MAX__
        case 2: return body(_Float16());
#endif
        default: return UNKNOWN;
    }
}

}  // namespace
