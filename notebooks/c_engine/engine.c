/* An engine of one's own in C, judged through pipes. It computes linear and conv2d in int8 the way FBGEMM does:

       cc -O3 -march=native -ffp-contract=off -fwrapv engine.c -lm -o engine
       refquant gen --op linear --op conv2d --numerics fbgemm --cases 300 | ./engine | refquant check

   It reads the stream of problems on stdin and writes the stream of results to stdout; the format stands in refquant/verify/stream.py.
   With --fault NAME it makes one mistake on purpose, which refquant check finds and names:

       half-away      rounds ties away from zero, not to even
       truncate       rounds toward zero
       zero-before    adds the zero point before rounding
       bias-after     adds the bias after scaling, in units of the output
       no-zero        forgets the activation's zero point
       pairs          adds products in pairs that saturate at int16, as vpmaddubsw does without VNNI
       tail           leaves out what lies beyond whole blocks of 16 in a longer sum
       neighbour      scales each channel by the next channel's scale
*/

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The stream. A little-endian machine is taken for granted. */

enum { UINT8 = 1, INT8, INT32, FLOAT32, FLOAT64 };

typedef struct { char name[24]; uint32_t dtype, ndim; uint64_t shape[5]; } Field;
typedef struct { char tag[4]; uint32_t fields; uint64_t bytes; } Start;
typedef struct { uint32_t line, check; } More;

static enum { NONE, HALF_AWAY, TRUNCATE, ZERO_BEFORE, BIAS_AFTER, NO_ZERO, PAIRS, TAIL, NEIGHBOUR, FAULTS } fault = NONE;
static const char *fault_names[] = { "", "half-away", "truncate", "zero-before", "bias-after", "no-zero", "pairs", "tail", "neighbour" };

static void fail(const char *why) { fprintf(stderr, "engine: %s\n", why); exit(2); }

static void take(void *to, size_t size) { if (fread(to, 1, size, stdin) != size) fail("the stream of problems ends too early"); }

static void give(const void *from, size_t size)
{
    static const char zeros[8];
    if (fwrite(from, 1, size, stdout) != size || fwrite(zeros, 1, -size % 8, stdout) != -size % 8) fail("nobody reads the results");
}

static void *room(size_t size) { void *p = malloc(size ? size : 1); if (!p) fail("no memory"); return p; }

static size_t elements(const Field *f) { size_t n = 1; for (uint32_t i = 0; i < f->ndim; i++) n *= f->shape[i]; return n; }

static size_t width(const Field *f) { return f->dtype == FLOAT64 ? 8 : f->dtype >= INT32 ? 4 : 1; }

static const void *data(const Field *f) { return f + 1; }

/* Fields lie one after the other in `body`. */
static const Field *find(const char *body, uint32_t count, const char *name)
{
    for (; count; count--) {
        const Field *f = (const Field *)body;
        if (strncmp(f->name, name, sizeof f->name) == 0) return f;
        body += sizeof *f + (elements(f) * width(f) + 7) / 8 * 8;
    }
    return NULL;
}

/* A layer: a product of two matrices of codes, and its output stage. */

typedef struct {
    const Field *x, *w, *bias, *out_scale;
    float sx, sy;
    const double *sw;
    const int32_t *zw;
    int per_channel, zx, zy, low, high, relu, real;
    size_t channels, depth;
    int16_t *rows;                  /* weights less their zero points */
} Layer;

static int16_t code(const Field *f, size_t i) { return f->dtype == INT8 ? ((const int8_t *)data(f))[i] : ((const uint8_t *)data(f))[i]; }

static double number(const Field *f) { return f->dtype == FLOAT64 ? *(const double *)data(f) : *(const int32_t *)data(f); }

static int read_layer(Layer *l, const char *body, uint32_t count)
{
    l->x = find(body, count, "x"), l->w = find(body, count, "w"), l->bias = find(body, count, "bias"), l->out_scale = find(body, count, "out.scale");
    const Field *sw = find(body, count, "w.scale"), *zw = find(body, count, "w.zero_point"), *sx = find(body, count, "x.scale"), *zx = find(body, count, "x.zero_point");
    if (!l->x || !l->w || !sw || !zw || !sx || !zx) return 0;
    l->sx = (float)number(sx), l->zx = fault == NO_ZERO ? 0 : (int)number(zx);
    l->sw = data(sw), l->zw = data(zw), l->per_channel = sw->ndim == 1;
    l->relu = find(body, count, "activation") != NULL, l->real = l->out_scale == NULL;
    if (!l->real) {
        const int32_t *range = data(find(body, count, "out.range"));
        l->sy = (float)number(l->out_scale), l->zy = (int)number(find(body, count, "out.zero_point"));
        l->high = range[1], l->low = l->relu && l->zy > range[0] ? l->zy : range[0];
    }
    l->channels = l->w->shape[0], l->depth = elements(l->w) / (l->channels ? l->channels : 1);
    l->rows = room(elements(l->w) * sizeof *l->rows);
    for (size_t n = 0, i = 0; n < l->channels; n++)
        for (size_t k = 0; k < l->depth; k++, i++) l->rows[i] = code(l->w, i) - l->zw[l->per_channel ? n : 0];
    return 1;
}

