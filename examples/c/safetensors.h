/* Files of named tensors: eight bytes with the length of a header, the header in JSON, the numbers.
 *
 * Reads any file without harm: what is not as it should be is refused, with a line that says what.
 * Numbers are taken as they lie in the file, so the machine has to be little-endian. */

#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>

enum { MOST_AXES = 8 };

struct tensor {
    char *name;
    char dtype[8]; /* "F32", "F64", … */
    size_t axes, shape[MOST_AXES];
    size_t count;              /* of numbers */
    size_t begin, end;         /* within the numbers of the file */
    const unsigned char *data; /* not aligned: memcpy before use */
};

struct word {
    char *name, *value;
};

struct tensors {
    struct tensor *list; /* by name */
    size_t count;
    struct word *metadata;
    size_t words;
    unsigned char *content;
    char problem[160]; /* why it could not be read */
};

/* Read a file; false, with the problem, if it is not there or damaged. Free it in either case. */
bool tensors_read(struct tensors *file, const char *path);
void tensors_free(struct tensors *file);

/* The tensor of this name, or NULL. */
const struct tensor *tensors_find(const struct tensors *file, const char *name);

/* The metadata of this name, or NULL. */
const char *tensors_metadata(const struct tensors *file, const char *name);

/* Write tensors (name, dtype, axes, shape, data and count of 4-byte numbers) under a temporary name,
 * then rename. False, and nothing is there, if that fails. */
bool tensors_write(const char *path, const struct tensor *list, size_t count);

#endif
