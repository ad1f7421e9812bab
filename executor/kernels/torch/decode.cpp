// Decoding over a paged cache on a CPU, for decode.py and select_decode.py, which say what is computed. Keys and
// values are read once, where they lie, for all the heads of a list (GQA packing); threads take equal runs of the
// listed pieces, and a list that several of them share is merged by its log-sum-exps (Flash-Decoding, PyTorch
// blog, 2023).

#include "shared.h"

namespace {

// `kernels.batch.Cache`, its strides in numbers.
struct Cache {
    const void *keys, *values;
    const int32_t* pages;
    int64_t pages_stored, page_tokens, table_pages, table_sequence, table_page;
    int64_t key_page, key_group, key_token, value_page, value_group, value_token;

    int64_t page(int64_t sequence, int64_t number) const {
        return pages[sequence * table_sequence + number * table_page];
    }
    bool has(int64_t sequence, int64_t number) const {
        return number >= 0 && number < table_pages && page(sequence, number) >= 0 &&
               page(sequence, number) < pages_stored;
    }
};

// `kernels.decode_layout.DecodeLayout`.
struct Layout {
    const int32_t *entries, *heads, *start;
    int64_t lists, widest, piece_tokens;

    int64_t sequence(int64_t list) const { return entries[3 * list]; }
    int64_t token(int64_t list) const { return entries[3 * list + 1]; }
    int64_t group(int64_t list) const { return entries[3 * list + 2]; }
    int32_t head(int64_t list, int64_t h) const { return heads[list * widest + h]; }
    int64_t width(int64_t list) const {
        const int32_t *begin = heads + list * widest, *end = begin + widest;
        return std::find_if(begin, end, [](int32_t head) { return head < 0; }) - begin;
    }
};

// The queries of a list's heads, times `scale`.
template <class T>
void read_queries(const Layout& layout, const Rows& q, int64_t list, int64_t dim, float scale, Floats* found) {
    for (int64_t h = 0; h < layout.width(list); h++) {
        const T* row = q.at<const T>(layout.head(list, h), layout.token(list));
        for (int64_t d = 0; d < dim; d += WIDE) *found++ = load(row + d, std::min(WIDE, dim - d)) * scale;
    }
}

// -- attention

struct Decode {
    const Cache& cache;
    const Layout& layout;
    const int32_t *first, *count, *context;
    const int64_t* indices;
    Rows q, out, lse;  // lse's data may be null
    int64_t dim;
    Threads threads;

    int64_t piece(int64_t list, int64_t place) const {
        place += first[list];
        const int32_t start = layout.start[list];
        return start == ALL_PIECES ? place : indices[start + place];
    }
};

// Whether all that is listed is there.
bool is_there(const Decode& p) {
    const int64_t per_page = p.cache.page_tokens / p.layout.piece_tokens;
    for (int64_t list = 0; list < p.layout.lists; list++)
        for (int64_t place = 0; place < p.count[list]; place++) {
            const int64_t piece = p.piece(list, place), sequence = p.layout.sequence(list);
            if (piece * p.layout.piece_tokens >= p.context[sequence] || piece < 0) return false;
            if (!p.cache.has(sequence, piece / per_page)) return false;
        }
    return true;
}

// What a list's heads have of some of its pieces: the greatest score, the sum of all scores' e^ below it, and
// the values that it weighs.
struct State {
    std::vector<Floats> values;
    std::vector<float> greatest, total;

    explicit State(const Decode& p)
        : values(p.layout.widest * vectors(p.dim)), greatest(p.layout.widest), total(p.layout.widest) {}