static int32_t dot(const int16_t *a, const int16_t *b, size_t depth)
{
    int32_t sum = 0;
    if (fault == TAIL && depth > 16) depth -= depth % 16;
    for (size_t k = 0; k < depth; k++) sum += a[k] * b[k];
    return sum;
}

/* What vpmaddubsw leaves of raw codes; the zero points are taken out afterwards. */
static int32_t dot_pairs(const int16_t *a, const int16_t *b, size_t depth, int zx, int zw)
{
    int32_t sum = 0;
    for (size_t k = 0; k < depth; k += 2) {
        int32_t pair = 0;
        for (size_t i = k; i < k + 2 && i < depth; i++) {
            pair += (a[i] + zx) * (b[i] + zw);
            sum -= zw * (a[i] + zx) + zx * b[i];
        }
        sum += pair > 32767 ? 32767 : pair < -32768 ? -32768 : pair;
    }
    return sum;
}

typedef struct { float scale, bias, factor, after; int32_t add; } Stage;

static Stage stage_of(const Layer *l, size_t n)
{
    size_t s = l->per_channel ? (fault == NEIGHBOUR ? (n + 1) % l->channels : n) : 0;
    float product = l->sx * (float)l->sw[s];
    Stage stage = { l->real ? product : product / l->sy, 0, 1, 0, 0 };
    if (!l->bias) return stage;
    if (l->bias->dtype == INT32) { stage.add = ((const int32_t *)data(l->bias))[n]; return stage; }
    float bias = ((const float *)data(l->bias))[n];
    if (l->real) stage.after = bias;
    else if (fault == BIAS_AFTER) stage.after = bias / l->sy;
    else if (l->per_channel) stage.bias = bias / product;
    else stage.bias = bias, stage.factor = 1 / product;
    return stage;
}

static void store(const Layer *l, const Stage *s, int32_t acc, void *y, size_t i)
{
    float v = (float)(acc + s->add);
    if (l->real) {
        v = s->after ? fmaf(v, s->scale, s->after) : v * s->scale;
        ((float *)y)[i] = l->relu && !(v > 0) ? 0 : v;
        return;
    }
    v = fmaf(s->bias, s->factor, v) * s->scale + s->after;
    if (fault == ZERO_BEFORE) v += l->zy;
    v = fault == HALF_AWAY ? roundf(v) : fault == TRUNCATE ? truncf(v) : rintf(v);
    int64_t q = v >= -2147483648.f && v < 2147483648.f ? (int64_t)v : INT32_MIN;
    if (fault != ZERO_BEFORE) q += l->zy;
    ((uint8_t *)y)[i] = (uint8_t)(q < l->low ? l->low : q > l->high ? l->high : q);
}

/* One vector of codes, less their zero point, against channels n0 … n1; their outputs lie `apart` from each other. */
static void outputs(const Layer *l, const Stage *stages, const int16_t *a, size_t n0, size_t n1, void *y, size_t at, size_t apart)
{
    int pairs = fault == PAIRS && l->x->dtype == UINT8 && l->w->dtype == INT8;
    for (size_t n = n0; n < n1; n++, at += apart) {
        const int16_t *row = l->rows + n * l->depth;
        store(l, stages + n, pairs ? dot_pairs(a, row, l->depth, l->zx, l->zw[l->per_channel ? n : 0]) : dot(a, row, l->depth), y, at);
    }
}

static void linear(const Layer *l, const Stage *stages, void *y)
{
    size_t rows = l->depth ? elements(l->x) / l->depth : l->x->shape[0];
    int16_t *a = room(l->depth * sizeof *a);
    for (size_t m = 0; m < rows; m++) {
        for (size_t k = 0; k < l->depth; k++) a[k] = code(l->x, m * l->depth + k) - l->zx;
        outputs(l, stages, a, 0, l->channels, y, m * l->channels, 1);
    }
    free(a);
}

/* Stride, padding, dilation: a number, or one for either axis. */
typedef struct { int64_t v[2]; } Pair;

static Pair pair(const char *body, uint32_t count, const char *name, int64_t usual)
{
    const Field *f = find(body, count, name);
    const int32_t *v = f ? data(f) : NULL;
    return v ? (Pair){{ v[0], v[f->ndim ? f->shape[0] - 1 : 0] }} : (Pair){{ usual, usual }};
}

