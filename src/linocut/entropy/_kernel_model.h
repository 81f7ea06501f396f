/* Tables and context networks of a codec, and how a network is computed for sixteen symbols. */

typedef struct {
    int inputs, hidden; /* as trained; filled up with zeros: */
    int pairs, rows;    /* half the inputs, rounded up; hidden numbers, to whole blocks */
    int16_t *first;     /* (planes,) times weights as of `Layer` */
    int32_t *first_bias;  /* (planes, 4, rows) */
    int16_t *second;      /* weights as of `Layer` */
    int32_t *second_bias; /* (rows,) */
    int16_t *last;        /* (rows,) */
    int32_t *last_bias;   /* (planes, 4) */
} Network;

/* One layer for LANES symbols: out[h][lane] = clip((weights[h] . x[.][lane] + bias[h]) >> 8);
 * mirrored, where given, gets the same of -x. x has 2 * pairs rows, `pitch` apart. Weights lie as
 * (rows / BLOCK, pairs, BLOCK, 2). */
typedef void Layer(const int16_t *x, ptrdiff_t pitch, int pairs, const int16_t *weights,
                   const int32_t *bias, int rows, int16_t *out, int16_t *mirrored);

/* The same without activation and with one row of weights: numbers[lane] = weights . x + bias. */
typedef void Last(const int16_t *x, int pairs, const int16_t *weights, int32_t bias,
                  int32_t *numbers);

typedef struct {
    const char *name;
    Layer *layer;
    Last *last;
} Instructions;

typedef struct {
    PyObject_HEAD
    int planes, bins, tokens, octaves, classes, sign_bins, bin_shift, sign_shift;
    int32_t *layout;       /* (planes, 1 + PARENTS + SIBLINGS): smooth, then indices or -1 */
    uint32_t *cumulative;  /* (planes, quantisers, bins, tokens + 1), of 2^16 */
    uint16_t *agreement;   /* (classes * sign_bins,) of 2^16 */
    uint16_t *occupied;    /* (planes, octaves) of 2^16 */
    int32_t *costs;        /* (planes, quantisers, bins, tokens), 2^-20 bit */
    int32_t *sign_costs;   /* (classes * sign_bins, 2), 2^-20 bit */
    float *lengths;        /* (planes, quantisers, bins, tokens), bits */
    Network magnitude, sign;
    const Instructions *instructions;
} Model;

static const int32_t *layout_of(const Model *model, int plane)
{
    return model->layout + (ptrdiff_t)plane * (1 + PARENTS + SIBLINGS);
}

/* ---------------------------------------------------------------- layers of the networks */

static inline void activate(const int32_t *restrict sums, int32_t bias, int sign,
                            int16_t *restrict out)
{
    UNROLL_NOT
    for (int lane = 0; lane < LANES; lane++) {
        const int32_t sum = (bias + sign * sums[lane]) >> SHIFT;
        out[lane] = (int16_t)(sum < 0 ? 0 : sum > CAP ? CAP : sum);
    }
}

ROWS
static void layer_portable(const int16_t *x, ptrdiff_t pitch, int pairs, const int16_t *weights,
                           const int32_t *bias, int rows, int16_t *out, int16_t *mirrored)
{
    for (int start = 0; start < rows; start += BLOCK) {
        int32_t sums[BLOCK][LANES] = {{0}};
        for (int i = 0; i < pairs; i++, weights += 2 * BLOCK) {
            const int16_t *even = x + 2 * i * pitch, *odd = even + pitch;
            UNROLL_NOT
            for (int lane = 0; lane < LANES; lane++)
                for (int b = 0; b < BLOCK; b++)
                    sums[b][lane] += even[lane] * weights[2 * b] + odd[lane] * weights[2 * b + 1];
        }
        for (int b = 0; b < BLOCK; b++) {
            activate(sums[b], bias[start + b], 1, out + (start + b) * LANES);
            if (mirrored)
                activate(sums[b], bias[start + b], -1, mirrored + (start + b) * LANES);
        }
    }
}

ROWS
static void last_portable(const int16_t *x, int pairs, const int16_t *weights, int32_t bias,
                          int32_t *numbers)
{
    int32_t sums[LANES];
    for (int lane = 0; lane < LANES; lane++)
        sums[lane] = bias;
    for (int i = 0; i < 2 * pairs; i++) {
        UNROLL_NOT
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += x[i * LANES + lane] * weights[i];
    }
    memcpy(numbers, sums, sizeof sums);
}

static const Instructions PORTABLE = {"portable", layer_portable, last_portable};

#ifdef HAVE_AVX2
#define LAYER layer_avx2
#define LAST last_avx2
#define TARGET "avx2"
#define MULTIPLY_ADD(sums, x, weights) _mm256_add_epi32(sums, _mm256_madd_epi16(x, weights))
#include "_kernel_layer.h"

#define LAYER layer_vnni
#define LAST last_vnni
#define TARGET "avx2,avx512f,avx512vl,avx512vnni"
#define MULTIPLY_ADD(sums, x, weights) _mm256_dpwssd_epi32(sums, x, weights)
#include "_kernel_layer.h"

static const Instructions AVX2 = {"avx2", layer_avx2, last_avx2};
static const Instructions VNNI = {"avx512vnni", layer_vnni, last_vnni};
#endif

/* The best that this processor has. */
static const Instructions *best_instructions(void)
{
#ifdef HAVE_AVX2
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl"))
        return &VNNI;
    if (__builtin_cpu_supports("avx2"))
        return &AVX2;
#endif
    return &PORTABLE;
}

/* f(x) of LANES symbols, or f(x) - f(-x) where `odd`. x has 2 * pairs rows, `pitch` apart. */
static void network_of(const Model *model, const Network *network, const int16_t *x,
                       ptrdiff_t pitch, int plane, int kind, int odd, int32_t *numbers)
{
    const Instructions *with = model->instructions;
    const int rows = network->rows;
    const ptrdiff_t place = (ptrdiff_t)4 * plane + kind;
    const int16_t *weights = network->first + (ptrdiff_t)plane * rows * 2 * network->pairs;
    int16_t first[2][MAX_HIDDEN * LANES], second[MAX_HIDDEN * LANES];
    int32_t found[2][LANES] = {{0}};
    with->layer(x, pitch, network->pairs, weights, network->first_bias + place * rows, rows,
                first[0], odd ? first[1] : NULL);
    for (int side = 0; side <= odd; side++) {
        with->layer(first[side], LANES, rows / 2, network->second, network->second_bias, rows,
                    second, NULL);
        with->last(second, rows / 2, network->last, network->last_bias[place], found[side]);
    }
    for (int lane = 0; lane < LANES; lane++)
        numbers[lane] = found[0][lane] - found[1][lane];
}
