/* The target's choices and the device's guesses for rows of float32 on a CPU: what gumbel_max.py, warp.py and
   guesses.py say in array operations, in a few readings of a row.

   Random numbers are exact, sums are not. A choice that rounding errors leave open is UNDECIDED, and numpy makes it: no
   choice depends on the compiler and its flags, on a library's logarithm or on the processor. A row that nothing can be
   chosen from, for it has nan or its largest logit is not finite, is UNDECIDED too. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

enum {
    NUM_ROUNDS = 10,
    GROUP = 16,            /* blocks whose numbers are made together; a block is four tokens, id // 4 */
    TILE = 2048,           /* blocks that are listed at a time */
    LANES = 64,            /* values that are read together */
    NUM_TOPS = 32 * LANES, /* pieces of a row whose largest values are kept */
    SUM_TILE = 256,        /* weights that are summed in a float */
    MOST_WANTED = 64,      /* guesses */
    UNDECIDED = -1,
};

static const uint32_t MULTIPLIERS[2] = {0xD2511F53u, 0xCD9E8D57u};
static const uint32_t KEY_STEPS[2] = {0x9E3779B9u, 0xBB67AE85u};
static const double LOG2_E = 1.4426950408889634;
static const double LARGEST_GUMBEL = 22.88; /* see noise.py */
static const double HIGH_DISTANCE = 8;      /* of a row's high logits to its top, times the temperature */
static const double OPEN_SUM = 1e-9;        /* sums that are nearer to each other are left to numpy, */
static const double OPEN_SHARE = 3e-5;      /* and shares of the weight that are nearer to top_p */
static const double ROUGH_EXCESS = 1.0616; /* a rough weight is 1 to so many times the weight: 2 / (e log 2) at most, */
static const double MEAN_EXCESS = 1.0407;  /* and on average so many times */
static const double ROUGH_SHARE = 0.02;    /* of the weight of a row may be known roughly to a guess */

int skydraft_runs_here(void) {
#ifdef __AVX2__
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#else
    return 1;
#endif
}

/* ---- Noise ---- */

/* The key of each round of Philox 4x32-10, and what all counters share. */
typedef struct {
    uint64_t keys[NUM_ROUNDS][2]; /* of 32 bits */
    uint64_t position, stream;
} Noise;

static Noise noise_at(uint64_t seed, uint32_t position, uint32_t stream) {
    Noise noise = {.position = position, .stream = stream};
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < NUM_ROUNDS; round++) {
        noise.keys[round][0] = key0, noise.keys[round][1] = key1;
        key0 += KEY_STEPS[0], key1 += KEY_STEPS[1];
    }
    return noise;
}

#ifdef __AVX2__
enum { NUM_VECTORS = GROUP / 4 };

/* Philox at (block, position, stream, 0) for GROUP blocks: words 0 and 1 of each in `early`, the others in `late`. */
static inline void make_words(const Noise *noise, const uint32_t *blocks, __m256i *early, __m256i *late) {
    const __m256i m0 = _mm256_set1_epi64x(MULTIPLIERS[0]), m1 = _mm256_set1_epi64x(MULTIPLIERS[1]);
    /* Words in lanes of 64 bits, of which the upper 32 do not matter. */
    __m256i c0[NUM_VECTORS], c1[NUM_VECTORS], c2[NUM_VECTORS], c3[NUM_VECTORS];
    for (int i = 0; i < NUM_VECTORS; i++) {
        c0[i] = _mm256_cvtepu32_epi64(_mm_loadu_si128((const __m128i *)(blocks + 4 * i)));
        c1[i] = _mm256_set1_epi64x((int64_t)noise->position);
        c2[i] = _mm256_set1_epi64x((int64_t)noise->stream);
        c3[i] = _mm256_setzero_si256();
    }
#pragma GCC unroll 10
    for (int round = 0; round < NUM_ROUNDS; round++) {
        const __m256i k0 = _mm256_set1_epi64x((int64_t)noise->keys[round][0]);
        const __m256i k1 = _mm256_set1_epi64x((int64_t)noise->keys[round][1]);
        for (int i = 0; i < NUM_VECTORS; i++) {
            const __m256i p0 = _mm256_mul_epu32(c0[i], m0), p1 = _mm256_mul_epu32(c2[i], m1);
            c0[i] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1[i]), k0);
            c1[i] = p1;
            c2[i] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3[i]), k1);
            c3[i] = p0;
        }
    }
    for (int i = 0; i < NUM_VECTORS; i++) {
        early[i] = _mm256_blend_epi32(c0[i], _mm256_slli_epi64(c1[i], 32), 0xAA);
        late[i] = _mm256_blend_epi32(c2[i], _mm256_slli_epi64(c3[i], 32), 0xAA);
    }
}

