#include "safetensors.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_HEADER = 100000000, LONGEST_FILE = 1 << 30 };

static size_t size_of(const char *dtype)
{
    static const struct {
        const char *name;
        size_t size;
    } known[] = {
        {"F64", 8}, {"I64", 8}, {"U64", 8}, {"F32", 4}, {"I32", 4},  {"U32", 4}, {"F16", 2},
        {"BF16", 2}, {"I16", 2}, {"U16", 2}, {"I8", 1}, {"U8", 1}, {"BOOL", 1},
    };
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (strcmp(known[k].name, dtype) == 0)
            return known[k].size;
    return 0;
}

/* --- the header: as much of JSON as such files have --- */

struct reader {
    const unsigned char *at, *end;
    struct tensors *file;
};

static bool fail(struct tensors *file, const char *problem)
{
    if (!file->problem[0]) /* the first one is the cause */
        snprintf(file->problem, sizeof file->problem, "%s", problem);
    return false;
}

static bool next_is(struct reader *in, char wanted)
{
    while (in->at < in->end && strchr(" \t\r\n", *in->at) && *in->at)
        in->at++;
    return in->at < in->end && *in->at == (unsigned char)wanted;
}

static bool take(struct reader *in, char wanted)
{
    if (!next_is(in, wanted))
        return false;
    in->at++;
    return true;
}

static bool expect(struct reader *in, char wanted)
{
    return take(in, wanted) || fail(in->file, "the header is not the JSON that it should be");
}

/* A string, to be freed. Escapes are those of a quote, a slash and a backslash. */
static char *text(struct reader *in)
{
    if (!expect(in, '"'))
        return NULL;
    const unsigned char *close = in->at;
    while (close < in->end && *close != '"') {
        if (*close < ' ' || (*close == '\\' && (close + 1 == in->end || !strchr("\"\\/", close[1]) ||
                                                !close[1]))) {
            fail(in->file, "a name in the header has a character that is not read here");
            return NULL;
        }
        close += *close == '\\' ? 2 : 1;
    }
    if (close >= in->end) {
        fail(in->file, "the header ends within a name");
        return NULL;
    }
    char *found = malloc((size_t)(close - in->at) + 1), *to = found;
    if (!found) {
        fail(in->file, "out of memory");
        return NULL;
    }
    for (; in->at < close; in->at++) {
        if (*in->at == '\\')
            in->at++;
        *to++ = (char)*in->at;
    }
    *to = '\0';
    in->at = close + 1;
    return found;
}

static bool number(struct reader *in, size_t *found)
{
    (void)next_is(in, '0'); /* passes over spaces */
    if (in->at == in->end || *in->at < '0' || *in->at > '9')
        return fail(in->file, "the header lacks a whole number where there should be one");
    for (*found = 0; in->at < in->end && *in->at >= '0' && *in->at <= '9'; in->at++) {
        size_t digit = (size_t)(*in->at - '0');
        if (*found > (SIZE_MAX - digit) / 10)
            return fail(in->file, "a number in the header is too large");
        *found = *found * 10 + digit;
    }
    return true;
}

static bool numbers(struct reader *in, size_t *found, size_t most, size_t *count)
{
    *count = 0;
    if (!expect(in, '['))
        return false;
    if (take(in, ']'))
        return true;
    do {
        if (*count == most)
            return fail(in->file, "a list in the header is too long");
        if (!number(in, &found[(*count)++]))
            return false;
    } while (take(in, ','));
    return expect(in, ']');
}

