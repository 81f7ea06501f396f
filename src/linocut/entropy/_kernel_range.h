/* Tokens, the order of passes and of symbols in them, and the range coder. */

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