/* The numbers of the tokens of GROUP blocks. */
static void make_numbers(const Noise *noise, const uint32_t blocks[GROUP], uint32_t numbers[4 * GROUP]) {
    __m256i early[NUM_VECTORS], late[NUM_VECTORS];
    make_words(noise, blocks, early, late);
    for (int i = 0; i < NUM_VECTORS; i++) {
        const __m256i even = _mm256_unpacklo_epi64(early[i], late[i]), odd = _mm256_unpackhi_epi64(early[i], late[i]);
        _mm256_storeu_si256((__m256i *)(numbers + 16 * i), _mm256_permute2x128_si256(even, odd, 0x20));
        _mm256_storeu_si256((__m256i *)(numbers + 16 * i + 8), _mm256_permute2x128_si256(even, odd, 0x31));
    }
}

/* Whether one of them is at least so large. */
static int has_number(const Noise *noise, const uint32_t blocks[GROUP], uint32_t least) {
    __m256i early[NUM_VECTORS], late[NUM_VECTORS], has_any = _mm256_setzero_si256();
    const __m256i bound = _mm256_set1_epi32((int32_t)least);
    make_words(noise, blocks, early, late);
    for (int i = 0; i < NUM_VECTORS; i++) {
        const __m256i larger = _mm256_max_epu32(early[i], late[i]);
        has_any = _mm256_or_si256(has_any, _mm256_cmpeq_epi32(_mm256_max_epu32(larger, bound), larger));
    }
    return !_mm256_testz_si256(has_any, has_any);
}
#else
static void make_numbers(const Noise *noise, const uint32_t blocks[GROUP], uint32_t numbers[4 * GROUP]) {
    for (int i = 0; i < GROUP; i++) {
        uint32_t c0 = blocks[i], c1 = (uint32_t)noise->position, c2 = (uint32_t)noise->stream, c3 = 0;
        for (int round = 0; round < NUM_ROUNDS; round++) {
            const uint64_t p0 = (uint64_t)c0 * MULTIPLIERS[0], p1 = (uint64_t)c2 * MULTIPLIERS[1];
            c0 = (uint32_t)(p1 >> 32 ^ c1 ^ noise->keys[round][0]);
            c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32 ^ c3 ^ noise->keys[round][1]);
            c3 = (uint32_t)p0;
        }
        numbers[4 * i] = c0, numbers[4 * i + 1] = c1, numbers[4 * i + 2] = c2, numbers[4 * i + 3] = c3;
    }
}

static int has_number(const Noise *noise, const uint32_t blocks[GROUP], uint32_t least) {
    uint32_t numbers[4 * GROUP];
    int has_any = 0;
    make_numbers(noise, blocks, numbers);
    for (int i = 0; i < 4 * GROUP; i++)
        has_any |= numbers[i] >= least;
    return has_any;
}
#endif

static uint32_t number_of(const Noise *noise, uint32_t id) {
    uint32_t blocks[GROUP] = {id / 4}, numbers[4 * GROUP];
    make_numbers(noise, blocks, numbers);
    return numbers[id % 4];
}

static double gumbel(uint32_t number) { return -log(-log((number + 0.5) * 0x1p-32)); }

/* ---- Reading a row ---- */

/* Some tokens of a row, ascending, and what is known of them. There is room for all tokens; pages of memory that are
   not written to cost nothing. */
typedef struct {
    size_t num;
    uint32_t *ids;
    float *values;  /* logits */
    float *weights; /* exp((value - top) / temperature) */
    float *left;    /* room for twice as many */
    int has_nan;    /* the row has */
} List;

static float just_below(double value) { return value > -FLT_MAX ? nextafterf((float)value, -INFINITY) : -FLT_MAX; }

/* The largest values of NUM_TOPS pieces of a row, -INFINITY where a piece is empty; returns the largest of all. nan is
   left out. */