/* {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, in any order */
static bool fields(struct reader *in, struct tensor *found)
{
    size_t offsets[2], axes = 0, ends = 0;
    bool dtype = false, shape = false;

    if (!expect(in, '{'))
        return false;
    do {
        char *name = text(in);
        bool sound = name && expect(in, ':');
        if (sound && strcmp(name, "dtype") == 0 && !dtype) {
            char *kind = text(in);
            sound = dtype = kind && strlen(kind) < sizeof found->dtype;
            if (sound)
                strcpy(found->dtype, kind);
            free(kind);
        } else if (sound && strcmp(name, "shape") == 0 && !shape) {
            sound = shape = numbers(in, found->shape, MOST_AXES, &axes);
        } else if (sound && strcmp(name, "data_offsets") == 0 && !ends) {
            sound = numbers(in, offsets, 2, &ends) && ends == 2;
        } else {
            sound = false;
        }
        free(name);
        if (!sound)
            return fail(in->file, "a tensor in the header is not described as it should be");
    } while (take(in, ','));
    if (!expect(in, '}'))
        return false;
    if (!dtype || !shape || !ends || offsets[0] > offsets[1])
        return fail(in->file, "a tensor in the header lacks its dtype, shape or place");

    const size_t size = size_of(found->dtype);
    if (!size)
        return fail(in->file, "a tensor has a dtype that is not read here");
    found->count = 1;
    for (size_t k = 0; k < axes; k++) {
        if (found->shape[k] && found->count > SIZE_MAX / size / found->shape[k])
            return fail(in->file, "a tensor is too large");
        found->count *= found->shape[k];
    }
    if (found->count * size != offsets[1] - offsets[0])
        return fail(in->file, "a tensor has more or fewer bytes than its shape says");
    found->axes = axes;
    found->begin = offsets[0];
    found->end = offsets[1];
    return true;
}

/* Room for one more; the list grows twofold. */
static bool room(struct tensors *file, void **list, size_t count, size_t size)
{
    if (count & (count - 1)) /* no power of two: there is room */
        return true;
    void *larger = realloc(*list, (count ? 2 * count : 1) * size);
    if (!larger)
        return fail(file, "out of memory");
    *list = larger;
    return true;
}

static bool metadata(struct reader *in)
{
    struct tensors *file = in->file;
    if (!expect(in, '{'))
        return false;
    if (take(in, '}'))
        return true;
    do {
        void *list = file->metadata;
        if (!room(file, &list, file->words, sizeof *file->metadata))
            return false;
        file->metadata = list;
        struct word *word = &file->metadata[file->words++];
        word->value = NULL;
        word->name = text(in);
        if (!word->name || !expect(in, ':') || !(word->value = text(in)))
            return false;
    } while (take(in, ','));
    return expect(in, '}');
}

static bool header(struct reader *in)
{
    struct tensors *file = in->file;
    if (!expect(in, '{'))
        return false;
    if (!take(in, '}')) {
        do {
            char *name = text(in);
            if (!name)
                return false;
            if (strcmp(name, "__metadata__") == 0) {
                free(name);
                if (!expect(in, ':') || !metadata(in))
                    return false;
                continue;
            }
            void *list = file->list;
            if (!room(file, &list, file->count, sizeof *file->list)) {
                free(name);
                return false;
            }
            file->list = list;
            struct tensor *tensor = &file->list[file->count++];
            memset(tensor, 0, sizeof *tensor);
            tensor->name = name;
            if (!expect(in, ':') || !fields(in, tensor))
                return false;
        } while (take(in, ','));
        if (!expect(in, '}'))
            return false;
    }
    (void)next_is(in, ' ');
    return in->at == in->end || fail(file, "there is more in the header than there should be");
}

/* --- the file --- */

