/* Entropy coding of a latent in one call: what linocut.entropy.passes does with numpy, in C.
 *
 *   symbols --> planes, each as its four grids (every second sample of every second row)
 *     |           | contexts_of: levels around 64 symbols of a grid, structure of arrays
 *     |         x (inputs, 64) int16
 *     |           | network: 16 symbols at a time, whole numbers      [skipped where x is all zero]
 *     |         table of each symbol
 *     |           | of its quantiser, which the symbols before have put in force
 *     v           v
 *   token, extra bits, sign <--range coder (64-bit state, words of 32 bits)--> bytes
 *
 * One unit of compilation: limits and Python's side here, the rest in the headers in the order of
 * the data's flow: _kernel_model.h, _kernel_contexts.h, _kernel_range.h, _kernel_latent.h.
 *
 * The same bytes as numpy's form on every machine: all numbers are whole but for the choice of
 * symbols (Viterbi along a pass, see linocut.entropy.trellis), whose few float operations are IEEE's
 * and written in numpy's order (compile without contraction to fused operations).
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
    INTERFACE = 3, /* as in kernel.py; raised when what it passes changes */

    MAX_PLANES = 4096,
    MAX_SIDE = 1 << 14, /* of a plane, samples */
    MAX_SYMBOLS = 1 << 27,
    MAX_STEP_INDEX = 1023,
    MAX_INPUTS = 64,
    MAX_HIDDEN = 64,
    MAX_BIAS = 1 << 28, /* sums stay in 32 bits: 64 * 255 * 2^15 + 2^28 < 2^30 */
    MAX_BINS = 32,
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
    QUANTISERS = 2,
    STATES = 8,
    SETTLE = 64, /* symbols after which the paths' costs are made small again */
    COST_UNIT = 1 << 20,
};

#include "_kernel_model.h"
#include "_kernel_contexts.h"
#include "_kernel_range.h"
#include "_kernel_latent.h"

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
            for (int i = 0; i < inputs; i++) {
                const Py_ssize_t pair = (matrix * blocks + row / block) * pairs + i / 2;
                result[(pair * block + row % block) * 2 + i % 2] =
                    weights[(matrix * rows + row) * inputs + i];
            }
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
    const Py_ssize_t rows = (Py_ssize_t)planes * QUANTISERS * bins, signs = (Py_ssize_t)classes * sign_bins;
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
        PyErr_Format(PyExc_ValueError, "the magnitude of a symbol is not less than %d",
                     (int)TOKEN_LIMIT);
        return NULL;
    case NO_PATH:
        PyErr_SetString(PyExc_ValueError, "a symbol lies beside the path of its quantisers");
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
    float step, spacing, price;
    int step_index;
    Py_ssize_t count = 0;
    if (!PyArg_ParseTuple(arguments, "OOifffOO", &values_object, &shapes_object, &step_index,
                          &step, &spacing, &price, &symbols_object, &bins_object))
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
            status = choose_latent(&latent, values.buf, step, spacing, price, symbols.buf,
                                   bins.buf);
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
     "optimise(values, shapes, step_index, step, spacing, price, symbols, bins) -> True"},
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
