/* Run the LSTM of lstm.c on every case of a set of vectors, and hold each number against its band. */

#include "lstm.h"
#include "safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PART "lstm/float32/"
#define FILE_OF_SET "lstm-float32.safetensors"
#define FORMAT "1"

enum { PASS = 0, FAIL = 1, UNREADABLE = 2 };
enum { LONGEST_NAME = 256, QUANTITIES = 11 };

static const char *const faults[] = {
    [FORGET_DERIVATIVE] = "forget-derivative", [TANH_DERIVATIVE] = "tanh-derivative",
    [DROPPED_CARRY] = "dropped-carry",         [TRANSPOSED] = "transposed",
    [STATE_AFTER] = "state-after",             [BIAS_ASSIGNED] = "bias-assigned",
};
enum { FAULTS = sizeof faults / sizeof *faults };

/* One quantity over all cases. */
struct row {
    const char *name;
    double worst; /* error in units of the band; at most 1 passes */
    char where[LONGEST_NAME + 32];
};

struct program {
    struct tensors set;
    enum fault fault;
    struct row rows[QUANTITIES];
    struct tensor *results; /* of all cases */
    size_t count;
    size_t cases;
};

static void stop(const char *what, const char *problem)
{
    fprintf(stderr, "lstm: %s: %s\n", what, problem);
    exit(UNREADABLE);
}

static void *checked(void *memory)
{
    if (!memory)
        stop("memory", "there is none left");
    return memory;
}

static float *floats(size_t count) { return checked(calloc(count ? count : 1, sizeof(float))); }

/* The tensor `<case>/<group>/<name>` of the set, which has to have this dtype and shape. */
static const struct tensor *wanted(const struct program *p, const char *place, const char *group,
                                   const char *name, const char *dtype, size_t axes,
                                   const size_t *shape)
{
    char full[LONGEST_NAME + 64];
    snprintf(full, sizeof full, "%s/%s/%s", place, group, name);
    const struct tensor *found = tensors_find(&p->set, full);
    if (!found)
        stop(full, "no such tensor in the set");
    if (strcmp(found->dtype, dtype) != 0 || found->axes != axes)
        stop(full, "has another dtype or another number of axes than expected");
    for (size_t k = 0; k < axes; k++)
        if (found->shape[k] != shape[k])
            stop(full, "has another shape than expected");
    return found;
}

static float *read_floats(const struct program *p, const char *place, const char *group,
                          const char *name, size_t axes, const size_t *shape)
{
    const struct tensor *found = wanted(p, place, group, name, "F32", axes, shape);
    float *copy = floats(found->count);
    memcpy(copy, found->data, found->count * sizeof *copy);
    return copy;
}

static double read_double(const struct tensor *from, size_t at)
{
    double number;
    memcpy(&number, from->data + at * sizeof number, sizeof number);
    return number;
}

/* The sizes of a case; T, B and D are those of x, and H is that of h_0. */
static struct sizes sizes_of(const struct program *p, const char *place)
{
    char name[LONGEST_NAME + 64];
    snprintf(name, sizeof name, "%s/input/x", place);
    const struct tensor *x = tensors_find(&p->set, name);
    snprintf(name, sizeof name, "%s/input/h0", place);
    const struct tensor *h0 = tensors_find(&p->set, name);
    if (!x || !h0 || x->axes != 3 || h0->axes != 2 || !x->count || !h0->count)
        stop(place, "its inputs x (T, B, D) and h0 (B, H) are not as expected");
    return (struct sizes){x->shape[0], x->shape[1], x->shape[2], h0->shape[1]};
}

/* |got - value| in units of the band: infinite for NaN, and where the band is 0 and they differ. */
static double error_of(double got, double value, double band)
{
    if (got == value)
        return 0;
    double error = fabs(got - value) / band;
    return isnan(error) ? INFINITY : error;
}

