/* A pass, and a whole latent: encoded, decoded, chosen. */

/* ---------------------------------------------------------------- the trellis
 *
 * A symbol of a detail plane is a level, a multiple of the spacing. One of two quantisers is in force
 * at each symbol: number 0 has the even levels, number 1 the odd ones and zero. What is coded is
 * which of its levels, a magnitude k; the parities of all magnitudes before say which is in force. */

enum { LARGEST_MAGNITUDE = 16382, LARGEST_SIZE = 65536 };

static inline int quantiser_of(int state)
{
    return state & 1;
}

static inline int next_state(int state, int32_t magnitude)
{
    return (2 * state & 6) | ((magnitude ^ state >> 1 ^ state >> 2) & 1);
}

static inline int32_t level_at(int quantiser, int32_t magnitude)
{
    return magnitude ? 2 * magnitude - quantiser : 0;
}

static inline int32_t magnitude_of(int32_t level)
{
    return (abs(level) + 1) >> 1;
}

/* Row of a symbol's table in the model's tables. */
static inline ptrdiff_t row_of(const Latent *latent, int index, int smooth, int bin)
{
    const int quantiser = smooth ? 0 : quantiser_of(latent->state);
    return ((ptrdiff_t)index * QUANTISERS + quantiser) * latent->model->bins + bin;
}

enum { FINE = 0, NO_MEMORY, NO_TOKEN, NO_PATH, NO_TABLE, NO_STREAM };

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

/* Code latent->values of a pass, or only count where there is no encoder; bins are known. Adds the
 * cost in 2^-20 bit. */
static int encode_pass(Latent *latent, int index, const Pass *pass, Encoder *encoder, int64_t *costs)
{
    const Model *model = latent->model;
    const ptrdiff_t count = (ptrdiff_t)pass->height * pass->width;
    const int smooth = layout_of(model, index)[0];
    int64_t cost = 0, bits = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        const int32_t value = latent->values[i];
        const int32_t magnitude = smooth ? abs(value) : magnitude_of(value);
        const int token = token_of(magnitude), extra = extra_bits_of(token);
        const ptrdiff_t row = row_of(latent, index, smooth, latent->bins[i]);
        if (!smooth && value && (value & 1) != quantiser_of(latent->state))
            return NO_PATH;
        latent->tokens[i] = (uint8_t)token;
        latent->state = next_state(latent->state, magnitude);
        cost += model->costs[row * model->tokens + token];
        bits += extra;
        if (encoder) {
            const uint32_t *cumulative = model->cumulative + row * (model->tokens + 1);
            const uint32_t start = cumulative[token];
            encode_interval(encoder, start << 8, (cumulative[token + 1] - start) << 8);
            if (extra)
                encode_interval(encoder, (uint32_t)(magnitude - start_of(token)) << (24 - extra),
                                UINT32_C(1) << (24 - extra));
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
            const int other = latent->likely[i] ^ (latent->values[latent->nonzero[i]] < 0);
            cost += model->sign_costs[2 * latent->sign_tables[i] + other];
            if (encoder)
                encode_flag(encoder, model->agreement[latent->sign_tables[i]], other);
        }
    }
    *costs += cost + bits * COST_UNIT;
    return FINE;
}

