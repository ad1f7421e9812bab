// Lists of prompts by sampled rows on a CPU, for select.py: of every query block a few rows are scored against all
// keys that they see (SampleAttention, arXiv 2406.15486, section 4), and the pieces that hold most of their
// attention are listed. Products, powers and sums stay in registers, where PyTorch writes out scores to read them
// again.

#include "shared.h"

namespace {

constexpr int64_t TILE_ROWS = 8, TILE_KEYS = 2 * WIDE;
// Scored together: keys come from the nearest cache for all of them.
constexpr int64_t CHUNK_ROWS = 192;
// Of a row's powers, its greatest score not taken off: within these no piece is lost that is 2^100 below.
constexpr float LEAST_SUM = 0x1p-20f, GREATEST_SUM = 0x1p100f;

// `kernels.layout.Layout`, and of it the lists [first, end) of one sequence's heads that read `keys`.
struct Prompt {
    const int32_t *entries, *entry, *query_block, *length, *start;
    int64_t first, end, block_tokens, piece_tokens, rows;
    const void* keys;
    int64_t key_token, tokens, dim;

    const int32_t* of(int64_t list) const { return entries + 6 * entry[list]; }
    int64_t total(int64_t list) const { return of(list)[5]; }
    // The first own piece of a list's query block; `pieces` is behind its last.
    int64_t own(int64_t list) const { return query_block[list] * (block_tokens / piece_tokens); }
    int64_t pieces(int64_t list) const {
        const int64_t every = (total(list) + piece_tokens - 1) / piece_tokens;
        return std::min(own(list) + block_tokens / piece_tokens, every);
    }
    // The position of a list's sampled row, -1 where there is none.
    int64_t position(int64_t list, int64_t row) const {
        const int64_t begin = std::max<int64_t>(of(list)[4], query_block[list] * block_tokens);
        const int64_t count = std::min(total(list), (query_block[list] + 1) * block_tokens) - begin;
        const int64_t edge = row * count / rows, next = (row + 1) * count / rows;
        return next > edge ? begin + next - 1 : -1;
    }
};

// Keys side by side: of TILE_KEYS the first numbers, then the second ones.
template <class T> std::vector<Floats> packed(const Prompt& p, int threads) {
    const int64_t tiles = (p.tokens + TILE_KEYS - 1) / TILE_KEYS;
    std::vector<Floats> found(tiles * p.dim * TILE_KEYS / WIDE);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t tile = 0; tile < tiles; tile++) {
        float* at = reinterpret_cast<float*>(&found[tile * p.dim * TILE_KEYS / WIDE]);
        for (int64_t k = 0; k < std::min(TILE_KEYS, p.tokens - tile * TILE_KEYS); k++) {
            const T* key = static_cast<const T*>(p.keys) + (tile * TILE_KEYS + k) * p.key_token;
            for (int64_t d = 0; d < p.dim; d++) at[d * TILE_KEYS + k] = as_float(key[d]);
        }
    }
    return found;
}

// Lists whose rows are scored together, and every row's sums of powers by pieces.
struct Chunk {
    std::vector<int64_t> lists, position;
    std::vector<float> queries, sums;  // [tiles, dim, TILE_ROWS], [rows, pieces]
    int64_t pieces = 0;

    template <class T> void fill(const Prompt& p, const Rows& q) {
        const int64_t rows = lists.size() * p.rows, padded = (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
        position.assign(padded, -1);
        queries.assign(padded * p.dim, 0.0f);
        pieces = 0;
        const float scale = LOG2_E / std::sqrt(float(p.dim));
        for (int64_t row = 0; row < rows; row++) {
            const int64_t list = lists[row / p.rows];
            pieces = std::max(pieces, p.pieces(list));
            position[row] = p.position(list, row % p.rows);
            if (position[row] < 0) continue;
            const T* at = q.at<const T>(p.of(list)[0], p.of(list)[3] + position[row]);
            float* to = &queries[row / TILE_ROWS * TILE_ROWS * p.dim + row % TILE_ROWS];
            for (int64_t d = 0; d < p.dim; d++) to[d * TILE_ROWS] = as_float(at[d]) * scale;
        }
        sums.assign(padded * pieces, 0.0f);
    }
};

// Add to a tile of rows' sums those of a tile of keys.
inline void score(const Prompt& p, const Floats* keys, int64_t begin, const float* queries, const int64_t* position,
                  float* sums, int64_t pieces) {
    Floats scores[TILE_ROWS][2] = {};
    for (int64_t d = 0; d < p.dim; d++, keys += 2, queries += TILE_ROWS)
        for (int r = 0; r < TILE_ROWS; r++) {
            scores[r][0] += queries[r] * keys[0];
            scores[r][1] += queries[r] * keys[1];
        }
    const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int r = 0; r < TILE_ROWS; r++)
        for (int half = 0; half < 2; half++) {
            const int64_t key = begin + half * WIDE, ahead = position[r] - key;
            if (ahead < 0) break;
            Floats power = exp2(scores[r][half]);
            if (ahead < WIDE - 1) power = lane > int32_t(ahead) ? Floats{} : power;
            sums[r * pieces + key / p.piece_tokens] += sum(power);
        }
}