    void clear() {
        std::fill(values.begin(), values.end(), Floats{});
        std::fill(greatest.begin(), greatest.end(), -INFINITY);
        std::fill(total.begin(), total.end(), 0.0f);
    }
};

template <class T> void finish(const Decode& p, int64_t list, const State& state) {
    const int64_t token = p.layout.token(list), n = vectors(p.dim);
    const bool some = p.count[list] > 0;
    for (int64_t h = 0; h < p.layout.width(list); h++) {
        const int64_t head = p.layout.head(list, h);
        T* out = p.out.at<T>(head, token);
        const float share = some ? 1 / state.total[h] : 0;
        for (int64_t d = 0; d < p.dim; d++) store(state.values[h * n + d / WIDE][d % WIDE] * share, out + d);
        if (p.lse.data)
            *p.lse.at<float>(head, token) = some ? state.greatest[h] + std::log(state.total[h]) : -INFINITY;
    }
}

template <class T> struct Piece {
    const T *keys, *values;
    int64_t tokens;

    Piece(const Decode& p, int64_t list, int64_t place) {
        const Cache& cache = p.cache;
        const int64_t size = p.layout.piece_tokens, per_page = cache.page_tokens / size;
        const int64_t sequence = p.layout.sequence(list), group = p.layout.group(list);
        const int64_t piece = p.piece(list, place), page = cache.page(sequence, piece / per_page);
        const int64_t within = piece % per_page * size;
        keys = static_cast<const T*>(cache.keys) + page * cache.key_page + group * cache.key_group +
               within * cache.key_token;
        values = static_cast<const T*>(cache.values) + page * cache.value_page + group * cache.value_group +
                 within * cache.value_token;
        // The newest piece lacks some.
        tokens = std::min(size, p.context[sequence] - piece * size);
    }
};

// What a thread needs: a list's queries, and scores of a piece.
struct Room {
    std::vector<Floats> queries;
    int64_t row;
    std::vector<float> scores;