/* Decode a pass into latent->values. */
static void decode_pass(Latent *latent, int index, const Pass *pass, Decoder *decoder)
{
    const Model *model = latent->model;
    const ptrdiff_t count = (ptrdiff_t)pass->height * pass->width;
    const int smooth = layout_of(model, index)[0];
    for (ptrdiff_t i = 0; i < count; i++) {
        const ptrdiff_t row = row_of(latent, index, smooth, latent->bins[i]);
        const int quantiser = quantiser_of(latent->state);
        const uint32_t *cumulative = model->cumulative + row * (model->tokens + 1);
        const int token = decode_symbol(decoder, cumulative, model->tokens);
        int32_t magnitude = token;
        if (token >= LITERALS)
            magnitude = start_of(token) + (int32_t)decode_bits(decoder, extra_bits_of(token));
        latent->tokens[i] = (uint8_t)token;
        latent->values[i] = smooth ? magnitude : level_at(quantiser, magnitude);
        latent->state = next_state(latent->state, magnitude);
        if (decoder->failed)
            return;
    }
    const ptrdiff_t found = find_nonzero(latent, count);
    if (!smooth)
        signs_of(latent, index, pass, found);
    for (ptrdiff_t i = 0; i < found; i++) {
        const int other = smooth ? decode_flag(decoder, 32768)
                                 : decode_flag(decoder, model->agreement[latent->sign_tables[i]]);
        if (smooth ? other : other != latent->likely[i])
            latent->values[latent->nonzero[i]] *= -1;
    }
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
                put_value(plane, pass->top + i * pass->size, pass->left + j * pass->size,
                          values[j]);
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

/* The cheapest magnitude of one parity for size >= 0 (in spacings) in one quantiser, given the bits of
 * the tokens of its table: the nearest one, the next smaller, or zero. */
static float cheapest(float size, int quantiser, int parity, const float *lengths, float price,
                      int32_t *chosen)
{
    const float half = 0.25f * (size + (float)(quantiser - 2 * parity));
    const float rounded = rintf(half);
    int32_t nearest = rounded < LARGEST_MAGNITUDE / 2 ? (int32_t)rounded : LARGEST_MAGNITUDE / 2;
    nearest = 2 * (nearest < 0 ? 0 : nearest) + parity;
    float lowest = 0.0f;
    for (int lower = 0; lower <= 2; lower++) {
        const int32_t magnitude = lower < 2 ? nearest - 2 * lower : 0;
        if (lower && (magnitude < 0 || (lower == 2 && (parity || nearest < 4))))
            break;
        const int token = token_of(magnitude);
        const float bits = lengths[token] + (float)(extra_bits_of(token) + (magnitude > 0));
        const float error = size - (float)level_at(quantiser, magnitude);
        const float square = error * error, paid = price * bits;
        const float cost = square + paid;
        if (!lower || cost < lowest) {
            lowest = cost;
            *chosen = magnitude;
        }
    }
    return lowest;
}

/* Choose latent->values of a detail pass from the plane's exact ones (h, w): the path of least cost
 * through the trellis, from latent->state to where it ends best. Bins are known. */
static void choose_pass(Latent *latent, int index, const Pass *pass, const float *exact,
                        float spacing, float price)
{
    const Model *model = latent->model;
    const int width = latent->planes[index].width;
    const ptrdiff_t count = (ptrdiff_t)pass->height * pass->width;
    float costs[STATES];
    for (int state = 0; state < STATES; state++)
        costs[state] = state == latent->state ? 0.0f : INFINITY;
    for (ptrdiff_t i = 0, column = pass->width, row = -1; i < count; i++, column++) {
        if (column == pass->width) {
            column = 0;
            row++;
        }
        const float exact_one = exact[(pass->top + 2 * row) * width + pass->left + 2 * column];
        const float u = exact_one / spacing, far = fabsf(u);
        const float size = far < LARGEST_SIZE ? far : LARGEST_SIZE;
        float prices[QUANTISERS][2], next[STATES];
        int32_t(*choices)[2] = latent->choices[i];
        for (int quantiser = 0; quantiser < QUANTISERS; quantiser++) {
            const ptrdiff_t table =
                ((ptrdiff_t)index * QUANTISERS + quantiser) * model->bins + latent->bins[i];
            for (int parity = 0; parity < 2; parity++)
                prices[quantiser][parity] =
                    cheapest(size, quantiser, parity, model->lengths + table * model->tokens, price,
                             &choices[quantiser][parity]);
        }
        latent->values[i] = u < 0 ? -1 : 1;
        uint8_t decisions = 0;
        for (int state = 0; state < STATES; state++) {
            const int low = state >> 1, parity = (state ^ state >> 2) & 1;
            const float first = costs[low] + prices[low & 1][parity];
            const float second = costs[low + 4] + prices[low & 1][!parity];
            decisions |= (uint8_t)((second < first) << state);
            next[state] = second < first ? second : first;
        }
        latent->decisions[i] = decisions;
        float least = 0.0f;
        if (i % SETTLE == SETTLE - 1) {
            least = next[0];
            for (int state = 1; state < STATES; state++)
                least = next[state] < least ? next[state] : least;
        }
        for (int state = 0; state < STATES; state++)
            costs[state] = next[state] - least;
    }
    int state = 0;
    for (int other = 1; other < STATES; other++)
        if (costs[other] < costs[state])
            state = other;
    latent->state = state;
    for (ptrdiff_t i = count - 1; i >= 0; i--) {
        const int before = state >> 1 | (latent->decisions[i] >> state & 1) << 2;
        const int quantiser = quantiser_of(before);
        const int parity = (state ^ before >> 1 ^ before >> 2) & 1;
        latent->values[i] *= level_at(quantiser, latent->choices[i][quantiser][parity]);
        state = before;
    }
}

static int any_beyond(const float *exact, ptrdiff_t count, float spacing)
{
    int beyond = 0;
    for (ptrdiff_t i = 0; i < count; i++)
        beyond |= fabsf(exact[i] / spacing) > 1.0f;
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
        latent->state = 0;
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
            const int status = encode_pass(latent, index, pass, encoder, costs + index);
            if (status != FINE)
                return status;
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
        latent->state = 0;
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
static int choose_latent(Latent *latent, const float *values, float step, float spacing, float price,
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
        latent->state = 0;
        if (!smooth && !any_beyond(exact, count, spacing))
            continue; /* no symbol, and no table that would ever be read */
        for (int p = 0; p < number; p++) {
            const Pass *pass = passes + p;
            if (smooth) {
                read_smooth_pass(latent, index, pass, own);
            } else {
                tables_of(latent, index, pass);
                choose_pass(latent, index, pass, exact, spacing, price);
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
    free(latent->choices);
    free(latent->decisions);
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
    latent->choices = malloc(count * sizeof *latent->choices);
    latent->decisions = malloc(count);
    latent->nonzero = malloc(count * sizeof *latent->nonzero);
    latent->sign_tables = malloc(count);
    latent->likely = malloc(count);
    if (!latent->bins || !latent->tokens || !latent->values || !latent->choices || !latent->decisions || !latent->nonzero ||
        !latent->sign_tables || !latent->likely)
        return NO_MEMORY;
    return FINE;
}