// Write a list by the sums of its rows; false where they are out of range.
bool choose(const Prompt& p, int64_t list, const int64_t* position, const float* sums, int64_t row, int32_t* indices) {
    std::vector<float> mass(p.pieces(list));
    for (int64_t r = 0; r < p.rows; r++, sums += row) {
        if (position[r] < 0) continue;
        float total = 0;
        for (size_t i = 0; i < mass.size(); i++) total += sums[i];
        if (!(total >= LEAST_SUM && total <= GREATEST_SUM)) return false;
        for (size_t i = 0; i < mass.size(); i++) mass[i] += sums[i] / total;
    }
    // Above all others the own ones, and then the first.
    mass[0] = FLT_MAX;
    std::fill(mass.begin() + p.own(list), mass.end(), INFINITY);
    best(mass, p.length[list], indices + p.start[list]);
    return true;
}

template <class T> Result select(const Prompt& p, const Rows& q, int64_t threads, int32_t* indices) {
    std::vector<int64_t> lists;
    for (int64_t list = p.first; list < p.end; list++)
        if (p.start[list] != ALL_PIECES) lists.push_back(list);
    // Rows of a chunk see nearly the same keys.
    std::stable_sort(lists.begin(), lists.end(),
                     [&](int64_t a, int64_t b) { return p.query_block[a] < p.query_block[b]; });
    const std::vector<Floats> keys = packed<T>(p, threads);
    const int64_t each = std::max<int64_t>(1, CHUNK_ROWS / p.rows), chunks = (lists.size() + each - 1) / each;
    bool in_range = true;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Chunk chunk;
#pragma omp for schedule(dynamic) reduction(&& : in_range)
        for (int64_t number = chunks - 1; number >= 0; number--) {
            const auto begin = lists.begin() + number * each;
            chunk.lists.assign(begin, std::min(begin + each, lists.end()));
            chunk.template fill<T>(p, q);
            const int64_t rows = chunk.position.size(), row = chunk.pieces;
            const int64_t last = *std::max_element(chunk.position.begin(), chunk.position.end());
            for (int64_t tile = 0; tile * TILE_KEYS <= last; tile++)
                for (int64_t r = 0; r < rows; r += TILE_ROWS)
                    if (*std::max_element(&chunk.position[r], &chunk.position[r] + TILE_ROWS) >= tile * TILE_KEYS) score(p, &keys[tile * p.dim * TILE_KEYS / WIDE], tile * TILE_KEYS, &chunk.queries[r * p.dim],
                          &chunk.position[r], &chunk.sums[r * row], row);
            for (size_t i = 0; i < chunk.lists.size(); i++)
                in_range = choose(p, chunk.lists[i], &chunk.position[i * p.rows], &chunk.sums[i * p.rows * row], row,
                                  indices) && in_range;
        }
    }
    return in_range ? DONE : OUT_OF_RANGE;
}

}  // namespace

extern "C" int hplb_select_sampled(int64_t kind, const Prompt* prompt, Rows q, int64_t threads, int32_t* indices) {
    // A vector of keys lies in one piece.
    if (prompt->piece_tokens % WIDE) return UNKNOWN;
    return by_kind(kind, [&](auto number) { return select<decltype(number)>(*prompt, q, threads, indices); });
}