static void conv2d(const Layer *l, const Stage *stages, const uint64_t *out, Pair s, Pair p, Pair d, size_t groups, void *y)
{
    const uint64_t *in = l->x->shape, *kernel = l->w->shape;
    size_t each = l->channels / groups;
    int16_t *a = room(l->depth * sizeof *a);
    for (size_t b = 0; b < in[0]; b++) for (size_t g = 0; g < groups; g++) for (uint64_t i = 0; i < out[2]; i++) for (uint64_t j = 0; j < out[3]; j++) {
        size_t k = 0;
        for (size_t c = 0; c < kernel[1]; c++) for (uint64_t u = 0; u < kernel[2]; u++) for (uint64_t v = 0; v < kernel[3]; v++, k++) {
            int64_t row = (int64_t)i * s.v[0] - p.v[0] + (int64_t)u * d.v[0], column = (int64_t)j * s.v[1] - p.v[1] + (int64_t)v * d.v[1];
            int inside = row >= 0 && row < (int64_t)in[2] && column >= 0 && column < (int64_t)in[3];
            a[k] = inside ? code(l->x, ((b * in[1] + g * kernel[1] + c) * in[2] + row) * in[3] + column) - l->zx : 0;
        }
        outputs(l, stages, a, g * each, (g + 1) * each, y, ((b * l->channels + g * each) * out[2] + i) * out[3] + j, out[2] * out[3]);
    }
    free(a);
}

static void result(const More *more, const char *line, const Field *y, const void *content)
{
    size_t lines = (more->line + 7) / 8 * 8, bytes = y ? elements(y) * width(y) : 0;
    Start start = { "RSLT", y != NULL, lines + (y ? sizeof *y + (bytes + 7) / 8 * 8 : 0) };
    give(&start, sizeof start), give(more, sizeof *more), give(line, lines);
    if (y) give(y, sizeof *y), give(content, bytes);
}

static void answer(const Start *start, const More *more, const char *body)
{
    const char *fields = body + (more->line + 7) / 8 * 8;
    uint32_t count = start->fields;
    Layer l = { 0 };
    int is_linear = strncmp(body, "linear/", 7) == 0, is_conv = strncmp(body, "conv2d/", 7) == 0;
    const Field *g = find(fields, count, "groups");
    size_t groups = g ? (size_t)number(g) : 1;
    /* FBGEMM has kernels of another kind for depthwise convolutions; this engine has none. */
    if (!(is_linear || (is_conv && groups == 1)) || !read_layer(&l, fields, count)) { result(more, body, NULL, NULL); return; }
    Field y = { "y", l.real ? FLOAT32 : l.x->dtype, l.x->ndim, { 0 } };
    memcpy(y.shape, l.x->shape, sizeof y.shape);
    Pair s = pair(fields, count, "stride", 1), p = pair(fields, count, "padding", 0), d = pair(fields, count, "dilation", 1);
    y.shape[is_linear ? l.x->ndim - 1 : 1] = l.channels;
    for (int i = 0; is_conv && i < 2; i++)
        y.shape[2 + i] = (l.x->shape[2 + i] + 2 * p.v[i] - d.v[i] * (l.w->shape[2 + i] - 1) - 1) / s.v[i] + 1;
    Stage *stages = room(l.channels * sizeof *stages);
    for (size_t n = 0; n < l.channels; n++) stages[n] = stage_of(&l, n);
    void *content = room(elements(&y) * width(&y));
    if (is_linear) linear(&l, stages, content); else conv2d(&l, stages, y.shape, s, p, d, groups, content);
    result(more, body, &y, content);
    free(content), free(stages), free(l.rows);
}

static void choose_fault(int argc, char **argv)
{
    for (int i = 1; argc == 3 && i < FAULTS; i++)
        if (strcmp(argv[1], "--fault") == 0 && strcmp(argv[2], fault_names[i]) == 0) fault = i;
    if (argc > 1 && fault == NONE) {
        fputs("usage: engine [--fault NAME], NAME one of", stderr);
        for (int i = 1; i < FAULTS; i++) fprintf(stderr, " %s", fault_names[i]);
        fail("");
    }
}

int main(int argc, char **argv)
{
    struct { char magic[8]; uint32_t version, kind; } header;
    Start start;
    More more;
    char *body = NULL;
    size_t space = 0;
    choose_fault(argc, argv);
    setvbuf(stdin, NULL, _IOFBF, 1 << 20), setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    take(&header, sizeof header);
    if (memcmp(header.magic, "RQSTREAM", 8) || header.version != 1 || header.kind != 1) fail("stdin must be a stream of problems, version 1");
    header.kind = 2;
    give(&header, sizeof header);
    for (take(&start, sizeof start); memcmp(start.tag, "CASE", 4) == 0; take(&start, sizeof start)) {
        take(&more, sizeof more);
        if (start.bytes > space) { free(body); body = room(space = start.bytes); }
        take(body, start.bytes);
        answer(&start, &more, body);
    }
    if (memcmp(start.tag, "DONE", 4)) fail("a record must begin with CASE or DONE");
    give(&start, sizeof start);     /* the end, with the number of cases */
    free(body);
    return fflush(stdout) ? 2 : 0;
}
