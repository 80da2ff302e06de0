# 1 "canary.c"
struct distmesh_canary { double weight; float share; long long count; unsigned char bytes[13]; };
static const char *const distmesh_names[] = {"gcc", "clang", "\303\244"};
extern int distmesh_outside(const char *, ...);
unsigned long long distmesh_mix(unsigned long long value, unsigned turns) {
    while (turns--) {
        value ^= value >> 33;
        value *= 0xff51afd7ed558ccdULL;
        value = (value << 7) | (value >> 57);
    }
    return value % 1000003u;
}
double distmesh_sum(const double *values, int count) {
    double sum = 0.1;
    int index;
    for (index = 0; index < count; index++) sum += values[index] * 1.5 - (float)values[index] / 3;
    return sum;
}
int distmesh_choose(int which, struct distmesh_canary canary) {
    switch (which) {
    case 0: return (int)canary.weight;
    case 1: return (int)(canary.share * 7);
    case 2: return (int)canary.count / 10;
    case 3: return canary.bytes[which * 2];
    case 4: return distmesh_outside(distmesh_names[which & 1], canary.count);
    case 5: return distmesh_names[2][0];
    default: return which << 3 ^ which;
    }
}
enum distmesh_kind { distmesh_small, distmesh_large = 200 };
struct distmesh_pair { enum distmesh_kind kind; char letter; short values[3]; };
int distmesh_global;
static int distmesh_square(int value) { return value * value; }
int distmesh_inlined(const struct distmesh_pair *pair) {
    return distmesh_square(pair->kind) + distmesh_square(pair->letter) + pair->values[distmesh_global & 1];
}
int distmesh_grows(int value) { return value + 1 > value; }
int distmesh_aliased(int *one, float *other) { *one = 1; *other = 2; return *one; }
int distmesh_checked(int *pointer) { int value = *pointer; return pointer ? value : -1; }
int distmesh_buffered(const char *text) { char copy[64]; return distmesh_outside(copy, text, text[0] < 0); }
double distmesh_fused(double one, double other, double more) { return one * other + more; }