    explicit Room(const Decode& p)
        : queries(p.layout.widest * vectors(p.dim)),
          row(WIDE * vectors(p.layout.piece_tokens)),
          scores(p.layout.widest * row) {}
};

template <class T> inline float product(const Floats* q, const T* key, int64_t dim) {
    Floats found{};
    int64_t d = 0;
    for (; d + WIDE <= dim; d += WIDE) found += q[d / WIDE] * load(key + d);
    if (d < dim) found += q[d / WIDE] * load(key + d, dim - d);
    return sum(found);
}

// Add weighted values of `tokens`, N vectors of each, to those at `found`, of which `kept` remains.
template <int N, class T>
inline void weigh(const float* weights, const T* values, int64_t step, int64_t tokens, float kept, Floats* found) {
    Floats sums[N];
    for (int i = 0; i < N; i++) sums[i] = found[i] * kept;
    for (int64_t t = 0; t < tokens; t++)
        for (int i = 0; i < N; i++) sums[i] += weights[t] * load(values + t * step + WIDE * i);
    for (int i = 0; i < N; i++) found[i] = sums[i];
}

template <class T>
void add(const Decode& p, int64_t heads, const Piece<T>& piece, const Piece<T>& next, Room& room, State& state) {
    const int64_t n = vectors(p.dim), line = 64 / sizeof(T), tokens = piece.tokens;
    const int64_t key_step = p.cache.key_token, value_step = p.cache.value_token;
    for (int64_t t = 0; t < tokens; t++) {
        // From memory while this one is computed.
        for (int64_t d = 0; t < next.tokens && d < p.dim; d += line) {
            __builtin_prefetch(next.keys + t * key_step + d);
            __builtin_prefetch(next.values + t * value_step + d);
        }
        for (int64_t h = 0; h < heads; h++)
            room.scores[h * room.row + t] = product(&room.queries[h * n], piece.keys + t * key_step, p.dim);
    }
    for (int64_t h = 0; h < heads; h++) {
        float* weights = &room.scores[h * room.row];
        std::fill(weights + tokens, weights + room.row, -INFINITY);
        Floats most = load(weights);
        for (int64_t t = WIDE; t < tokens; t += WIDE) most = most > load(weights + t) ? most : load(weights + t);
        float greatest = state.greatest[h];
        for (int i = 0; i < WIDE; i++) greatest = std::max(greatest, most[i]);
        const float kept = std::exp(state.greatest[h] - greatest);
        Floats total{};
        for (int64_t t = 0; t < tokens; t += WIDE) {
            const Floats weight = exp2((load(weights + t) - greatest) * LOG2_E);
            total += weight;
            *reinterpret_cast<Unaligned*>(weights + t) = weight;
        }
        state.greatest[h] = greatest;
        state.total[h] = state.total[h] * kept + sum(total);
        Floats* found = &state.values[h * n];
        int64_t d = 0;
        for (; d + 4 * WIDE <= p.dim; d += 4 * WIDE)
            weigh<4>(weights, piece.values + d, value_step, tokens, kept, found + d / WIDE);
        for (; d + WIDE <= p.dim; d += WIDE)
            weigh<1>(weights, piece.values + d, value_step, tokens, kept, found + d / WIDE);
        if (d == p.dim) continue;
        found[d / WIDE] *= kept;
        for (int64_t t = 0; t < tokens; t++)
            found[d / WIDE] += weights[t] * load(piece.values + t * value_step + d, p.dim - d);
    }
}

// What a thread has of lists that others have parts of: of the first it met and of the last.
struct Edge {
    int64_t list = -1;
    State state;
};

void merge(const Decode& p, const State& part, State& found) {
    const int64_t n = vectors(p.dim);
    for (int64_t h = 0; h < p.layout.widest; h++) {
        const float greatest = std::max(found.greatest[h], part.greatest[h]);
        if (greatest == -INFINITY) continue;
        const float kept = std::exp(found.greatest[h] - greatest), added = std::exp(part.greatest[h] - greatest);
        for (int64_t d = h * n; d < (h + 1) * n; d++)
            found.values[d] = found.values[d] * kept + part.values[d] * added;
        found.total[h] = found.total[h] * kept + part.total[h] * added;
        found.greatest[h] = greatest;
    }
}

// The pieces [begin, end) of all lists', list after list.
template <class T> void attend(const Decode& p, int64_t begin, int64_t end, Edge* edges) {
    Room room(p);
    State state(p);
    int64_t before = 0;
    for (int64_t list = 0; list < p.layout.lists && before < end; before += p.count[list++]) {
        const int64_t first = std::max<int64_t>(begin - before, 0), last = std::min<int64_t>(end - before, p.count[list]);
        if (first >= last) continue;
        read_queries<T>(p.layout, p.q, list, p.dim, 1 / std::sqrt(float(p.dim)), room.queries.data());
        state.clear();
        const int64_t heads = p.layout.width(list);
        Piece<T> piece(p, list, first);
        for (int64_t place = first; place < last; place++) {
            const Piece<T> next(p, list, std::min(place + 1, last - 1));
            add(p, heads, piece, next, room, state);
            piece = next;
        }
        if (last - first == p.count[list]) {
            finish<T>(p, list, state);
        } else {
            Edge& edge = edges[first == 0 ? 1 : 0];
            edge.list = list;
            edge.state = state;
        }
    }
}

template <class T> void decode(const Decode& p) {
    int64_t pieces = 0;
    State state(p);
    state.clear();
    for (int64_t list = 0; list < p.layout.lists; list++) {
        pieces += p.count[list];
        if (!p.count[list]) finish<T>(p, list, state);
    }
    const int64_t bytes = pieces * p.layout.piece_tokens * p.dim * 2 * sizeof(T);
    const int64_t most = p.threads.for_bytes(bytes);
    if (most < 2) return attend<T>(p, 0, pieces, nullptr);
    std::vector<Edge> edges(2 * most, Edge{-1, state});
#pragma omp parallel num_threads(most)
    {
        const int64_t number = omp_get_thread_num(), team = omp_get_num_threads();
        attend<T>(p, pieces * number / team, pieces * (number + 1) / team, &edges[2 * number]);
    }
    for (size_t i = 0; i < edges.size(); i++) {
        const int64_t list = edges[i].list;
        if (list < 0) continue;
        size_t part = i + 1;
        for (; part < edges.size() && (edges[part].list == list || edges[part].list < 0); part++)
            if (edges[part].list == list) merge(p, edges[part].state, edges[i].state);
        finish<T>(p, list, edges[i].state);
        i = part - 1;
    }
}

// -- selection

struct Selection {
    const Cache& cache;
    const Layout& layout;
    const int32_t *budget, *chosen, *context;
    int64_t* indices;
    Rows q;
    const void* bounds;
    int64_t bounds_piece, bounds_group, bounds_side, dim;
    Threads threads;
};

// Scores of a piece's bounds: of every dimension the greater product.
template <class T> inline float upper(const Floats* q, const T* low, const T* high, int64_t dim) {
    Floats found{};
    for (int64_t d = 0; d < dim; d += WIDE, q++) {
        const int64_t some = std::min(WIDE, dim - d);
        const Floats none{};
        found += (*q < 0 ? *q : none) * load(low + d, some) + (*q > 0 ? *q : none) * load(high + d, some);
    }
    return sum(found);
}

// Whether all pieces that are to be looked at are there.
bool is_there(const Selection& p, int64_t chosen) {
    for (int64_t i = 0; i < chosen; i++) {
        const int64_t sequence = p.layout.sequence(p.chosen[i]);
        for (int64_t number = 0; number * p.cache.page_tokens < p.context[sequence]; number++)
            if (!p.cache.has(sequence, number)) return false;
    }
    return true;
}

// Write the list of entry `list`, which leaves some of its pieces out.
template <class T> void choose(const Selection& p, int64_t list) {
    const Layout& layout = p.layout;
    const int64_t heads = layout.width(list), n = vectors(p.dim), sequence = layout.sequence(list);
    const int64_t per_page = p.cache.page_tokens / layout.piece_tokens;
    const int64_t pieces = (p.context[sequence] + layout.piece_tokens - 1) / layout.piece_tokens;
    const int64_t row = WIDE * vectors(pieces), kept = p.budget[list];
    std::vector<Floats> queries(heads * n);
    read_queries<T>(layout, p.q, list, p.dim, 1 / std::sqrt(float(p.dim)), queries.data());
    std::vector<float> scores(heads * row, -INFINITY), joint(row);
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t page = p.cache.page(sequence, piece / per_page);
        const T* low = static_cast<const T*>(p.bounds) + (page * per_page + piece % per_page) * p.bounds_piece +
                       layout.group(list) * p.bounds_group;
        for (int64_t h = 0; h < heads; h++) {
            const float found = upper(&queries[h * n], low, low + p.bounds_side, p.dim);
            scores[h * row + piece] = std::isnan(found) ? 0 : std::clamp(found, -FLT_MAX, FLT_MAX);
        }
    }
    for (int64_t h = 0; h < heads; h++) {
        float* score = &scores[h * row];
        const float greatest = *std::max_element(score, score + pieces);
        Floats total{};
        for (int64_t i = 0; i < pieces; i += WIDE) {
            const Floats mass = exp2((load(score + i) - greatest) * LOG2_E);
            total += mass;
            *reinterpret_cast<Unaligned*>(score + i) = mass;
        }
        const float share = 1 / sum(total);
        for (int64_t i = 0; i < pieces; i++) joint[i] += score[i] * share;
    }
    // Above all others the newest, and then the first.
    joint[0] = FLT_MAX;
    joint[pieces - 1] = INFINITY;
    joint.resize(pieces);
    best(joint, kept, p.indices + layout.start[list]);
}

