/* Entropy coding of a latent in one call: what linocut.entropy.passes does with numpy, in C.
 *
 *   symbols --> planes, each as its four grids (every second sample of every second row)
 *     |           | contexts_of: levels around 64 symbols of a grid, structure of arrays
 *     |         x (inputs, 64) int16
 *     |           | network: 16 symbols at a time, whole numbers      [skipped where x is all zero]
 *     |         table of each symbol
 *     |           | group: places of a grid by table, in order
 *     v           v
 *   token, sign, extra bits <--range coder (64-bit state, words of 32 bits)--> bytes
 *
 * The same bytes as numpy's form on every machine: all numbers are whole but for the choice of
 * symbols, whose few float operations are IEEE's and written in numpy's order (compile without
 * contraction to fused operations).
 *
 * What a payload says never becomes a size or an index unchecked: sizes are those of the arrays
 * that the caller made, tokens come out of a search in a table, and an impossible state of the
 * range decoder ends the decoding. Python objects are touched only while the GIL is held.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define HAVE_AVX2 1
#endif

/* Loops over rows, compiled for several processors where compiler and C library can choose. */
#if defined(HAVE_AVX2) && !defined(__clang__) && defined(__GLIBC__) && !defined(LINOCUT_ONE_TARGET)
#define ROWS __attribute__((target_clones("avx2", "default")))
#else
#define ROWS
#endif

/* gcc would turn a loop over lanes into scalars before it sees that these are vectors. */
#if defined(__GNUC__) && !defined(__clang__)
#define UNROLL_NOT _Pragma("GCC unroll 1")
#define UNROLL_4 _Pragma("GCC unroll 4")
#else
#define UNROLL_NOT
#define UNROLL_4
#endif

enum {
    INTERFACE = 2, /* as in kernel.py; raised when what it passes changes */

    MAX_PLANES = 4096,
    MAX_SIDE = 1 << 14, /* of a plane, samples */
    MAX_SYMBOLS = 1 << 27,
    MAX_STEP_INDEX = 1023,
    MAX_INPUTS = 64,
    MAX_HIDDEN = 64,
    MAX_BIAS = 1 << 28, /* sums stay in 32 bits: 64 * 255 * 2^15 + 2^28 < 2^30 */
    MAX_BINS = 64,
    MAX_TOKENS = 64,
    MAX_SIGN_TABLES = 256,

    PARENTS = 2,
    SIBLINGS = 8,
    SIGN_SIBLINGS = 4,
    MAGNITUDE_INPUTS = 8 + 2 * (PARENTS + SIBLINGS),
    SIGN_INPUTS = 12 + 5 + 2 * SIGN_SIBLINGS,

    CAP = 255,   /* magnitudes in contexts; activations */
    SHIFT = 8,   /* of activations */
    LANES = 16,  /* symbols that a network takes at once */
    BLOCK = 4,   /* hidden numbers that it computes at once */
    CHUNK = 64,  /* symbols whose contexts are made at once */
    LITERALS = 16,
    TOKEN_LIMIT = 1 << 17, /* magnitudes below have a token */
    LARGEST_SYMBOL = 32767,
    COST_UNIT = 1 << 20,
};

/* ---------------------------------------------------------------- the model */

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
    uint32_t *cumulative;  /* (planes, bins, tokens + 1), of 2^16 */
    uint16_t *agreement;   /* (classes * sign_bins,) of 2^16 */
    uint16_t *occupied;    /* (planes, octaves) of 2^16 */
    int32_t *costs;        /* (planes, bins, tokens), 2^-20 bit */
    int32_t *sign_costs;   /* (classes * sign_bins, 2), 2^-20 bit */
    float *lengths;        /* (planes, bins, tokens), bits */
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

/* ---------------------------------------------------------------- what is known of a latent */

/* A plane as four grids (row and column even or odd), each with a margin of one sample, behind one
 * another: a pass of a detail plane reads and writes consecutive numbers. */
typedef struct {
    int height, width;
    ptrdiff_t start;     /* in the caller's arrays */
    ptrdiff_t pitch;     /* of a row of a grid */
    ptrdiff_t grid;      /* from one grid to the next */
    int16_t *known;      /* symbols (residuals of smooth planes) cut to -255 .. 255 */
    uint8_t *level, *box; /* levels of magnitudes and of sums of 3 x 3, once the plane is known */
} Plane;

typedef struct {
    int kind, top, left, size; /* rows top, top + size ..., likewise columns */
    int height, width;         /* of the pass */
} Pass;

typedef struct {
    const Model *model;
    Plane *planes;
    int step_index;
    int16_t signed_levels[2 * CAP + 1]; /* of -CAP .. CAP */
    /* Of one pass, in its raster order: */
    uint8_t *bins, *tokens;
    int32_t *values;
    uint32_t *order;
    /* Of its symbols that are not zero: */
    uint32_t *nonzero;
    uint8_t *sign_tables, *likely;
} Latent;

/* Where a sample lies in the arrays of a plane; y, x from -2 to two beyond the plane. */
static ptrdiff_t at(const Plane *plane, int y, int x)
{
    return (2 * (y & 1) + (x & 1)) * plane->grid + ((y >> 1) + 1) * plane->pitch + (x >> 1) + 1;
}

/* 16 log2(1 + number), its fraction by the next four bits: what a float's first bits are. */
static inline int32_t level_of(int32_t number)
{
    const float wide = (float)(number + 1);
    int32_t bits;
    memcpy(&bits, &wide, sizeof bits);
    return (bits >> 19) - 16 * 127;
}

static inline int sign_of(int number)
{
    return (number > 0) - (number < 0);
}

static inline int16_t signed_level_of(int number)
{
    return (int16_t)(sign_of(number) * level_of(abs(number)));
}

static inline int16_t cut(int32_t value)
{
    return (int16_t)(value < -CAP ? -CAP : value > CAP ? CAP : value);
}

/* Levels of the magnitudes and of the sums of 3 x 3 of a row; `around` are the nine offsets. */
ROWS
static void close_row(const int16_t *known, const ptrdiff_t *around, uint8_t *restrict level,
                      uint8_t *restrict box, int count)
{
    const int16_t *a = known + around[0], *b = known + around[1], *c = known + around[2];
    const int16_t *d = known + around[3], *e = known + around[4], *f = known + around[5];
    const int16_t *g = known + around[6], *h = known + around[7], *i = known + around[8];
    for (int j = 0; j < count; j++) {
        const int32_t sum = abs(a[j]) + abs(b[j]) + abs(c[j]) + abs(d[j]) + abs(e[j]) + abs(f[j]) +
                            abs(g[j]) + abs(h[j]) + abs(i[j]);
        level[j] = (uint8_t)level_of(abs(e[j]));
        box[j] = (uint8_t)level_of(sum);
    }
}

/* End a plane: later planes see it as parent or sibling. */
static void close_plane(Plane *plane)
{
    for (int grid = 0; grid < 4; grid++) {
        const int top = grid >> 1, left = grid & 1;
        const ptrdiff_t first = at(plane, top, left);
        ptrdiff_t around[9];
        for (int k = 0; k < 9; k++)
            around[k] = at(plane, top + k / 3 - 1, left + k % 3 - 1) - first;
        const int rows = (plane->height - top + 1) / 2, columns = (plane->width - left + 1) / 2;
        for (int i = 0; i < rows; i++) {
            const ptrdiff_t row = first + i * plane->pitch;
            close_row(plane->known + row, around, plane->level + row, plane->box + row, columns);
        }
    }
}

static void put_value(Plane *plane, int y, int x, int32_t value)
{
    plane->known[at(plane, y, x)] = cut(value);
}

static const signed char STRAIGHT[4][2] = {{0, -1}, {0, 1}, {-1, 0}, {1, 0}};
static const signed char DIAGONAL[4][2] = {{-1, -1}, {-1, 1}, {1, -1}, {1, 1}};
static const signed char FAR[4][2] = {{0, -2}, {0, 2}, {-2, 0}, {2, 0}};
static const signed char RING[8][2] = {{-2, -1}, {-2, 1}, {-1, -2}, {-1, 2},
                                       {1, -2},  {1, 2},  {2, -1},  {2, 1}};

