/* What is known of a latent, and the tables and likely signs that follow from it. */

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
    int state; /* of the trellis, in the plane that is being coded */
    int16_t signed_levels[2 * CAP + 1]; /* of -CAP .. CAP */
    /* Of one pass, in its raster order: */
    uint8_t *bins, *tokens;
    int32_t *values;
    int32_t (*choices)[QUANTISERS][2]; /* the best magnitudes by quantiser and parity */
    uint8_t *decisions;                /* for each state, whether its path came from 4 or more */
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
                agreement[lane] = (int16_t)(agreement[lane] +
                                            sign_of(x[k][lane]) * sign_of(other[lane]));
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
            const int32_t size = abs(latent->values[latent->nonzero[start + lane]]);
            const int kind = (size < model->classes ? size : model->classes) - 1;
            const int sure = abs(numbers[lane]) >> model->sign_shift;
            const int bin = sure < model->sign_bins ? sure : model->sign_bins - 1;
            latent->sign_tables[start + lane] = (uint8_t)(kind * model->sign_bins + bin);
            latent->likely[start + lane] = numbers[lane] < 0;
        }
    }
}
