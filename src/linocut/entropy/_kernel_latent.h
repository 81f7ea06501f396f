/* A pass, and a whole latent: encoded, decoded, chosen. */

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