static float find_tops(const float *row, size_t size, float tops[NUM_TOPS]) {
    const size_t num_lines = size / LANES, height = (num_lines + NUM_TOPS / LANES - 1) / (NUM_TOPS / LANES);
    size_t line = 0;
    float of_lanes[LANES], top = -INFINITY;
    for (int i = 0; i < LANES; i++)
        of_lanes[i] = -INFINITY;
    for (int piece = 0; piece < NUM_TOPS; piece += LANES) {
        float largest[LANES];
        for (int i = 0; i < LANES; i++)
            largest[i] = -INFINITY;
        for (const size_t end = line + height < num_lines ? line + height : num_lines; line < end; line++)
            for (int i = 0; i < LANES; i++)
                largest[i] = row[LANES * line + i] > largest[i] ? row[LANES * line + i] : largest[i];
        for (int i = 0; i < LANES; i++)
            of_lanes[i] = largest[i] > of_lanes[i] ? largest[i] : of_lanes[i];
        memcpy(tops + piece, largest, sizeof largest);
    }
    for (size_t i = LANES * num_lines; i < size; i++) {
        tops[i % LANES] = row[i] > tops[i % LANES] ? row[i] : tops[i % LANES];
        top = row[i] > top ? row[i] : top;
    }
    for (int i = 0; i < LANES; i++)
        top = of_lanes[i] > top ? of_lanes[i] : top;
    return top;
}

/* A token with the largest logit, which is finite. */
static uint32_t find_top(const float *row, uint32_t size, const float tops[NUM_TOPS], float top) {
    const uint32_t num_lines = size / LANES, height = (num_lines + NUM_TOPS / LANES - 1) / (NUM_TOPS / LANES);
    uint32_t piece = 0;
    while (tops[piece] != top)
        piece++;
    uint32_t id = piece / LANES * height * LANES + piece % LANES;
    while (row[id] != top)
        id += LANES;
    return id;
}

/* A bit for each of 32 values: whether it is not below the bound. That of nan is not. */
static inline uint32_t reaching(const float *values, float bound) {
    uint32_t bits = 0;
#ifdef __AVX2__
    __m256 reaches[4];
    for (int i = 0; i < 4; i++)
        reaches[i] = _mm256_cmp_ps(_mm256_loadu_ps(values + 8 * i), _mm256_set1_ps(bound), _CMP_NLT_UQ);
    const __m256 any = _mm256_or_ps(_mm256_or_ps(reaches[0], reaches[1]), _mm256_or_ps(reaches[2], reaches[3]));
    if (_mm256_movemask_ps(any))
        for (int i = 0; i < 4; i++)
            bits |= (uint32_t)_mm256_movemask_ps(reaches[i]) << 8 * i;
#else
    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)!(values[i] < bound) << i;
#endif
    return bits;
}

/* Lists the tokens whose logits are not below the bound. */
static void list_tokens(const float *row, uint32_t size, float bound, List *list) {
    size_t num = 0;
    int has_nan = 0;
    uint32_t id = 0;
    for (; id + 32 <= size; id += 32)
        for (uint32_t bits = reaching(row + id, bound); bits; bits &= bits - 1, num++) {
            list->ids[num] = id + (uint32_t)__builtin_ctz(bits);
            list->values[num] = row[list->ids[num]];
            has_nan |= list->values[num] != list->values[num];
        }
    for (; id < size; id++)
        if (!(row[id] < bound)) {
            has_nan |= row[id] != row[id];
            list->ids[num] = id, list->values[num++] = row[id];
        }
    list->num = num;
    list->has_nan = has_nan;
}

/* Blocks with high logits, and others. */
typedef struct {
    size_t num_high, num_low;
    int has_nan; /* a logit is */
    uint32_t high[TILE + 16], low[TILE + 16];
} Blocks;

/* A bit for each of 8 blocks, every fourth, from a bit for each token. */
static inline uint32_t any_of_block(uint32_t bits) {
    bits |= bits >> 1;
    return (bits | bits >> 2) & 0x11111111;
}