/* Fill x with the contexts of CHUNK symbols of a detail plane from column `start` of row `row` of a
 * pass on; what lies beyond the row is anything, and ignored. Rows of x that have no source stay as
 * they are: zero. Returns through `busy` whether anything but the step is not zero. */
ROWS
static void contexts_of(const Latent *latent, int index, const Pass *pass, int row, int start,
                        int16_t (*restrict x)[CHUNK], int16_t *restrict busy)
{
    const Plane *own = latent->planes + index;
    const int32_t *layout = layout_of(latent->model, index);
    const ptrdiff_t first = at(own, pass->top, pass->left);
    const ptrdiff_t place = first + row * own->pitch + start;
    memset(busy, 0, CHUNK * sizeof *busy);
    if (pass->kind) {
        ptrdiff_t near[8], ring[8];
        for (int k = 0; k < 4; k++) {
            near[k] = at(own, pass->top + STRAIGHT[k][0], pass->left + STRAIGHT[k][1]) - first;
            near[4 + k] = at(own, pass->top + DIAGONAL[k][0], pass->left + DIAGONAL[k][1]) - first;
        }
        for (int k = 0; k < 8; k++)
            ring[k] = at(own, pass->top + RING[k][0], pass->left + RING[k][1]) - first;
        const int16_t *known = own->known + place;
        for (int j = 0; j < CHUNK; j++) {
            const int a = known[j + near[0]], b = known[j + near[1]];
            const int c = known[j + near[2]], d = known[j + near[3]];
            x[1][j] = (int16_t)level_of(abs(a) + abs(b));
            x[5][j] = (int16_t)level_of(abs(a + b));
            x[2][j] = (int16_t)level_of(abs(c) + abs(d));
            x[6][j] = (int16_t)level_of(abs(c + d));
        }
        for (int j = 0; j < CHUNK; j++) {
            const int a = known[j + near[4]], b = known[j + near[5]];
            const int c = known[j + near[6]], d = known[j + near[7]];
            x[3][j] = (int16_t)level_of(abs(a) + abs(b) + abs(c) + abs(d));
            x[7][j] = (int16_t)level_of(abs(a + b + c + d));
        }
        for (int j = 0; j < CHUNK; j++) {
            int32_t sum = 0;
            for (int k = 0; k < 8; k++)
                sum += abs(known[j + ring[k]]);
            x[4][j] = (int16_t)level_of(sum);
        }
        for (int j = 0; j < CHUNK; j++)
            busy[j] |= x[1][j] | x[2][j] | x[3][j] | x[4][j];
    }
    for (int slot = 0; slot < PARENTS; slot++) {
        if (layout[1 + slot] < 0)
            continue;
        const Plane *parent = latent->planes + layout[1 + slot];
        const ptrdiff_t even = at(parent, row, start), odd = at(parent, row, start + 1);
        const uint8_t *sources[2] = {parent->level, parent->box};
        for (int which = 0; which < 2; which++) {
            const uint8_t *evens = sources[which] + even, *odds = sources[which] + odd;
            int16_t *restrict to = x[8 + 2 * slot + which];
            for (int j = 0; j < CHUNK / 2; j++) {
                to[2 * j] = evens[j];
                to[2 * j + 1] = odds[j];
            }
        }
        for (int j = 0; j < CHUNK; j++)
            busy[j] |= x[8 + 2 * slot + 1][j]; /* the sum holds the magnitude, too */
    }
    for (int slot = 0; slot < SIBLINGS; slot++) {
        if (layout[1 + PARENTS + slot] < 0)
            continue;
        const Plane *sibling = latent->planes + layout[1 + PARENTS + slot];
        const uint8_t *level = sibling->level + place, *box = sibling->box + place;
        int16_t *restrict to = x[8 + 2 * (PARENTS + slot)];
        int16_t *restrict to_box = x[8 + 2 * (PARENTS + slot) + 1];
        for (int j = 0; j < CHUNK; j++) {
            to[j] = level[j];
            to_box[j] = box[j];
            busy[j] |= box[j];
        }
    }
}

/* Table of every symbol of a pass. */
ROWS
static void tables_of(Latent *latent, int index, const Pass *pass)
{
    const Model *model = latent->model;
    const Network *network = &model->magnitude;
    const int last = model->bins - 1;
    if (layout_of(model, index)[0]) {
        int octave = latent->step_index / 64, kind = pass->kind < 2 ? pass->kind : 2;
        if (octave > model->bins / 3 - 1)
            octave = model->bins / 3 - 1;
        memset(latent->bins, octave * 3 + kind, (size_t)pass->height * pass->width);
        return;
    }
    int16_t x[MAX_INPUTS][CHUNK], busy[CHUNK];
    int32_t numbers[LANES];
    memset(x, 0, sizeof x);
    for (int j = 0; j < CHUNK; j++)
        x[0][j] = (int16_t)(latent->step_index / 4);
    network_of(model, network, x[0], CHUNK, index, pass->kind, 0, numbers);
    const int number = numbers[0] >> model->bin_shift;
    const uint8_t quiet = (uint8_t)(number < 0 ? 0 : number > last ? last : number);
    for (int row = 0; row < pass->height; row++) {
        uint8_t *bins = latent->bins + (ptrdiff_t)row * pass->width;
        for (int start = 0; start < pass->width; start += CHUNK) {
            contexts_of(latent, index, pass, row, start, x, busy);
            for (int j = 0; j < CHUNK && start + j < pass->width; j += LANES) {
                int16_t any = 0;
                for (int lane = 0; lane < LANES; lane++)
                    any |= busy[j + lane];
                if (any)
                    network_of(model, network, x[0] + j, CHUNK, index, pass->kind, 0, numbers);
                uint8_t found[LANES];
                for (int lane = 0; lane < LANES; lane++) {
                    const int number = numbers[lane] >> model->bin_shift;
                    found[lane] = (uint8_t)(number < 0 ? 0 : number > last ? last : number);
                }
                const int left = pass->width - start - j;
                const size_t count = (size_t)(left < LANES ? left : LANES);
                if (any)
                    memcpy(bins + start + j, found, count);
                else
                    memset(bins + start + j, quiet, count);
            }
        }
    }
}

/* Signed levels around LANES symbols of a detail pass, which lie at `places` of their plane and at
 * `rows`, `columns` of its pass. */
ROWS
static void sign_contexts_of(const Latent *latent, int index, const ptrdiff_t *places,
                             const ptrdiff_t *near, const int *rows, const int *columns,
                             int16_t (*restrict x)[LANES])
{
    const int32_t *layout = layout_of(latent->model, index);
    const int16_t *known = latent->planes[index].known, *level = latent->signed_levels + CAP;
    const Plane *parent = NULL;
    for (int slot = 0; slot < PARENTS; slot++)
        if (layout[1 + slot] >= 0)
            parent = latent->planes + layout[1 + slot];
    for (int k = 0; k < 12; k++)
        for (int lane = 0; lane < LANES; lane++)
            x[k][lane] = level[known[places[lane] + near[k]]];
    for (int k = 0; parent && k < 5; k++) {
        const int dy = k ? STRAIGHT[k - 1][0] : 0, dx = k ? STRAIGHT[k - 1][1] : 0;
        for (int lane = 0; lane < LANES; lane++)
            x[12 + k][lane] = level[parent->known[at(parent, rows[lane] + dy, columns[lane] + dx)]];
    }
    for (int slot = 0; slot < SIGN_SIBLINGS; slot++) {
        if (layout[1 + PARENTS + slot] < 0)
            continue;
        const int16_t *others = latent->planes[layout[1 + PARENTS + slot]].known;
        int16_t agreement[LANES] = {0}, other[LANES];
        for (int k = 0; k < 8; k++) {
            for (int lane = 0; lane < LANES; lane++)
                other[lane] = others[places[lane] + near[k]];
            UNROLL_NOT
            for (int lane = 0; lane < LANES; lane++)
                agreement[lane] = (int16_t)(agreement[lane] + sign_of(x[k][lane]) * sign_of(other[lane]));
        }
        for (int lane = 0; lane < LANES; lane++) {
            other[lane] = others[places[lane]];
            x[17 + 2 * slot][lane] = level[other[lane]];
            x[18 + 2 * slot][lane] = level[agreement[lane] * sign_of(other[lane])];
        }
    }
}