template <class T> void select(const Selection& p, int64_t chosen) {
    int64_t pieces = 0;
    for (int64_t i = 0; i < chosen; i++) pieces += p.context[p.layout.sequence(p.chosen[i])] / p.layout.piece_tokens;
    const int64_t most = std::min<int64_t>(p.threads.for_bytes(2 * pieces * p.dim * sizeof(T)), chosen);
#pragma omp parallel for num_threads(most) if (most > 1)
    for (int64_t i = 0; i < chosen; i++) choose<T>(p, p.chosen[i]);
}

}  // namespace

extern "C" int hplb_decode(int64_t kind, const Cache* cache, const Layout* layout, int64_t dim, Threads threads,
                           Rows q, const int32_t* first, const int32_t* count, const int64_t* indices,
                           const int32_t* context, Rows out, Rows lse) {
    const Decode problem{*cache, *layout, first, count, context, indices, q, out, lse, dim, threads};
    if (!is_there(problem)) return NOT_THERE;
    return by_kind(kind, [&](auto number) { return decode<decltype(number)>(problem), DONE; });
}

extern "C" int hplb_select_decode(int64_t kind, const Cache* cache, const Layout* layout, int64_t dim,
                                  Threads threads, Rows q, const int32_t* budget, const int32_t* chosen,
                                  int64_t chosen_lists, const int32_t* context, const void* bounds,
                                  int64_t bounds_piece, int64_t bounds_group, int64_t bounds_side,
                                  int64_t* indices) {
    const Selection problem{*cache,       *layout,      budget,      chosen, context, indices, q, bounds,
                            bounds_piece, bounds_group, bounds_side, dim,    threads};
    if (!is_there(problem, chosen_lists)) return NOT_THERE;
    return by_kind(kind, [&](auto number) { return select<decltype(number)>(problem, chosen_lists), DONE; });
}