static inline size_t append_blocks(uint32_t *blocks, uint32_t first, uint32_t bits) {
#ifdef __AVX2__
    const __m256i offsets = _mm256_set1_epi32((int32_t)_pext_u32(0x76543210, bits * 15)); /* 4 bits each */
    const __m256i shifted = _mm256_srlv_epi32(offsets, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    const __m256i listed = _mm256_and_si256(shifted, _mm256_set1_epi32(7));
    _mm256_storeu_si256((__m256i *)blocks, _mm256_add_epi32(_mm256_set1_epi32((int32_t)first), listed));
#else
    size_t num = 0;
    for (uint32_t left = bits; left; left &= left - 1)
        blocks[num++] = first + (uint32_t)__builtin_ctz(left) / 4;
#endif
    return (size_t)__builtin_popcount(bits);
}

/* Lists of the blocks from first to end, 8 at a time, those that have a token that is not below `low`. There must be
   room for all and 8 more. */
static void list_blocks(const float *row, uint32_t first, uint32_t end, float low, float high, Blocks *blocks) {
    for (uint32_t block = first; block < end; block += 8) {
        const float *values = row + 4 * (size_t)block;
        const uint32_t bits = any_of_block(reaching(values, low));
        if (!bits)
            continue;
        const uint32_t high_bits = any_of_block(reaching(values, high));
        if (high_bits) {
            blocks->num_high += append_blocks(blocks->high + blocks->num_high, block, high_bits);
            blocks->has_nan |= reaching(values, INFINITY) != 0;
        }
        blocks->num_low += append_blocks(blocks->low + blocks->num_low, block, bits & ~high_bits);
    }
}

/* ---- Weights: exp((value - top) / temperature) ---- */

/* 2 to the power of x, which is at most 0, or of -126 if that is more: 1e-7 off, relative. */
static inline float power(float x) {
    const float magic = 0x1.8p23f;
    x = x > -126.0f ? x : -126.0f;
    const float rounded = x + magic;
    const float f = x - (rounded - magic);
    float result = 1.3276471e-3f;
    result = result * f + 9.6755410e-3f;
    result = result * f + 5.5507131e-2f;
    result = result * f + 2.4022120e-1f;
    result = result * f + 6.9314694e-1f;
    result = result * f + 1.0000001f;
    uint32_t exponent, bits;
    memcpy(&exponent, &rounded, sizeof exponent);
    memcpy(&bits, &result, sizeof bits);
    bits += exponent << 23;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* The same for x = difference * scale, in less time, or up to ROUGH_EXCESS times that: the bits of a float are its
   logarithm, with straight lines between powers of 2. */
static inline float rough_power(float difference, float scale) {
    const float logarithm = difference * (scale * 0x1p23f) + 127 * 0x1p23f;
    const int32_t bits = (int32_t)(logarithm > 0x1p23f ? logarithm : 0x1p23f);
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* The sum of the weights of some values, each of which is kept where it is not rough. */
static inline double sum_weights(const float *values, size_t num, float top, float scale, const int is_rough,
                                 float *weights) {
    double total = 0;
    for (size_t at = 0; at < num; at += SUM_TILE) {
        const size_t end = at + SUM_TILE < num ? at + SUM_TILE : num;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = at; i < end; i++) {
            const float difference = values[i] - top;
            const float weight = is_rough ? rough_power(difference, scale) : power(difference * scale);
            if (!is_rough)
                weights[i] = weight;
            sum += weight;
        }
        total += sum;
    }
    return total;
}

/* The weight of each value; returns the sum. scale is log2(e) / temperature. */
static double weigh(const float *values, size_t num, float top, float scale, float *weights) {
    return sum_weights(values, num, top, scale, 0, weights);
}

/* The sum alone, in less time, or up to ROUGH_EXCESS times that. */
static double weigh_roughly(const float *values, size_t num, float top, float scale) {
    return sum_weights(values, num, top, scale, 1, NULL);
}

/* The weight of the values from the bound on. */
static double weight_from(float bound, const float *values, const float *weights, size_t num) {
    double total = 0;
    for (size_t at = 0; at < num; at += SUM_TILE) {
        const size_t end = at + SUM_TILE < num ? at + SUM_TILE : num;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = at; i < end; i++) {
            const float weight = weights[i];
            sum += values[i] >= bound ? weight : 0.0f;
        }
        total += sum;
    }
    return total;
}

static double count_from(float bound, const float *values, size_t num) {
    uint32_t count = 0;
    for (size_t i = 0; i < num; i++)
        count += values[i] >= bound;
    return count;
}

/* The largest of the values such that those from it on weigh `wanted`; -FLT_MAX if all weigh less.

   Args:
       weights: of each value; NULL: each weighs 1.
       left: room for as many values and, behind them, weights.
       low, top: no value is above the top, and the bound is probably not below low. */
static float bound_of(double wanted, const float *values, const float *weights, size_t num, float *left, float low,
                      float top) {
    double above = 0;
    float high = nextafterf(top, INFINITY);
    if ((weights ? weight_from(low, values, weights, num) : count_from(low, values, num)) < wanted)
        low = -FLT_MAX;
    for (int i = 0; i < 8; i++) { /* halve what is left, until there is little */
        const float middle = low / 2 + high / 2;
        const double weight = weights ? weight_from(middle, values, weights, num) : count_from(middle, values, num);
        if (weight >= wanted)
            low = middle;
        else
            high = middle, above = weight;
    }
    float *left_weights = left + num;
    size_t num_left = 0;
    for (size_t i = 0; i < num; i++) {
        left[num_left] = values[i], left_weights[num_left] = weights ? weights[i] : 1;
        num_left += values[i] >= low && values[i] < high;
    }
    while (num_left > 0) { /* quickselect */
        const float pivot = left[num_left / 2];
        double greater = above, equal = 0;
        for (size_t i = 0; i < num_left; i++) {
            greater += left[i] > pivot ? left_weights[i] : 0;
            equal += left[i] == pivot ? left_weights[i] : 0;
        }
        const int is_above = greater >= wanted;
        if (!is_above && greater + equal >= wanted)
            return pivot;
        above = is_above ? above : greater + equal;
        size_t num_kept = 0;
        for (size_t i = 0; i < num_left; i++) {
            left[num_kept] = left[i], left_weights[num_kept] = left_weights[i];
            num_kept += is_above ? left[num_kept] > pivot : left[num_kept] < pivot;
        }
        num_left = num_kept;
    }
    return -FLT_MAX;
}

/* ---- Gumbel-max ---- */

/* The tokens with the largest sums of log weight and noise. */
typedef struct {
    const float *row;
    const Noise *noise; /* NULL: without noise */
    float top;
    double temperature;
    float bound; /* tokens with a smaller logit are cut */
    int num_wanted;
    double known;                 /* the sum of a token, where one is wanted */
    double sums[MOST_WANTED + 1]; /* the largest so far, largest first, and one more */
    uint32_t ids[MOST_WANTED + 1];
    int has_nan; /* the row has */
} Search;

static inline double sum_of(const Search *search, uint32_t id, uint32_t number) {
    const double log_weight = ((double)search->row[id] - search->top) / search->temperature;
    return search->noise ? log_weight + gumbel(number) : log_weight;
}

/* Smaller sums decide nothing. */
static inline double needed_sum(const Search *search) {
    const double last = search->sums[search->num_wanted - 1];
    return (last > search->known ? last : search->known) - OPEN_SUM;
}

static void reset(Search *search) {
    for (int i = 0; i <= search->num_wanted; i++)
        search->sums[i] = -INFINITY;
}

static void consider(Search *search, uint32_t id, uint32_t number) {
    if (!(search->row[id] >= search->bound))
        return;
    const double sum = sum_of(search, id, number);
    int at = search->num_wanted;
    if (!(sum > search->sums[at]))
        return;
    for (; at > 0 && search->sums[at - 1] < sum; at--)
        search->sums[at] = search->sums[at - 1], search->ids[at] = search->ids[at - 1];
    search->sums[at] = sum, search->ids[at] = id;
}

/* With u = 1 - v, noise is -log(-log(1 - v)) <= -log(v): for a sum of s, v must be at most exp((logit - top) / T - s).
   The least number that the highest of some logits needs. */
static uint32_t least_number(const Search *search, float highest) {
    const double v = exp(((double)highest - search->top) / search->temperature - needed_sum(search)) * (1 + 1e-6);
    return v < 1 - 0x1p-31 ? (uint32_t)((1 - v) * 0x1p32) - 1 : 0;
}

/* Considers the tokens that have a chance, of blocks with no logit above `highest` but nan. Numbers are compared with
   what that needs; where one has it, those near it with what each of their tokens needs, by base 2 logarithms: those of
   v from its bits as a float, which err downwards. */
static void consider_blocks(Search *search, const uint32_t *blocks, size_t num, float highest) {
    const float scale = (float)(LOG2_E / search->temperature * 0x1p23), top = search->top;
    uint32_t last[GROUP] = {0}, numbers[4 * GROUP], least = least_number(search, highest);
    float chances[4 * GROUP];
    for (; num > 0; blocks += GROUP, num -= num < GROUP ? num : GROUP) {
        if (num < GROUP)
            blocks = memcpy(last, blocks, num * sizeof *blocks);
        if (!has_number(search->noise, blocks, least))
            continue;
        make_numbers(search->noise, blocks, numbers);
        uint32_t has_any = 0;
        for (size_t i = 0; i < GROUP; i++)
            memcpy(chances + 4 * i, search->row + 4 * (size_t)blocks[i], 4 * sizeof *chances);
        const double needed = needed_sum(search);
        const float offset = needed > -100 ? (float)((127 + 31 + 1e-3 - needed * LOG2_E) * 0x1p23) : INFINITY;
        for (int i = 0; i < 4 * GROUP; i++) {
            const float half = (float)(int32_t)(~numbers[i] >> 1); /* of v * 2**32 */
            int32_t bits;
            memcpy(&bits, &half, sizeof bits);
            chances[i] = (chances[i] - top) * scale + (offset - (float)bits);
            has_any |= !(chances[i] < 0);
        }
        if (!has_any)
            continue;
        for (uint32_t i = 0; i < 4 * GROUP && i < 4 * num; i++)
            if (!(chances[i] < 0))
                consider(search, 4 * blocks[i / 4] + i % 4, numbers[i]);
        least = least_number(search, highest);
    }
}

static void consider_row(Search *search, uint32_t vocab_size) {
    const uint32_t num_blocks = vocab_size / 32 * 8;
    const float high = just_below(search->top - HIGH_DISTANCE * search->temperature);
    Blocks blocks;
    blocks.num_high = blocks.num_low = 0;
    blocks.has_nan = 0;
    for (uint32_t id = 4 * num_blocks; id < vocab_size; id++)
        blocks.has_nan |= search->row[id] != search->row[id];
    for (uint32_t id = vocab_size / 4 * 4; id < vocab_size; id++)
        consider(search, id, number_of(search->noise, id));
    for (uint32_t block = num_blocks; block < vocab_size / 4; block++)
        blocks.high[blocks.num_high++] = block;
    for (uint32_t first = 0; first == 0 || first < num_blocks; first += TILE) {
        const float reach = just_below(search->top + search->temperature * (needed_sum(search) - LARGEST_GUMBEL));
        const uint32_t end = first + TILE < num_blocks ? first + TILE : num_blocks;
        list_blocks(search->row, first, end, reach > search->bound ? reach : search->bound, high, &blocks);
        consider_blocks(search, blocks.high, blocks.num_high, search->top);
        consider_blocks(search, blocks.low, blocks.num_low, high);
        blocks.num_high = blocks.num_low = 0;
    }
    search->has_nan = blocks.has_nan;
}

/* Considers some tokens, ascending, and perhaps others that are not cut. */
static void consider_tokens(Search *search, const uint32_t *ids, size_t num, uint32_t vocab_size) {
    uint32_t blocks[TILE];
    size_t num_blocks = 0;
    if (search->noise && num > vocab_size / 8) {
        consider_row(search, vocab_size);
        return;
    }
    for (size_t i = 0; i < num; i++) {
        const uint32_t block = ids[i] / 4;
        if (search->row[ids[i]] < search->bound)
            continue;
        if (!search->noise || 4 * block + 4 > vocab_size)
            consider(search, ids[i], search->noise ? number_of(search->noise, ids[i]) : 0);
        else if (num_blocks == 0 || blocks[num_blocks - 1] != block)
            blocks[num_blocks++] = block;
        if (num_blocks == TILE)
            consider_blocks(search, blocks, num_blocks, search->top), num_blocks = 0;
    }
    if (num_blocks)
        consider_blocks(search, blocks, num_blocks, search->top);
}

/* ---- Choices and guesses of one row ---- */

typedef struct {
    uint32_t vocab_size;
    double temperature;
    float scale;    /* of logits to base 2 logarithms of weights */
    uint32_t top_k; /* vocab_size: all */
    double top_p;   /* 1: all */
} Warp;

/* The logit that count tokens of a row reach, and hardly more. */
static float rough_bound(size_t count, const Warp *warp, const float tops[NUM_TOPS], float top) {
    float left[2 * NUM_TOPS];
    if (warp->vocab_size < 4 * NUM_TOPS || count > NUM_TOPS * 3 / 4)
        return -FLT_MAX;
    return bound_of((double)count, tops, NULL, NUM_TOPS, left, just_below(top - 32 * warp->temperature), top);
}

/* The logit of the count-th of the listed tokens. */
static float bound_of_count(size_t count, const Warp *warp, const List *list, float top) {
    return bound_of((double)count, list->values, NULL, list->num, list->left, just_below(top - 32 * warp->temperature),
                    top);
}

/* The smallest logit of the tokens that weigh so much together. */
static float bound_of_weight(double weight, const Warp *warp, const List *list, float top) {
    return bound_of(weight, list->values, list->weights, list->num, list->left,
                    just_below(top - 32 * warp->temperature), top);
}

/* The weight of all tokens that are not listed, or up to ROUGH_EXCESS times that. */
static double weigh_others(const float *row, const Warp *warp, const List *list, float top) {
    const double all = weigh_roughly(row, warp->vocab_size, top, warp->scale);
    const double others = all - weigh_roughly(list->values, list->num, top, warp->scale);
    return others > 0 ? others : 0;
}

/* The weight of the listed tokens before one: of those with larger logits, and of equal ones with lower ids. */
static double weight_before(const float *row, uint32_t id, const List *list) {
    double before = weight_from(nextafterf(row[id], INFINITY), list->values, list->weights, list->num);
    for (size_t i = 0; i < list->num && list->ids[i] < id; i++)
        before += list->values[i] == row[id] ? list->weights[i] : 0;
    return before;
}

static int64_t winner(const Search *search) {
    return search->has_nan || !(search->sums[0] - search->sums[1] > OPEN_SUM) ? UNDECIDED : (int64_t)search->ids[0];
}

/* The winner of the nucleus of all tokens from the search's bound on. The listed ones of these weigh `listed`; the
   others are not in the nucleus and weigh at most `others`. That leaves few choices open; only where it does, the
   others are weighed. */
static int64_t choose_from_nucleus(Search *search, const Warp *warp, const List *list, double listed, double others) {
    const float bound = search->bound;
    for (double least = listed, most = listed + others;;) {
        const float edge = bound_of_weight((warp->top_p + OPEN_SHARE) * most, warp, list, search->top);
        search->bound = edge > bound ? edge : bound;
        reset(search);
        consider_tokens(search, list->ids, list->num, warp->vocab_size);
        const int64_t choice = winner(search);
        if (choice == UNDECIDED)
            return UNDECIDED;
        const double before = weight_before(search->row, search->ids[0], list);
        if (before == 0 || before < warp->top_p * least - OPEN_SHARE * most)
            return choice;
        if (others == 0 || least > listed)
            return UNDECIDED;
        others = weigh_others(search->row, warp, list, search->top);
        least = listed + others / ROUGH_EXCESS, most = listed + others;
    }
}

static int64_t choose(const float *row, const Noise *noise, const Warp *warp, List *list) {
    const int has_top_k = warp->top_k < warp->vocab_size, has_top_p = warp->top_p < 1;
    float tops[NUM_TOPS];
    const float top = find_tops(row, warp->vocab_size, tops);
    if (!isfinite(top))
        return UNDECIDED;
    Search search = {
        .row = row, .noise = noise, .top = top, .temperature = warp->temperature, .bound = -FLT_MAX, .num_wanted = 1};
    const uint32_t heaviest = find_top(row, warp->vocab_size, tops, top);
    search.known = sum_of(&search, heaviest, number_of(noise, heaviest));
    reset(&search);
    if (!has_top_k && !has_top_p) {
        consider_row(&search, warp->vocab_size);
        return winner(&search);
    }
    /* Without top_k: tokens with less than (1 - top_p) / vocab_size of the weight are not in the nucleus. */
    const double share = has_top_k ? 0 : (1 - warp->top_p) / warp->vocab_size;
    const float bound =
        has_top_k ? rough_bound(warp->top_k, warp, tops, top) : just_below(top + warp->temperature * log(share));
    list_tokens(row, warp->vocab_size, bound, list);
    if (list->has_nan)
        return UNDECIDED;
    search.bound = has_top_k ? bound_of_count(warp->top_k, warp, list, top) : bound;
    if (!has_top_p) {
        consider_tokens(&search, list->ids, list->num, warp->vocab_size);
        return winner(&search);
    }
    weigh(list->values, list->num, top, warp->scale, list->weights);
    const double listed = weight_from(search.bound, list->values, list->weights, list->num);
    return choose_from_nucleus(&search, warp, list, listed, share * (double)(warp->vocab_size - list->num));
}

/* The best guesses; returns how many, or UNDECIDED. */
static int guess(const float *row, const Noise *noise, const Warp *warp, List *list, int count, uint32_t max_candidates,
                 int64_t *ids, double *scores) {
    const int has_top_k = warp->top_k < warp->vocab_size;
    float tops[NUM_TOPS];
    const float top = find_tops(row, warp->vocab_size, tops);
    if (!isfinite(top))
        return UNDECIDED;
    Search search = {.row = row,
                     .noise = noise,
                     .top = top,
                     .temperature = warp->temperature,
                     .bound = -FLT_MAX,
                     .num_wanted = count,
                     .known = -INFINITY};
    const uint32_t num_wanted = has_top_k && warp->top_k > max_candidates ? warp->top_k : max_candidates;
    list_tokens(row, warp->vocab_size, rough_bound(num_wanted, warp, tops, top), list);
    if (list->has_nan)
        return UNDECIDED;
    if (list->num > max_candidates)
        search.bound = bound_of_count(max_candidates, warp, list, top);
    double total = weigh(list->values, list->num, top, warp->scale, list->weights);
    if (has_top_k) {
        const float bound = bound_of_count(warp->top_k, warp, list, top);
        total = weight_from(bound, list->values, list->weights, list->num);
        search.bound = bound > search.bound ? bound : search.bound;
    } else if (list->num < warp->vocab_size) {
        const double others = weigh_others(row, warp, list, top);
        if (others < ROUGH_SHARE * total)
            total += others / MEAN_EXCESS;
        else
            total = weigh(row, warp->vocab_size, top, warp->scale, list->left);
    }
    if (warp->top_p < 1) { /* the edge of the nucleus may be beyond the listed tokens */
        const float edge = bound_of_weight(warp->top_p * total, warp, list, top);
        total = edge > -FLT_MAX ? weight_from(edge, list->values, list->weights, list->num) : warp->top_p * total;
        search.bound = edge > search.bound ? edge : search.bound;
    }
    reset(&search);
    consider_tokens(&search, list->ids, list->num, warp->vocab_size);
    int num = 0;
    for (; num < count && search.sums[num] > -INFINITY; num++)
        ids[num] = search.ids[num], scores[num] = search.sums[num] - log(total);
    return num;
}

/* ---- What is called ---- */

static Warp warp_of(uint32_t vocab_size, double temperature, uint32_t top_k, double top_p) {
    const uint32_t most = top_k == 0 || top_k > vocab_size ? vocab_size : top_k;
    return (Warp){vocab_size, temperature, (float)(LOG2_E / temperature), most, top_p};
}

static int make_list(List *list, uint32_t vocab_size) {
    const size_t size = sizeof(float) * vocab_size;
    *list = (List){.ids = malloc(size), .values = malloc(size), .weights = malloc(size), .left = malloc(2 * size)};
    return list->ids && list->values && list->weights && list->left;
}

static void free_list(List *list) { free(list->ids), free(list->values), free(list->weights), free(list->left); }

/* A token id for each row, or UNDECIDED. */
void skydraft_choose(const float *rows, int64_t num_rows, int64_t row_size, uint32_t vocab_size, double temperature,
                     uint32_t top_k, double top_p, const uint64_t *seeds, const uint32_t *positions, uint32_t stream,
                     int64_t *choices) {
    const Warp warp = warp_of(vocab_size, temperature, top_k, top_p);
    List list;
    const int has_room = make_list(&list, vocab_size);
    for (int64_t i = 0; i < num_rows; i++) {
        const Noise noise = noise_at(seeds[i], positions[i], stream);
        choices[i] = has_room ? choose(rows + i * row_size, &noise, &warp, &list) : UNDECIDED;
    }
    free_list(&list);
}

/* For each row, how many guesses there are, or UNDECIDED; in ids and scores it has room for count, at most MOST_WANTED.
   is_greedy: without noise. */
void skydraft_guess(const float *rows, int64_t num_rows, int64_t row_size, uint32_t vocab_size, int is_greedy,
                    double temperature, uint32_t top_k, double top_p, uint64_t seed, const uint32_t *positions,
                    uint32_t stream, int count, uint32_t max_candidates, int *num_guesses, int64_t *ids,
                    double *scores) {
    const Warp warp = warp_of(vocab_size, temperature, top_k, top_p);
    List list;
    const int has_room = make_list(&list, vocab_size);
    for (int64_t i = 0; i < num_rows; i++) {
        const Noise noise = noise_at(seed, positions[i], stream);
        const Noise *or_none = is_greedy ? NULL : &noise;
        num_guesses[i] = UNDECIDED;
        if (has_room)
            num_guesses[i] = guess(rows + i * row_size, or_none, &warp, &list, count, max_candidates, ids + i * count,
                                   scores + i * count);
    }
    free_list(&list);
}