/* Table and likely sign (1: negative) of the symbols of a detail pass that are not zero. */
static void signs_of(Latent *latent, int index, const Pass *pass, ptrdiff_t count)
{
    const Model *model = latent->model;
    const Plane *own = latent->planes + index;
    const ptrdiff_t first = at(own, pass->top, pass->left);
    ptrdiff_t near[12], row_start = 0;
    int row = 0;
    int16_t x[SIGN_INPUTS + 1][LANES] = {{0}};
    for (int k = 0; k < 4; k++) {
        near[k] = at(own, pass->top + STRAIGHT[k][0], pass->left + STRAIGHT[k][1]) - first;
        near[4 + k] = at(own, pass->top + DIAGONAL[k][0], pass->left + DIAGONAL[k][1]) - first;
        near[8 + k] = at(own, pass->top + FAR[k][0], pass->left + FAR[k][1]) - first;
    }
    for (ptrdiff_t start = 0; start < count; start += LANES) {
        const int filled = count - start < LANES ? (int)(count - start) : LANES;
        ptrdiff_t places[LANES];
        int rows[LANES], columns[LANES];
        int32_t numbers[LANES];
        for (int lane = 0; lane < LANES; lane++) { /* the last one again where there are no more */
            const uint32_t place = latent->nonzero[start + (lane < filled ? lane : filled - 1)];
            for (; place >= row_start + pass->width; row++)
                row_start += pass->width;
            rows[lane] = row;
            columns[lane] = (int)(place - row_start);
            places[lane] = first + row * own->pitch + columns[lane];
        }
        sign_contexts_of(latent, index, places, near, rows, columns, x);
        network_of(model, &model->sign, x[0], LANES, index, pass->kind, 1, numbers);
        for (int lane = 0; lane < filled; lane++) {
            const int token = latent->tokens[latent->nonzero[start + lane]];
            const int kind = (token < model->classes ? token : model->classes) - 1;
            const int sure = abs(numbers[lane]) >> model->sign_shift;
            const int bin = sure < model->sign_bins ? sure : model->sign_bins - 1;
            latent->sign_tables[start + lane] = (uint8_t)(kind * model->sign_bins + bin);
            latent->likely[start + lane] = numbers[lane] < 0;
        }
    }
}

/* ---------------------------------------------------------------- tokens and passes */

static int token_of(int32_t magnitude)
{
    if (magnitude < LITERALS)
        return magnitude;
    int octave = 4;
    while (magnitude >> (octave + 1))
        octave++;
    return LITERALS + 2 * (octave - 4) + ((magnitude >> (octave - 1)) & 1);
}

static int extra_bits_of(int token)
{
    return token < LITERALS ? 0 : 3 + (token - LITERALS) / 2;
}

static int32_t start_of(int token)
{
    if (token < LITERALS)
        return token;
    const int octave = (token - LITERALS) / 2;
    return (16 << octave) + ((token - LITERALS) & 1) * (8 << octave);
}

/* The passes of a plane in coding order; returns how many, without empty ones. */
static int passes_of(int smooth, int height, int width, Pass *passes)
{
    static const int OFFSETS[4][2] = {{0, 0}, {1, 1}, {0, 1}, {1, 0}};
    int count = 0;
    for (int size = smooth ? 8 : 2; size > 1; size /= 2) {
        const int first = size == (smooth ? 8 : 2) ? 0 : 1;
        for (int kind = first; kind < 4; kind++) {
            const int top = OFFSETS[kind][0] * size / 2, left = OFFSETS[kind][1] * size / 2;
            if (top < height && left < width) {
                passes[count] = (Pass){kind, top, left, size, (height - top + size - 1) / size,
                                       (width - left + size - 1) / size};
                count++;
            }
        }
    }
    return count;
}

/* Prediction of a sample of a smooth plane (flat, row by row) from the coarser grid around it. */
static int32_t prediction_of(const int32_t *symbols, const Plane *plane, const Pass *pass, int y,
                             int x)
{
    const int half = pass->size / 2;
    const signed char(*offsets)[2] = pass->kind == 1 ? DIAGONAL : STRAIGHT;
    int64_t total = 0, known = 0;
    for (int k = 0; k < 4 && pass->kind; k++) {
        const int near_y = y + offsets[k][0] * half, near_x = x + offsets[k][1] * half;
        if (near_y >= 0 && near_y < plane->height && near_x >= 0 && near_x < plane->width) {
            total += symbols[(ptrdiff_t)near_y * plane->width + near_x];
            known++;
        }
    }
    if (!known)
        return 0;
    const int64_t above = 2 * total + known, below = 2 * known;
    return (int32_t)(above / below - (above % below < 0));
}

/* Order of the places 0 .. count - 1 by their table, stable; ends[t] is where table t ends. */
static void group(const uint8_t *tables, ptrdiff_t count, int number, uint32_t *order,
                  ptrdiff_t *ends)
{
    memset(ends, 0, (size_t)number * sizeof *ends);
    for (ptrdiff_t i = 0; i < count; i++)
        ends[tables[i]]++;
    for (ptrdiff_t table = 0, total = 0; table < number; table++) {
        const ptrdiff_t size = ends[table];
        ends[table] = total;
        total += size;
    }
    for (ptrdiff_t i = 0; i < count; i++)
        order[ends[tables[i]]++] = (uint32_t)i;
}

/* ---------------------------------------------------------------- range coder */

typedef struct {
    uint64_t low, range;
    uint32_t *words;
    size_t count, capacity;
    int failed; /* out of memory */
} Encoder;

static void carry(Encoder *encoder)
{
    for (size_t i = encoder->count; i > 0 && ++encoder->words[i - 1] == 0; i--)
        ;
}

static void put_word(Encoder *encoder, uint32_t word)
{
    if (encoder->count == encoder->capacity) {
        const size_t capacity = encoder->capacity ? 2 * encoder->capacity : 4096;
        uint32_t *words = realloc(encoder->words, capacity * sizeof *words);
        if (!words) {
            encoder->failed = 1;
            encoder->count = 0;
            return;
        }
        encoder->words = words;
        encoder->capacity = capacity;
    }
    encoder->words[encoder->count++] = word;
}

/* Code the interval from `start` to `start + size` of 2^24. */
static inline void encode_interval(Encoder *encoder, uint32_t start, uint32_t size)
{
    const uint64_t scale = encoder->range >> 24, low = encoder->low + scale * start;
    if (low < encoder->low)
        carry(encoder);
    encoder->low = low;
    encoder->range = scale * size;
    if (encoder->range >> 32 == 0) {
        put_word(encoder, (uint32_t)(encoder->low >> 32));
        encoder->low <<= 32;
        encoder->range <<= 32;
    }
}

static void finish(Encoder *encoder)
{
    const uint64_t point = encoder->low + UINT32_MAX;
    if (point < encoder->low)
        carry(encoder);
    put_word(encoder, (uint32_t)(point >> 32));
}

static inline void encode_flag(Encoder *encoder, uint32_t zeros, int one)
{
    encode_interval(encoder, one ? zeros << 8 : 0, one ? (65536 - zeros) << 8 : zeros << 8);
}

typedef struct {
    uint64_t offset, range;
    const uint8_t *data;
    size_t left;
    int failed; /* the bytes are no stream of this coder */
} Decoder;

static uint32_t next_word(Decoder *decoder)
{
    uint32_t word = 0;
    const size_t count = decoder->left < 4 ? decoder->left : 4;
    for (size_t i = 0; i < count; i++)
        word |= (uint32_t)decoder->data[i] << (8 * i);
    decoder->data += count;
    decoder->left -= count;
    return word;
}