/* Hold one result against value and band, and keep it; takes the memory of `got`. */
static void judge(struct program *p, const char *place, int row_number, const char *name,
                  float *got, size_t axes, const size_t *shape)
{
    const struct tensor *value = wanted(p, place, "expected", name, "F64", axes, shape);
    const struct tensor *band = wanted(p, place, "band", name, "F64", axes, shape);
    struct row *row = &p->rows[row_number];

    row->name = name;
    for (size_t k = 0; k < value->count; k++) {
        const double expected = read_double(value, k), allowed = read_double(band, k);
        if (!isfinite(expected) || !isfinite(allowed) || allowed < 0)
            stop(value->name, "expected finite values, and bands of at least 0");
        const double error = error_of(got[k], expected, allowed);
        if (error > row->worst) {
            row->worst = error;
            snprintf(row->where, sizeof row->where, "%s, entry %zu", place + strlen(PART), k);
        }
    }

    const size_t length = strlen(place) + strlen(name) + 2;
    p->results = checked(realloc(p->results, (p->count + 1) * sizeof *p->results));
    struct tensor *result = &p->results[p->count++];
    memset(result, 0, sizeof *result);
    result->name = checked(malloc(length));
    snprintf(result->name, length, "%s/%s", place, name);
    strcpy(result->dtype, "F32");
    result->axes = axes;
    memcpy(result->shape, shape, axes * sizeof *shape);
    result->count = value->count;
    result->data = (const unsigned char *)got;
}

static void run(struct program *p, const char *place)
{
    const struct sizes n = sizes_of(p, place);
    const size_t T = n.T, B = n.B, D = n.D, H = n.H;
    const size_t TBD[] = {T, B, D}, TBH[] = {T, B, H}, TB4H[] = {T, B, 4 * H};
    const size_t BH[] = {B, H}, U[] = {4 * H, D}, W[] = {4 * H, H}, b[] = {4 * H};

    float *const given[] = {
        read_floats(p, place, "input", "x", 3, TBD),
        read_floats(p, place, "input", "h0", 2, BH),
        read_floats(p, place, "input", "c0", 2, BH),
        read_floats(p, place, "input", "U", 2, U),
        read_floats(p, place, "input", "W", 2, W),
        read_floats(p, place, "input", "b", 1, b),
        read_floats(p, place, "cotangent", "h", 3, TBH),
        read_floats(p, place, "cotangent", "c", 3, TBH),
        read_floats(p, place, "cotangent", "h_last", 2, BH),
        read_floats(p, place, "cotangent", "c_last", 2, BH),
    };
    const double offset =
        read_double(wanted(p, place, "option", "forget_offset", "F64", 0, NULL), 0);
    const struct inputs in = {given[0], given[1], given[2], given[3],
                              given[4], given[5], (float)offset};
    const struct cotangents d = {given[6], given[7], given[8], given[9]};

    /* expected has the same shapes, so they are checked before anything is made of these sizes */
    wanted(p, place, "expected", "h", "F64", 3, TBH);
    wanted(p, place, "expected", "delta", "F64", 3, TB4H);
    const struct states kept = {floats(T * B * 4 * H), floats(T * B * H), floats(T * B * H)};
    const struct gradients out = {
        floats(T * B * 4 * H), floats(T * B * D), floats(B * H),  floats(B * H),
        floats(4 * H * D),     floats(4 * H * H), floats(4 * H),
    };
    float *h_last = floats(B * H), *c_last = floats(B * H);

    lstm_forward(n, &in, &kept);
    lstm_backward(n, &in, &kept, &d, &out, p->fault);
    memcpy(h_last, kept.h + (T - 1) * B * H, B * H * sizeof(float));
    memcpy(c_last, kept.c + (T - 1) * B * H, B * H * sizeof(float));

    judge(p, place, 0, "h", kept.h, 3, TBH);
    judge(p, place, 1, "c", kept.c, 3, TBH);
    judge(p, place, 2, "h_last", h_last, 2, BH);
    judge(p, place, 3, "c_last", c_last, 2, BH);
    judge(p, place, 4, "delta", out.delta, 3, TB4H);
    judge(p, place, 5, "dx", out.x, 3, TBD);
    judge(p, place, 6, "dh0", out.h0, 2, BH);
    judge(p, place, 7, "dc0", out.c0, 2, BH);
    judge(p, place, 8, "dU", out.U, 2, U);
    judge(p, place, 9, "dW", out.W, 2, W);
    judge(p, place, 10, "db", out.b, 1, b);
    p->cases++;

    free(kept.gates);
    for (size_t k = 0; k < sizeof given / sizeof *given; k++)
        free(given[k]);
}

