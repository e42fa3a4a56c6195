/* Runs the kernels of a program on buffers from standard input, and writes the buffers back.

   It reads numbers of 64 bits: entries of the table of pointers, bytes of scratch, calls, buffers;
   for each buffer its entry, its bytes and what lies there; then for each call the kernel and its
   units. Every buffer and the scratch lie between red zones; a zone that is not whole is exit code 3. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void kernel(void **table, int64_t lo, int64_t hi, void *scratch);
extern kernel *KERNELS[];

enum { ZONE = 256, MARK = 0xA5 };

static int64_t number(void) {
    int64_t n;
    if (fread(&n, sizeof n, 1, stdin) != 1) exit(2);
    return n;
}

static unsigned char *place(int64_t bytes) {
    unsigned char *memory = aligned_alloc(64, (bytes + 2 * ZONE + 63) / 64 * 64);
    memset(memory, MARK, bytes + 2 * ZONE);
    return memory + ZONE;
}

static void intact(const unsigned char *data, int64_t bytes) {
    for (int i = 1; i <= ZONE; i++)
        if (data[-i] != MARK || data[bytes + i - 1] != MARK) exit(3);
}

int main(void) {
    int64_t entries = number(), scratch_bytes = number(), calls = number(), count = number();
    void **table = calloc(entries, sizeof *table);
    int64_t *entry = calloc(count, sizeof *entry), *bytes = calloc(count, sizeof *bytes);
    unsigned char *scratch = place(scratch_bytes);
    for (int64_t i = 0; i < count; i++) {
        entry[i] = number();
        bytes[i] = number();
        table[entry[i]] = place(bytes[i]);
        if (bytes[i] && fread(table[entry[i]], bytes[i], 1, stdin) != 1) exit(2);
    }
    for (int64_t i = 0; i < calls; i++) {
        int64_t which = number(), units = number();
        int64_t middle = units / 2;
        KERNELS[which](table, middle, units, scratch);
        KERNELS[which](table, 0, middle, scratch);
    }
    intact(scratch, scratch_bytes);
    for (int64_t i = 0; i < count; i++) {
        intact(table[entry[i]], bytes[i]);
        fwrite(table[entry[i]], 1, bytes[i], stdout);
    }
    return 0;
}