static inline void refill(Decoder *decoder)
{
    if (decoder->range >> 32 == 0) {
        decoder->range <<= 32;
        decoder->offset = decoder->offset << 32 | next_word(decoder);
    }
}

/* The symbol s with cumulative[s] <= quantile < cumulative[s + 1], of 2^16; fails beyond all. */
static inline int decode_symbol(Decoder *decoder, const uint32_t *cumulative, int count)
{
    const uint64_t scale = decoder->range >> 24, unit = scale << 8;
    uint64_t start = 0, end = unit * cumulative[1];
    int symbol = 0;
    while (decoder->offset >= end) {
        if (++symbol == count) {
            decoder->failed = 1;
            return 0;
        }
        start = end;
        end = unit * cumulative[symbol + 1];
    }
    decoder->offset -= start;
    decoder->range = end - start;
    refill(decoder);
    return symbol;
}

static inline int decode_flag(Decoder *decoder, uint32_t zeros)
{
    const uint32_t cumulative[3] = {0, zeros, 65536};
    return decode_symbol(decoder, cumulative, 2);
}

/* A number of `count` bits, all equally likely. */
static uint32_t decode_bits(Decoder *decoder, int count)
{
    const uint64_t scale = decoder->range >> 24, width = scale << (24 - count);
    const uint64_t number = decoder->offset / width;
    if (number >> count) {
        decoder->failed = 1;
        return 0;
    }
    decoder->offset -= number * width;
    decoder->range = width;
    refill(decoder);
    return (uint32_t)number;
}

/* ---------------------------------------------------------------- one pass */

/* The places of symbols that are not zero; how many. */
static ptrdiff_t find_nonzero(Latent *latent, ptrdiff_t count)
{
    ptrdiff_t found = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        latent->nonzero[found] = (uint32_t)i;
        found += latent->tokens[i] != 0;
    }
    return found;
}

/* Code latent->values of a pass, or only count where there is no encoder; bins are known. Returns
 * the cost in 2^-20 bit. */
static int64_t encode_pass(Latent *latent, int index, const Pass *pass, Encoder *encoder)
{
    const Model *model = latent->model;
    const ptrdiff_t count = (ptrdiff_t)pass->height * pass->width;
    const ptrdiff_t rows = (ptrdiff_t)index * model->bins;
    const int smooth = layout_of(model, index)[0];
    int64_t cost = 0, bits = 0;
    int largest = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        const int32_t magnitude = abs(latent->values[i]);
        const int token = token_of(magnitude);
        latent->tokens[i] = (uint8_t)token;
        cost += model->costs[(rows + latent->bins[i]) * model->tokens + token];
        bits += extra_bits_of(token);
        largest = token > largest ? token : largest;
    }
    if (encoder) {
        ptrdiff_t ends[MAX_BINS], i = 0;
        group(latent->bins, count, model->bins, latent->order, ends);
        for (int table = 0; table < model->bins; table++) {
            const uint32_t *cumulative = model->cumulative + (rows + table) * (model->tokens + 1);
            for (; i < ends[table]; i++) {
                const int token = latent->tokens[latent->order[i]];
                const uint32_t start = cumulative[token];
                encode_interval(encoder, start << 8, (cumulative[token + 1] - start) << 8);
            }
        }
    }
    const ptrdiff_t found = find_nonzero(latent, count);
    if (smooth) {
        bits += found;
        for (ptrdiff_t i = 0; encoder && i < found; i++)
            encode_flag(encoder, 32768, latent->values[latent->nonzero[i]] < 0);
    } else {
        signs_of(latent, index, pass, found);
        for (ptrdiff_t i = 0; i < found; i++) {
            latent->likely[i] ^= latent->values[latent->nonzero[i]] < 0;
            cost += model->sign_costs[2 * latent->sign_tables[i] + latent->likely[i]];
        }
        if (encoder) {
            ptrdiff_t ends[MAX_SIGN_TABLES], i = 0;
            const int number = model->classes * model->sign_bins;
            group(latent->sign_tables, found, number, latent->order, ends);
            for (int table = 0; table < number; table++)
                for (; i < ends[table]; i++)
                    encode_flag(encoder, model->agreement[table],
                                latent->likely[latent->order[i]]);
        }
    }
    for (int token = LITERALS; encoder && token <= largest; token++) {
        const int width = 24 - extra_bits_of(token);
        for (ptrdiff_t i = 0; i < found; i++) {
            const uint32_t place = latent->nonzero[i];
            if (latent->tokens[place] == token) {
                const uint32_t offset = (uint32_t)(abs(latent->values[place]) - start_of(token));
                encode_interval(encoder, offset << width, UINT32_C(1) << width);
            }
        }
    }
    return cost + bits * COST_UNIT;
}

/* Decode a pass into latent->values. */
static void decode_pass(Latent *latent, int index, const Pass *pass, Decoder *decoder)
{
    const Model *model = latent->model;
    const ptrdiff_t count = (ptrdiff_t)pass->height * pass->width;
    const ptrdiff_t rows = (ptrdiff_t)index * model->bins;
    ptrdiff_t ends[MAX_SIGN_TABLES > MAX_BINS ? MAX_SIGN_TABLES : MAX_BINS], done = 0;
    int largest = 0;
    group(latent->bins, count, model->bins, latent->order, ends);
    for (int table = 0; table < model->bins; table++) {
        const uint32_t *cumulative = model->cumulative + (rows + table) * (model->tokens + 1);
        for (; done < ends[table] && !decoder->failed; done++) {
            const int token = decode_symbol(decoder, cumulative, model->tokens);
            latent->tokens[latent->order[done]] = (uint8_t)token;
            largest = token > largest ? token : largest;
        }
    }
    if (decoder->failed)
        return;
    const ptrdiff_t found = find_nonzero(latent, count);
    if (layout_of(model, index)[0]) {
        for (ptrdiff_t i = 0; i < found; i++)
            latent->likely[i] = (uint8_t)decode_flag(decoder, 32768);
    } else {
        const int number = model->classes * model->sign_bins;
        signs_of(latent, index, pass, found);
        group(latent->sign_tables, found, number, latent->order, ends);
        done = 0;
        for (int table = 0; table < number; table++)
            for (; done < ends[table]; done++)
                latent->likely[latent->order[done]] ^=
                    (uint8_t)decode_flag(decoder, model->agreement[table]);
    }
    memset(latent->values, 0, (size_t)count * sizeof *latent->values);
    for (ptrdiff_t i = 0; i < found; i++)
        latent->values[latent->nonzero[i]] = start_of(latent->tokens[latent->nonzero[i]]);
    for (int token = LITERALS; token <= largest; token++)
        for (ptrdiff_t i = 0; i < found && !decoder->failed; i++)
            if (latent->tokens[latent->nonzero[i]] == token)
                latent->values[latent->nonzero[i]] +=
                    (int32_t)decode_bits(decoder, extra_bits_of(token));
    for (ptrdiff_t i = 0; i < found; i++)
        if (latent->likely[i])
            latent->values[latent->nonzero[i]] *= -1;
}

/* The cheapest magnitude for u, given the bits of the tokens of its table. */
static int32_t cheapest(float u, const float *lengths, float price)
{
    if (!(u > 0.5f))
        return 0;
    const float rounded = rintf(u);
    const int32_t nearest = rounded < LARGEST_SYMBOL ? (int32_t)rounded : LARGEST_SYMBOL;
    const float square = u * u, bits_of_zero = price * lengths[0];
    float cost = square + bits_of_zero;
    int32_t chosen = 0;
    for (int lower = 1; lower >= 0; lower--) {
        const int32_t magnitude = nearest - lower;
        const int token = token_of(magnitude);
        const double bits = (double)lengths[token] + extra_bits_of(token) + (magnitude > 0);
        const double error = (double)u - magnitude;
        const double candidate = error * error + (double)price * bits;
        if (candidate < (double)cost) {
            chosen = magnitude;
            cost = (float)candidate;
        }
    }
    return chosen;
}