static int by_place(const void *a, const void *b)
{
    const struct tensor *one = a, *other = b;
    if (one->begin != other->begin)
        return one->begin < other->begin ? -1 : 1;
    return (one->end > other->end) - (one->end < other->end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static bool content(struct tensors *file, const char *path, size_t *length)
{
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return fail(file, "cannot be opened");
    size_t room = 1 << 16, got = 0;
    bool sound = (file->content = malloc(room)) || fail(file, "out of memory");
    *length = 0;
    while (sound && (got = fread(file->content + *length, 1, room - *length, stream)) > 0) {
        *length += got;
        if (*length < room)
            continue;
        unsigned char *larger = room < LONGEST_FILE ? realloc(file->content, room *= 2) : NULL;
        if (larger)
            file->content = larger;
        else
            sound = fail(file, "is too large");
    }
    if (sound && ferror(stream))
        sound = fail(file, "cannot be read");
    fclose(stream);
    return sound;
}

bool tensors_read(struct tensors *file, const char *path)
{
    size_t length, name_bytes = 0;
    memset(file, 0, sizeof *file);
    if (!content(file, path, &length))
        return false;
    if (length < 8)
        return fail(file, "is too short for a safetensors file");
    for (int k = 8; k-- > 0;) {
        if (name_bytes > LONGEST_HEADER)
            break;
        name_bytes = name_bytes << 8 | file->content[k];
    }
    if (name_bytes > LONGEST_HEADER || name_bytes > length - 8)
        return fail(file, "is shorter than its header says");

    struct reader in = {file->content + 8, file->content + 8 + name_bytes, file};
    if (!header(&in))
        return false;

    /* each byte of the rest belongs to one tensor */
    const unsigned char *data = in.end;
    size_t place = 0, rest = length - 8 - name_bytes;
    if (file->count)
        qsort(file->list, file->count, sizeof *file->list, by_place);
    for (size_t k = 0; k < file->count; k++) {
        if (file->list[k].begin != place || file->list[k].end > rest)
            return fail(file, "is truncated, or its tensors overlap or leave gaps");
        place = file->list[k].end;
        file->list[k].data = data + file->list[k].begin;
    }
    if (place != rest)
        return fail(file, "has bytes that belong to no tensor");
    if (file->count)
        qsort(file->list, file->count, sizeof *file->list, by_name);
    for (size_t k = 1; k < file->count; k++)
        if (by_name(&file->list[k - 1], &file->list[k]) == 0)
            return fail(file, "has two tensors of one name");
    return true;
}

void tensors_free(struct tensors *file)
{
    for (size_t k = 0; k < file->count; k++)
        free(file->list[k].name);
    for (size_t k = 0; k < file->words; k++) {
        free(file->metadata[k].name);
        free(file->metadata[k].value);
    }
    free(file->list);
    free(file->metadata);
    free(file->content);
}

const struct tensor *tensors_find(const struct tensors *file, const char *name)
{
    struct tensor wanted = {.name = (char *)name};
    if (!file->count)
        return NULL;
    return bsearch(&wanted, file->list, file->count, sizeof *file->list, by_name);
}

const char *tensors_metadata(const struct tensors *file, const char *name)
{
    for (size_t k = 0; k < file->words; k++)
        if (strcmp(file->metadata[k].name, name) == 0)
            return file->metadata[k].value;
    return NULL;
}

/* --- writing --- */

static void put_name(FILE *stream, const char *name)
{
    putc('"', stream);
    for (; *name; name++) {
        if (*name == '"' || *name == '\\')
            putc('\\', stream);
        putc(*name, stream);
    }
    putc('"', stream);
}

bool tensors_write(const char *path, const struct tensor *list, size_t count)
{
    static const char ending[] = ".part";
    char *temporary = malloc(strlen(path) + sizeof ending);
    if (!temporary)
        return false;
    strcpy(temporary, path);
    strcat(temporary, ending);
    FILE *stream = fopen(temporary, "wb");
    if (!stream) {
        free(temporary);
        return false;
    }

    unsigned char length[8] = {0};
    fwrite(length, 1, sizeof length, stream); /* its place; the number comes last */
    putc('{', stream);
    size_t place = 0;
    for (size_t k = 0; k < count; k++) {
        if (k)
            putc(',', stream);
        put_name(stream, list[k].name);
        fprintf(stream, ":{\"dtype\":\"%s\",\"shape\":[", list[k].dtype);
        for (size_t j = 0; j < list[k].axes; j++)
            fprintf(stream, "%s%zu", j ? "," : "", list[k].shape[j]);
        fprintf(stream, "],\"data_offsets\":[%zu,%zu]}", place, place + 4 * list[k].count);
        place += 4 * list[k].count;
    }
    putc('}', stream);
    long header = ftell(stream) - 8;
    for (; header > 0 && header % 8; header++) /* so that the numbers are aligned */
        putc(' ', stream);
    for (size_t k = 0; k < count; k++)
        fwrite(list[k].data, 4, list[k].count, stream);
    for (int k = 0; k < 8; k++)
        length[k] = (unsigned char)((uint64_t)header >> 8 * k & 255);
    bool sound = header > 0 && fseek(stream, 0, SEEK_SET) == 0;
    fwrite(length, 1, sizeof length, stream);
    sound = !ferror(stream) && sound;
    sound = fclose(stream) == 0 && sound;
    sound = sound && rename(temporary, path) == 0;
    if (!sound)
        remove(temporary);
    free(temporary);
    return sound;
}
