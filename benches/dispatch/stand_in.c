/* Takes the place of a compiler: writes an "object" of OBJECT bytes to where -o says, and reads nothing. It takes well under a
 * millisecond, always the same, so that what is measured is the way there and back. */
#include <string.h>
#include <stdio.h>

static char object[OBJECT];

int main(int argc, char **argv)
{
    const char *to = NULL;
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "-o") == 0)
            to = argv[i + 1];
    memset(object, 'o', sizeof object);
    FILE *out = to ? fopen(to, "w") : NULL;
    if (!out || fwrite(object, sizeof object, 1, out) != 1 || fclose(out))
        return 1;
    return 0;
}