/* Make latent->values of a pass known to later passes. */
static void put_pass(Latent *latent, int index, const Pass *pass)
{
    Plane *plane = latent->planes + index;
    for (int i = 0; i < pass->height; i++) {
        const int32_t *values = latent->values + (ptrdiff_t)i * pass->width;
        if (pass->size == 2 && !layout_of(latent->model, index)[0]) {
            int16_t *known = plane->known + at(plane, pass->top, pass->left) + i * plane->pitch;
            for (int j = 0; j < pass->width; j++)
                known[j] = cut(values[j]);
        } else {
            for (int j = 0; j < pass->width; j++)
                put_value(plane, pass->top + i * pass->size, pass->left + j * pass->size, values[j]);
        }
    }
}

/* The passes of a plane (h, w) to and from latent->values: detail planes, two samples apart. */

static int read_pass(Latent *latent, int index, const Pass *pass, const int32_t *symbols)
{
    const int width = latent->planes[index].width;
    int beyond = 0;
    for (int i = 0; i < pass->height; i++) {
        const int32_t *row = symbols + (ptrdiff_t)(pass->top + 2 * i) * width + pass->left;
        int32_t *restrict values = latent->values + (ptrdiff_t)i * pass->width;
        for (int j = 0, count = pass->width; j < count; j++) {
            values[j] = row[2 * j];
            beyond |= values[j] <= -TOKEN_LIMIT || values[j] >= TOKEN_LIMIT;
        }
    }
    return !beyond;
}

static void write_pass(const Latent *latent, int index, const Pass *pass, int32_t *symbols)
{
    const int width = latent->planes[index].width;
    for (int i = 0; i < pass->height; i++) {
        int32_t *restrict row = symbols + (ptrdiff_t)(pass->top + 2 * i) * width + pass->left;
        const int32_t *values = latent->values + (ptrdiff_t)i * pass->width;
        for (int j = 0, count = pass->width; j < count; j++)
            row[2 * j] = values[j];
    }
}

static int read_bins(Latent *latent, int index, const Pass *pass, const uint8_t *bins)
{
    const int width = latent->planes[index].width;
    uint8_t largest = 0;
    for (int i = 0; i < pass->height; i++) {
        const uint8_t *row = bins + (ptrdiff_t)(pass->top + 2 * i) * width + pass->left;
        uint8_t *restrict own = latent->bins + (ptrdiff_t)i * pass->width;
        for (int j = 0, count = pass->width; j < count; j++) {
            own[j] = row[2 * j];
            largest = own[j] > largest ? own[j] : largest;
        }
    }
    return largest < latent->model->bins;
}

static void write_bins(const Latent *latent, int index, const Pass *pass, uint8_t *bins)
{
    const int width = latent->planes[index].width;
    for (int i = 0; i < pass->height; i++) {
        uint8_t *restrict row = bins + (ptrdiff_t)(pass->top + 2 * i) * width + pass->left;
        const uint8_t *own = latent->bins + (ptrdiff_t)i * pass->width;
        for (int j = 0, count = pass->width; j < count; j++)
            row[2 * j] = own[j];
    }
}

/* Likewise for smooth planes, less their prediction. */

static int read_smooth_pass(Latent *latent, int index, const Pass *pass, const int32_t *symbols)
{
    const Plane *plane = latent->planes + index;
    for (int i = 0; i < pass->height; i++) {
        for (int j = 0; j < pass->width; j++) {
            const int y = pass->top + i * pass->size, x = pass->left + j * pass->size;
            const int64_t value = (int64_t)symbols[(ptrdiff_t)y * plane->width + x] -
                                  prediction_of(symbols, plane, pass, y, x);
            if (value <= -TOKEN_LIMIT || value >= TOKEN_LIMIT)
                return 0;
            latent->values[(ptrdiff_t)i * pass->width + j] = (int32_t)value;
        }
    }
    return 1;
}

static void write_smooth_pass(const Latent *latent, int index, const Pass *pass, int32_t *symbols)
{
    const Plane *plane = latent->planes + index;
    for (int i = 0; i < pass->height; i++) {
        for (int j = 0; j < pass->width; j++) {
            const int y = pass->top + i * pass->size, x = pass->left + j * pass->size;
            symbols[(ptrdiff_t)y * plane->width + x] =
                latent->values[(ptrdiff_t)i * pass->width + j] +
                prediction_of(symbols, plane, pass, y, x);
        }
    }
}

/* Choose latent->values of a detail pass from the plane's exact ones (h, w); bins are known. */
static void choose_pass(Latent *latent, int index, const Pass *pass, const float *exact, float step,
                        float price)
{
    const Model *model = latent->model;
    const int width = latent->planes[index].width, tokens = model->tokens;
    const float *lengths = model->lengths + (ptrdiff_t)index * model->bins * tokens;
    for (int i = 0; i < pass->height; i++) {
        const float *row = exact + (ptrdiff_t)(pass->top + 2 * i) * width + pass->left;
        int32_t *restrict values = latent->values + (ptrdiff_t)i * pass->width;
        const uint8_t *bins = latent->bins + (ptrdiff_t)i * pass->width;
        for (int j = 0, count = pass->width; j < count; j++) {
            const float u = row[2 * j] / step;
            const int32_t magnitude = cheapest(fabsf(u), lengths + bins[j] * tokens, price);
            values[j] = u < 0 ? -magnitude : magnitude;
        }
    }
}

static int any_beyond(const float *exact, ptrdiff_t count, float step)
{
    int beyond = 0;
    for (ptrdiff_t i = 0; i < count; i++)
        beyond |= fabsf(exact[i] / step) > 0.5f;
    return beyond;
}

/* Rounded to the nearest symbol. */
static int32_t whole(float u)
{
    const float rounded = rintf(u);
    return rounded >= LARGEST_SYMBOL    ? LARGEST_SYMBOL
           : rounded > -LARGEST_SYMBOL ? (int32_t)rounded
                                       : -LARGEST_SYMBOL;
}

/* ---------------------------------------------------------------- one latent */

enum { FINE = 0, NO_MEMORY, NO_TOKEN, NO_TABLE, NO_STREAM };

enum { MAX_PASSES = 10 };

/* Symbols (n,) -> words of the encoder, or only costs (planes,) where it is NULL. */
static int encode_latent(Latent *latent, const int32_t *symbols, const uint8_t *bins,
                         Encoder *encoder, int64_t *costs)
{
    const Model *model = latent->model;
    for (int index = 0; index < model->planes; index++) {
        Plane *plane = latent->planes + index;
        const int32_t *own = symbols + plane->start;
        const ptrdiff_t count = (ptrdiff_t)plane->height * plane->width;
        const int smooth = layout_of(model, index)[0];
        int occupied = 0;
        for (ptrdiff_t i = 0; i < count && !occupied; i++)
            occupied = own[i] != 0;
        int octave = latent->step_index / 64;
        if (octave > model->octaves - 1)
            octave = model->octaves - 1;
        if (encoder)
            encode_flag(encoder,
                        65536u - model->occupied[(ptrdiff_t)index * model->octaves + octave],
                        occupied);
        costs[index] = 0;
        if (!occupied)
            continue;
        Pass passes[MAX_PASSES];
        const int number = passes_of(smooth, plane->height, plane->width, passes);
        for (int p = 0; p < number; p++) {
            const Pass *pass = passes + p;
            if (smooth || !bins)
                tables_of(latent, index, pass);
            if (!(smooth ? read_smooth_pass(latent, index, pass, own)
                         : read_pass(latent, index, pass, own)))
                return NO_TOKEN;
            if (!smooth && bins && !read_bins(latent, index, pass, bins + plane->start))
                return NO_TABLE;
            costs[index] += encode_pass(latent, index, pass, encoder);
            put_pass(latent, index, pass);
        }
        close_plane(plane);
    }
    if (encoder) {
        finish(encoder);
        if (encoder->failed)
            return NO_MEMORY;
    }
    return FINE;
}