static void run_all(struct program *p)
{
    static const char ending[] = "/input/x";
    for (size_t k = 0; k < p->set.count; k++) {
        const char *name = p->set.list[k].name;
        const size_t length = strlen(name), tail = sizeof ending - 1;
        char place[LONGEST_NAME];
        if (strncmp(name, PART, strlen(PART)) != 0 || length < tail + strlen(PART) ||
            strcmp(name + length - tail, ending) != 0)
            continue;
        if (length - tail >= sizeof place)
            stop(FILE_OF_SET, "the name of a case is too long");
        memcpy(place, name, length - tail);
        place[length - tail] = '\0';
        run(p, place);
    }
}

static int report(const struct program *p)
{
    bool all = true;
    printf("%-8s %16s\n", "", "error in bands");
    for (int k = 0; k < QUANTITIES; k++) {
        const struct row *row = &p->rows[k];
        const bool pass = row->worst <= 1;
        all = all && pass;
        printf("%-8s %16.4g  %s%s%s\n", row->name, row->worst, pass ? "pass" : "FAIL",
               pass ? "" : "  worst in ", pass ? "" : row->where);
    }
    printf("%s  %zu cases\n", all ? "PASS" : "FAIL", p->cases);
    return all ? PASS : FAIL;
}

static enum fault fault_named(const char *name)
{
    for (int k = 1; k < FAULTS; k++)
        if (strcmp(name, faults[k]) == 0)
            return (enum fault)k;
    stop("--fault", "expected forget-derivative, tanh-derivative, dropped-carry, transposed, "
                    "state-after or bias-assigned");
    return NONE;
}

int main(int count, char **words)
{
    struct program p = {.fault = NONE};
    const char *folder = NULL, *output = NULL;

    for (int k = 1; k < count; k++) {
        if (strcmp(words[k], "--fault") == 0 && k + 1 < count)
            p.fault = fault_named(words[++k]);
        else if (strcmp(words[k], "--out") == 0 && k + 1 < count)
            output = words[++k];
        else if (!folder && words[k][0] != '-')
            folder = words[k];
        else
            folder = NULL, k = count;
    }
    if (!folder)
        stop("usage", "lstm SET [--out FILE] [--fault NAME]");

    const size_t room = strlen(folder) + sizeof FILE_OF_SET + 1;
    char *path = checked(malloc(room));
    snprintf(path, room, "%s/%s", folder, FILE_OF_SET);
    if (!tensors_read(&p.set, path))
        stop(path, p.set.problem);
    const char *format = tensors_metadata(&p.set, "bptt-vectors");
    if (!format || strcmp(format, FORMAT) != 0)
        stop(path, "is of another format than " FORMAT);
    run_all(&p);
    if (!p.cases)
        stop(path, "has no case of " PART);
    const int verdict = report(&p);
    if (output && !tensors_write(output, p.results, p.count))
        stop(output, "cannot be written");

    for (size_t k = 0; k < p.count; k++) {
        free(p.results[k].name);
        free((void *)p.results[k].data);
    }
    free(p.results);
    free(path);
    tensors_free(&p.set);
    return verdict;
}