/* A payload -> the first planes of symbols (n,), which are zero. */
static int decode_latent(Latent *latent, Decoder *decoder, int32_t *symbols, int planes)
{
    const Model *model = latent->model;
    decoder->range = UINT64_MAX;
    decoder->offset = (uint64_t)next_word(decoder) << 32;
    decoder->offset |= next_word(decoder);
    for (int index = 0; index < planes; index++) {
        Plane *plane = latent->planes + index;
        int32_t *own = symbols + plane->start;
        const int smooth = layout_of(model, index)[0];
        int octave = latent->step_index / 64;
        if (octave > model->octaves - 1)
            octave = model->octaves - 1;
        const int occupied = decode_flag(
            decoder, 65536u - model->occupied[(ptrdiff_t)index * model->octaves + octave]);
        if (decoder->failed)
            return NO_STREAM;
        if (!occupied)
            continue;
        Pass passes[MAX_PASSES];
        const int number = passes_of(smooth, plane->height, plane->width, passes);
        for (int p = 0; p < number; p++) {
            const Pass *pass = passes + p;
            tables_of(latent, index, pass);
            decode_pass(latent, index, pass, decoder);
            if (decoder->failed)
                return NO_STREAM;
            put_pass(latent, index, pass);
            if (smooth)
                write_smooth_pass(latent, index, pass, own);
            else
                write_pass(latent, index, pass, own);
        }
        close_plane(plane);
    }
    return FINE;
}

/* Latent values (n,) -> the cheapest symbols (n,) and the tables (n,) met on the way. */
static int choose_latent(Latent *latent, const float *values, float step, float price,
                         int32_t *symbols, uint8_t *bins)
{
    const Model *model = latent->model;
    for (int index = 0; index < model->planes; index++) {
        Plane *plane = latent->planes + index;
        const float *exact = values + plane->start;
        int32_t *own = symbols + plane->start;
        const ptrdiff_t count = (ptrdiff_t)plane->height * plane->width;
        const int smooth = layout_of(model, index)[0];
        Pass passes[MAX_PASSES];
        const int number = passes_of(smooth, plane->height, plane->width, passes);
        if (smooth)
            for (ptrdiff_t i = 0; i < count; i++)
                own[i] = whole(exact[i] / step);
        else
            memset(own, 0, (size_t)count * sizeof *own);
        if (!smooth && !any_beyond(exact, count, step))
            continue; /* no symbol, and no table that would ever be read */
        for (int p = 0; p < number; p++) {
            const Pass *pass = passes + p;
            if (smooth) {
                read_smooth_pass(latent, index, pass, own);
            } else {
                tables_of(latent, index, pass);
                choose_pass(latent, index, pass, exact, step, price);
                write_pass(latent, index, pass, own);
                write_bins(latent, index, pass, bins + plane->start);
            }
            put_pass(latent, index, pass);
        }
        close_plane(plane);
    }
    return FINE;
}

static void free_latent(Latent *latent)
{
    for (int index = 0; latent->planes && index < latent->model->planes; index++) {
        free(latent->planes[index].known);
        free(latent->planes[index].level);
        free(latent->planes[index].box);
    }
    free(latent->planes);
    free(latent->bins);
    free(latent->tokens);
    free(latent->values);
    free(latent->order);
    free(latent->nonzero);
    free(latent->sign_tables);
    free(latent->likely);
}

/* Memory for a latent whose shapes are checked. */
static int make_latent(Latent *latent, const Model *model, const int32_t *shapes, int step_index)
{
    ptrdiff_t start = 0, largest = 1;
    memset(latent, 0, sizeof *latent);
    latent->model = model;
    latent->step_index = step_index;
    for (int value = -CAP; value <= CAP; value++)
        latent->signed_levels[CAP + value] = signed_level_of(value);
    latent->planes = calloc((size_t)model->planes + 1, sizeof *latent->planes);
    if (!latent->planes)
        return NO_MEMORY;
    for (int index = 0; index < model->planes; index++) {
        Plane *plane = latent->planes + index;
        plane->height = shapes[2 * index];
        plane->width = shapes[2 * index + 1];
        plane->start = start;
        start += (ptrdiff_t)plane->height * plane->width;
        const ptrdiff_t rows = (plane->height + 1) / 2, columns = (plane->width + 1) / 2;
        plane->pitch = columns + 2;
        plane->grid = (rows + 2) * plane->pitch;
        const size_t size = (size_t)(4 * plane->grid) + CHUNK; /* contexts_of reads ahead */
        plane->known = calloc(size, sizeof *plane->known);
        plane->level = calloc(size, 1);
        plane->box = calloc(size, 1);
        if (!plane->known || !plane->level || !plane->box)
            return NO_MEMORY;
        largest = rows * columns > largest ? rows * columns : largest;
    }
    const size_t count = (size_t)largest + 1; /* find_nonzero writes one ahead */
    latent->bins = malloc(count);
    latent->tokens = malloc(count);
    latent->values = malloc(count * sizeof *latent->values);
    latent->order = malloc(count * sizeof *latent->order);
    latent->nonzero = malloc(count * sizeof *latent->nonzero);
    latent->sign_tables = malloc(count);
    latent->likely = malloc(count);
    if (!latent->bins || !latent->tokens || !latent->values || !latent->order || !latent->nonzero ||
        !latent->sign_tables || !latent->likely)
        return NO_MEMORY;
    return FINE;
}

/* ---------------------------------------------------------------- Python */

/* A contiguous buffer of exactly `count` items of `size` bytes. */
static int open_buffer(PyObject *object, Py_buffer *view, int writable, const char *name,
                       Py_ssize_t count, Py_ssize_t size)
{
    if (PyObject_GetBuffer(object, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return -1;
    if (view->len == count * size && (uintptr_t)view->buf % (uintptr_t)size == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s has %zd bytes, expected %zd", name, view->len, count * size);
    PyBuffer_Release(view);
    return -1;
}

/* A copy of array `index` of a tuple. */
static void *copied(PyObject *arrays, Py_ssize_t index, Py_ssize_t count, Py_ssize_t size)
{
    char name[32];
    Py_buffer view;
    PyOS_snprintf(name, sizeof name, "array %d", (int)index);
    PyObject *item = PyTuple_GetItem(arrays, index);
    if (!item || open_buffer(item, &view, 0, name, count, size) < 0)
        return NULL;
    void *copy = malloc((size_t)(view.len ? view.len : 1));
    if (copy)
        memcpy(copy, view.buf, (size_t)view.len);
    else
        PyErr_NoMemory();
    PyBuffer_Release(&view);
    return copy;
}

/* Weights (matrices, rows, inputs) -> (matrices, rows / block, pairs, block, 2), filled up. */
static int16_t *copied_weights(PyObject *arrays, Py_ssize_t index, Py_ssize_t matrices, int rows,
                               int inputs, int pairs, int block)
{
    const int blocks = (rows + block - 1) / block;
    int16_t *weights = copied(arrays, index, matrices * rows * inputs, sizeof *weights);
    int16_t *result =
        weights ? calloc((size_t)(matrices * blocks * pairs * block * 2), sizeof *result) : NULL;
    for (Py_ssize_t matrix = 0; result && matrix < matrices; matrix++)
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < inputs; i++)
                result[(((matrix * blocks + row / block) * pairs + i / 2) * block + row % block) * 2 +
                       i % 2] = weights[(matrix * rows + row) * inputs + i];
    if (weights && !result)
        PyErr_NoMemory();
    free(weights);
    return result;
}

/* Biases (count, hidden), every row filled up with zeros to `rows`. */
static int32_t *copied_biases(PyObject *arrays, Py_ssize_t index, Py_ssize_t count, int hidden,
                              int rows)
{
    int32_t *biases = copied(arrays, index, count * hidden, sizeof *biases);
    int32_t *result = biases ? calloc((size_t)(count * rows), sizeof *result) : NULL;
    if (biases && !result)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; result && i < count * hidden; i++) {
        if (biases[i] < -MAX_BIAS || biases[i] > MAX_BIAS) {
            PyErr_Format(PyExc_ValueError, "array %zd holds %d, expected at most %d", index,
                         (int)biases[i], (int)MAX_BIAS);
            free(result);
            result = NULL;
        } else {
            result[i / hidden * rows + i % hidden] = biases[i];
        }
    }
    free(biases);
    return result;
}

/* The six arrays of a network from `first` of the tuple on. */
static int read_network(Network *network, PyObject *arrays, Py_ssize_t first, int planes)
{
    const int hidden = network->hidden, rows = (hidden + BLOCK - 1) / BLOCK * BLOCK;
    network->pairs = (network->inputs + 1) / 2;
    network->rows = rows;
    const int pairs = network->pairs, inputs = network->inputs;
    const Py_ssize_t places = (Py_ssize_t)4 * planes;
    return (network->first = copied_weights(arrays, first, planes, hidden, inputs, pairs, BLOCK)) &&
           (network->first_bias = copied_biases(arrays, first + 1, places, hidden, rows)) &&
           (network->second =
                copied_weights(arrays, first + 2, 1, hidden, hidden, rows / 2, BLOCK)) &&
           (network->second_bias = copied_biases(arrays, first + 3, 1, hidden, rows)) &&
           (network->last = copied_weights(arrays, first + 4, 1, 1, hidden, rows / 2, 1)) &&
           (network->last_bias = copied_biases(arrays, first + 5, places, 1, 1));
}

static void free_network(Network *network)
{
    free(network->first);
    free(network->first_bias);
    free(network->second);
    free(network->second_bias);
    free(network->last);
    free(network->last_bias);
}

static void model_free(PyObject *self)
{
    Model *model = (Model *)self;
    free(model->layout);
    free(model->cumulative);
    free(model->agreement);
    free(model->occupied);
    free(model->costs);
    free(model->sign_costs);
    free(model->lengths);
    free_network(&model->magnitude);
    free_network(&model->sign);
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Frequencies that sum to 2^16 in every row, none zero -> cumulated. */
static uint32_t *cumulated(const uint16_t *frequencies, Py_ssize_t rows, int tokens)
{
    uint32_t *result = malloc((size_t)rows * (size_t)(tokens + 1) * sizeof *result);
    if (!result) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        uint32_t *sums = result + row * (tokens + 1);
        int zeros = 0;
        sums[0] = 0;
        for (int token = 0; token < tokens; token++) {
            sums[token + 1] = sums[token] + frequencies[row * tokens + token];
            zeros += frequencies[row * tokens + token] == 0;
        }
        if (zeros || sums[tokens] != 65536) {
            PyErr_SetString(PyExc_ValueError, "a frequency table has a zero or another sum");
            free(result);
            return NULL;
        }
    }
    return result;
}

static int layout_fits(const Model *model)
{
    for (int index = 0; index < model->planes; index++)
        for (int slot = 1; slot < 1 + PARENTS + SIBLINGS; slot++)
            if (layout_of(model, index)[slot] < -1 || layout_of(model, index)[slot] >= index)
                return 0;
    return 1;
}

static int positive(const uint16_t *numbers, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (!numbers[i])
            return 0;
    return 1;
}

static PyObject *model_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"sizes", "arrays", "portable", NULL};
    int planes, bins, tokens, octaves, classes, sign_bins, bin_shift, sign_shift;
    int inputs, hidden, sign_inputs, sign_hidden, portable = 0;
    PyObject *arrays;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "(iiiiiiiiiiii)O!|p", names, &planes,
                                     &bins, &tokens, &octaves, &classes, &sign_bins, &bin_shift,
                                     &sign_shift, &inputs, &hidden, &sign_inputs, &sign_hidden,
                                     &PyTuple_Type, &arrays, &portable))
        return NULL;
    if (planes < 1 || planes > MAX_PLANES || bins < 3 || bins > MAX_BINS || tokens < LITERALS ||
        tokens > MAX_TOKENS || tokens <= token_of(TOKEN_LIMIT - 1) || octaves < 1 ||
        octaves > 64 || classes < 1 || classes > 16 || sign_bins < 1 || sign_bins > 16 ||
        bin_shift < 0 || bin_shift > 30 || sign_shift < 0 || sign_shift > 30 ||
        inputs != MAGNITUDE_INPUTS || sign_inputs != SIGN_INPUTS || hidden < 1 ||
        hidden > MAX_HIDDEN || sign_hidden < 1 || sign_hidden > MAX_HIDDEN ||
        PyTuple_Size(arrays) != 19) {
        PyErr_SetString(PyExc_ValueError, "the kernel was not built for tables of these sizes");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Model *model = (Model *)allocate(type, 0); /* zeroed */
    if (!model)
        return NULL;
    model->planes = planes;
    model->bins = bins;
    model->tokens = tokens;
    model->octaves = octaves;
    model->classes = classes;
    model->sign_bins = sign_bins;
    model->bin_shift = bin_shift;
    model->sign_shift = sign_shift;
    model->magnitude.inputs = inputs;
    model->magnitude.hidden = hidden;
    model->sign.inputs = sign_inputs;
    model->sign.hidden = sign_hidden;
    model->instructions = portable ? &PORTABLE : best_instructions();
    const Py_ssize_t rows = (Py_ssize_t)planes * bins, signs = (Py_ssize_t)classes * sign_bins;
    uint16_t *frequencies = NULL;
    const int read =
        (model->layout = copied(arrays, 0, planes * (1 + PARENTS + SIBLINGS), 4)) &&
        (frequencies = copied(arrays, 1, rows * tokens, 2)) &&
        (model->cumulative = cumulated(frequencies, rows, tokens)) &&
        (model->agreement = copied(arrays, 2, signs, 2)) &&
        (model->occupied = copied(arrays, 3, (Py_ssize_t)planes * octaves, 2)) &&
        (model->costs = copied(arrays, 4, rows * tokens, 4)) &&
        (model->sign_costs = copied(arrays, 5, 2 * signs, 4)) &&
        (model->lengths = copied(arrays, 6, rows * tokens, 4)) &&
        read_network(&model->magnitude, arrays, 7, planes) &&
        read_network(&model->sign, arrays, 13, planes);
    free(frequencies);
    if (read && (!layout_fits(model) || !positive(model->agreement, signs) ||
                 !positive(model->occupied, (Py_ssize_t)planes * octaves)))
        PyErr_SetString(PyExc_ValueError, "a plane leans on a later one, or a chance is zero");
    if (PyErr_Occurred()) {
        Py_DECREF(model);
        return NULL;
    }
    return (PyObject *)model;
}

/* Number of symbols of a latent of these shapes (planes, 2), or -1 with an error set. */
static Py_ssize_t count_of(const Model *model, const int32_t *shapes)
{
    Py_ssize_t total = 0;
    for (int index = 0; index < model->planes; index++) {
        const int32_t *shape = shapes + 2 * index, *layout = layout_of(model, index);
        int fits = shape[0] >= 0 && shape[0] <= MAX_SIDE && shape[1] >= 0 && shape[1] <= MAX_SIDE;
        for (int slot = 1; fits && slot < 1 + PARENTS + SIBLINGS; slot++) {
            if (layout[slot] < 0)
                continue;
            const int32_t *other = shapes + 2 * layout[slot];
            if (slot < 1 + PARENTS)
                fits = other[0] >= (shape[0] + 1) / 2 && other[1] >= (shape[1] + 1) / 2;
            else
                fits = other[0] == shape[0] && other[1] == shape[1];
        }
        total += fits ? (Py_ssize_t)shape[0] * shape[1] : 0;
        if (!fits || total > MAX_SYMBOLS) {
            PyErr_Format(PyExc_ValueError, "plane %d of %d x %d does not fit the others or is too "
                         "large", index, (int)shape[0], (int)shape[1]);
            return -1;
        }
    }
    return total;
}

static PyObject *outcome(int status)
{
    switch (status) {
    case FINE:
        Py_RETURN_TRUE;
    case NO_STREAM:
        Py_RETURN_FALSE;
    case NO_TOKEN:
        PyErr_Format(PyExc_ValueError, "the magnitude of a symbol is not less than %d", (int)TOKEN_LIMIT);
        return NULL;
    case NO_TABLE:
        PyErr_SetString(PyExc_ValueError, "there is no table of this index");
        return NULL;
    default:
        return PyErr_NoMemory();
    }
}

/* Shapes, copied so that nobody changes them meanwhile, and the number of symbols. */
static int32_t *read_shapes(const Model *model, PyObject *object, int step_index, Py_ssize_t *count)
{
    Py_buffer view;
    if (step_index < 0 || step_index > MAX_STEP_INDEX) {
        PyErr_Format(PyExc_ValueError, "step index is %d, expected 0 to %d", step_index,
                     (int)MAX_STEP_INDEX);
        return NULL;
    }
    if (open_buffer(object, &view, 0, "shapes", 2 * (Py_ssize_t)model->planes, 4) < 0)
        return NULL;
    int32_t *shapes = malloc((size_t)view.len);
    if (shapes)
        memcpy(shapes, view.buf, (size_t)view.len);
    else
        PyErr_NoMemory();
    PyBuffer_Release(&view);
    if (shapes && (*count = count_of(model, shapes)) < 0) {
        free(shapes);
        return NULL;
    }
    return shapes;
}

static PyObject *model_encode(PyObject *self, PyObject *arguments)
{
    const Model *model = (const Model *)self;
    PyObject *symbols_object, *shapes_object, *bins_object, *costs_object, *result = NULL;
    Py_buffer symbols = {0}, bins = {0}, costs = {0};
    int step_index, write;
    Py_ssize_t count = 0;
    if (!PyArg_ParseTuple(arguments, "OOiOpO", &symbols_object, &shapes_object, &step_index,
                          &bins_object, &write, &costs_object))
        return NULL;
    int32_t *shapes = read_shapes(model, shapes_object, step_index, &count);
    if (!shapes)
        return NULL;
    if (open_buffer(symbols_object, &symbols, 0, "symbols", count, 4) == 0 &&
        (bins_object == Py_None || open_buffer(bins_object, &bins, 0, "bins", count, 1) == 0) &&
        open_buffer(costs_object, &costs, 1, "costs", model->planes, 8) == 0) {
        Latent latent;
        Encoder encoder = {.range = UINT64_MAX};
        int status;
        Py_BEGIN_ALLOW_THREADS;
        status = make_latent(&latent, model, shapes, step_index);
        if (status == FINE)
            status = encode_latent(&latent, symbols.buf, bins.buf, write ? &encoder : NULL,
                                   costs.buf);
        free_latent(&latent);
        size_t size = 0;
        for (size_t i = 0; i < encoder.count; i++) { /* little-endian, in place */
            const uint32_t word = encoder.words[i];
            uint8_t *bytes = (uint8_t *)(encoder.words + i);
            for (int byte = 0; byte < 4; byte++) {
                bytes[byte] = (uint8_t)(word >> (8 * byte));
                if (bytes[byte])
                    size = 4 * i + (size_t)byte + 1; /* zeros at the end are not written */
            }
        }
        encoder.count = size;
        Py_END_ALLOW_THREADS;
        if (status == FINE)
            result = PyBytes_FromStringAndSize((const char *)encoder.words,
                                               (Py_ssize_t)encoder.count);
        else
            outcome(status);
        free(encoder.words);
    }
    free(shapes);
    PyBuffer_Release(&symbols);
    PyBuffer_Release(&bins);
    PyBuffer_Release(&costs);
    return result;
}

static PyObject *model_decode(PyObject *self, PyObject *arguments)
{
    const Model *model = (const Model *)self;
    PyObject *data_object, *symbols_object, *shapes_object, *result = NULL;
    Py_buffer data = {0}, symbols = {0};
    int step_index, planes;
    Py_ssize_t count = 0;
    if (!PyArg_ParseTuple(arguments, "SOOii", &data_object, &symbols_object, &shapes_object,
                          &step_index, &planes))
        return NULL;
    int32_t *shapes = read_shapes(model, shapes_object, step_index, &count);
    if (!shapes)
        return NULL;
    if (planes < 0 || planes > model->planes) {
        PyErr_Format(PyExc_ValueError, "%d planes, expected 0 to %d", planes, model->planes);
    } else if (PyObject_GetBuffer(data_object, &data, PyBUF_SIMPLE) == 0 &&
               open_buffer(symbols_object, &symbols, 1, "symbols", count, 4) == 0) {
        Latent latent;
        Decoder decoder = {.data = data.buf, .left = (size_t)data.len};
        int status;
        Py_BEGIN_ALLOW_THREADS;
        status = make_latent(&latent, model, shapes, step_index);
        if (status == FINE)
            status = decode_latent(&latent, &decoder, symbols.buf, planes);
        free_latent(&latent);
        Py_END_ALLOW_THREADS;
        result = outcome(status);
    }
    free(shapes);
    PyBuffer_Release(&data);
    PyBuffer_Release(&symbols);
    return result;
}

static PyObject *model_optimise(PyObject *self, PyObject *arguments)
{
    const Model *model = (const Model *)self;
    PyObject *values_object, *shapes_object, *symbols_object, *bins_object, *result = NULL;
    Py_buffer values = {0}, symbols = {0}, bins = {0};
    float step, price;
    int step_index;
    Py_ssize_t count = 0;
    if (!PyArg_ParseTuple(arguments, "OOiffOO", &values_object, &shapes_object, &step_index, &step,
                          &price, &symbols_object, &bins_object))
        return NULL;
    int32_t *shapes = read_shapes(model, shapes_object, step_index, &count);
    if (!shapes)
        return NULL;
    if (open_buffer(values_object, &values, 0, "values", count, 4) == 0 &&
        open_buffer(symbols_object, &symbols, 1, "symbols", count, 4) == 0 &&
        open_buffer(bins_object, &bins, 1, "bins", count, 1) == 0) {
        Latent latent;
        int status;
        Py_BEGIN_ALLOW_THREADS;
        status = make_latent(&latent, model, shapes, step_index);
        if (status == FINE)
            status = choose_latent(&latent, values.buf, step, price, symbols.buf, bins.buf);
        free_latent(&latent);
        Py_END_ALLOW_THREADS;
        result = outcome(status);
    }
    free(shapes);
    PyBuffer_Release(&values);
    PyBuffer_Release(&symbols);
    PyBuffer_Release(&bins);
    return result;
}

static PyMethodDef MODEL_METHODS[] = {
    {"encode", model_encode, METH_VARARGS,
     "encode(symbols, shapes, step_index, bins or None, write, costs) -> bytes"},
    {"decode", model_decode, METH_VARARGS,
     "decode(data, symbols, shapes, step_index, planes) -> whether the bytes are a latent"},
    {"optimise", model_optimise, METH_VARARGS,
     "optimise(values, shapes, step_index, step, price, symbols, bins) -> True"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot MODEL_SLOTS[] = {
    {Py_tp_doc, "Tables and layout of one codec, copied and checked; see linocut.entropy.kernel."},
    {Py_tp_new, model_new},
    {Py_tp_dealloc, model_free},
    {Py_tp_methods, MODEL_METHODS},
    {0, NULL},
};

static PyType_Spec MODEL_SPEC = {
    .name = "linocut.entropy._kernel.Model",
    .basicsize = sizeof(Model),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = MODEL_SLOTS,
};

static int start_module(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &MODEL_SPEC, NULL);
    const int status = type ? PyModule_AddObjectRef(module, "Model", type) : -1;
    Py_XDECREF(type);
    if (status < 0 || PyModule_AddIntConstant(module, "interface", INTERFACE) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "instructions", best_instructions()->name);
}

static PyModuleDef_Slot MODULE_SLOTS[] = {
    {Py_mod_exec, start_module},
    {0, NULL},
};

static struct PyModuleDef MODULE = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "linocut.entropy._kernel",
    .m_doc = "Entropy coding in C; see linocut.entropy.kernel.",
    .m_slots = MODULE_SLOTS,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&MODULE);
}
