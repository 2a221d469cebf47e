// 3x3 convolutions of stride 1 and 2 with Winograd's minimal filtering, F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms
// for Convolutional Neural Networks", CVPR 2016): a tile of 4x4 results takes 36 multiplications per channel, not 144.
//
// Maps are channels last. Tiles are processed in small blocks whose data fit in a core's cache: their inputs are
// transformed, multiplied by the transformed weights (36 matrix products, 81 at stride 2), and transformed back; bias,
// leaky ReLU and the sum with another map are applied before the results are stored. Arithmetic is float32 for all types
// of maps.
//
// The gradient of the weights is the transposed algorithm: the gradients of the results are transformed, multiplied by
// the transformed inputs, summed over the tiles, and transformed back once.
//
// GCC's vector extensions process 16 (or 8) channels at once on any processor.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

// With -DNARROW, vectors have 8 channels, for maps whose number of channels is not a multiple of 16.
#if defined(__AVX512F__)
#if defined(NARROW)
constexpr int LANES = 8, ROWS = 12;
#else
constexpr int LANES = 16, ROWS = 12;  // rows of a register block: 12 * 2 accumulators of 32 registers
#endif
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 5;
#else
constexpr int LANES = 8, ROWS = 6;
#endif
constexpr int TILE = 4;

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));

struct bfloat16 {
    uint16_t bits;
};

inline Vector load(const float *at) { return *reinterpret_cast<const Unaligned *>(at); }

inline Vector load(const bfloat16 *at) {
    const Words wide = __builtin_convertvector(*reinterpret_cast<const Halves *>(at), Words) << 16;
    return (Vector)wide;
}

inline void store(float *at, Vector value) { *reinterpret_cast<Unaligned *>(at) = value; }

inline void store(bfloat16 *at, Vector value) {
    const Words bits = (Words)value;
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Words quiet = (bits >> 16) | 0x40;  // rounding could turn a NaN into a number
    *reinterpret_cast<Halves *>(at) = __builtin_convertvector(value == value ? rounded : quiet, Halves);
}

// Stride 1, F(4, 3) on each axis: 6 products for 4 results, with the points 0, 1, -1, 2, -2 and infinity.
struct Unstrided {
    static constexpr int STEP = 1, READ = 6, POINTS = 6;

    static void input(const Vector d[READ], Vector out[POINTS]) {
        const Vector p = d[4] - 4.f * d[2], q = d[3] - 4.f * d[1], r = d[4] - d[2], s = 2.f * (d[3] - d[1]);
        out[0] = 4.f * d[0] - 5.f * d[2] + d[4];
        out[1] = p + q;
        out[2] = p - q;
        out[3] = r + s;
        out[4] = r - s;
        out[5] = 4.f * d[1] - 5.f * d[3] + d[5];
    }

    static void weight(const Vector g[3], Vector out[POINTS]) {
        const Vector even = g[0] + g[2], wide = g[0] + 4.f * g[2];
        out[0] = g[0] * (1.f / 4);
        out[1] = (even + g[1]) * (-1.f / 6);
        out[2] = (even - g[1]) * (-1.f / 6);
        out[3] = (wide + 2.f * g[1]) * (1.f / 24);
        out[4] = (wide - 2.f * g[1]) * (1.f / 24);
        out[5] = g[2];
    }

    static void result(const Vector m[POINTS], Vector out[TILE]) {
        const Vector a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
        out[0] = m[0] + a + c;
        out[1] = b + 2.f * d;
        out[2] = a + 4.f * c;
        out[3] = b + 8.f * d + m[5];
    }

    // The transpose of result().
    static void result_gradient(const Vector g[TILE], Vector out[POINTS]) {
        const Vector s = g[0] + g[2], t = g[1] + g[3], u = g[0] + 4.f * g[2], v = 2.f * g[1] + 8.f * g[3];
        out[0] = g[0];
        out[1] = s + t;
        out[2] = s - t;
        out[3] = u + v;
        out[4] = u - v;
        out[5] = g[3];
    }

    // The transpose of weight().
    static void weight_gradient(const Vector m[POINTS], Vector out[3]) {
        const Vector near = (m[1] + m[2]) * (1.f / 6), far = m[3] + m[4];
        out[0] = m[0] * (1.f / 4) - near + far * (1.f / 24);
        out[1] = (m[2] - m[1]) * (1.f / 6) + (m[3] - m[4]) * (1.f / 12);
        out[2] = far * (1.f / 6) - near + m[5];
    }
};

// Stride 2: each result reads two of the five values at even positions, F(4, 2) with the points 0, 1, -1, 2 and
// infinity, and one of the four at odd positions. 9 products for 4 results, against 12 of the direct computation.
struct Strided {
    static constexpr int STEP = 2, READ = 9, POINTS = 9;

    static void input(const Vector d[READ], Vector out[POINTS]) {
        const Vector a = d[0], b = d[2], c = d[4], e = d[6], f = d[8];
        out[0] = 2.f * (a - c) + e - b;
        out[1] = e - c - 2.f * b;
        out[2] = e - 3.f * c + 2.f * b;
        out[3] = e - b;
        out[4] = f - 2.f * (e - b) - c;
        for (int i = 0; i < TILE; i++) out[5 + i] = d[2 * i + 1];
    }

    static void weight(const Vector g[3], Vector out[POINTS]) {
        out[0] = g[0] * (1.f / 2);
        out[1] = (g[0] + g[2]) * (-1.f / 2);
        out[2] = (g[0] - g[2]) * (-1.f / 6);
        out[3] = (g[0] + 2.f * g[2]) * (1.f / 6);
        out[4] = g[2];
        for (int i = 0; i < TILE; i++) out[5 + i] = g[1];
    }

    static void result(const Vector m[POINTS], Vector out[TILE]) {
        const Vector sum = m[1] + m[2], difference = m[1] - m[2];
        out[0] = m[0] + sum + m[3] + m[5];
        out[1] = difference + 2.f * m[3] + m[6];
        out[2] = sum + 4.f * m[3] + m[7];
        out[3] = difference + 8.f * m[3] + m[4] + m[8];
    }
};

// HALVES is the width of a panel of results in vectors: two, or one for the last panel.

// result[0..ROWS)[0..PANEL) = left[0..ROWS)[0..depth) * right[0..depth)[0..PANEL)
template <int HALVES>
inline void multiply(const float *__restrict left, ptrdiff_t stride, const float *__restrict right, int64_t depth,
                     float *__restrict result) {
    constexpr int PANEL = HALVES * LANES;
    Vector sums[ROWS][HALVES] = {};
    for (int64_t k = 0; k < depth; k++, right += PANEL) {
        Vector with[HALVES];
        for (int half = 0; half < HALVES; half++) with[half] = load(right + half * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
            const float scale = left[i * stride + k];
            for (int half = 0; half < HALVES; half++) sums[i][half] += scale * with[half];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
        for (int half = 0; half < HALVES; half++) store(result + i * PANEL + half * LANES, sums[i][half]);
}

struct Shape {
    int64_t batch, height, width, inputs, outputs;  // of the input map, and channels
    int64_t above, below, left, right;              // rows and columns of padding
    int64_t reflect;                                // padding by reflection (of at most one row or column), or by zeros
    int64_t step;                                   // stride of the convolution, 1 or 2
    int64_t image, row, pixel;                      // strides of the input, in elements
    int64_t out_image, out_row, out_pixel;          // of the result
    int64_t add_image, add_row, add_pixel;          // of the added map
    int64_t weight_out, weight_in, weight_y, weight_x;
    int64_t threads;
};

inline float number(float value) { return value; }

inline float number(bfloat16 value) {
    const uint32_t bits = uint32_t(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline int64_t inside(int64_t at, int64_t length, bool reflect) {
    if (reflect) {
        if (at < 0) at = -at;
        if (at >= length) at = 2 * length - 2 - at;
    }
    return at < 0 || at >= length ? -1 : at;
}

struct Memory {
    float *numbers;
    explicit Memory(int64_t count)
        : numbers(static_cast<float *>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64))) {}
    ~Memory() { std::free(numbers); }
    Memory(const Memory &) = delete;
    operator float *() const { return numbers; }
};

// Transforms the inputs of a tile, numbered through all images, into one row of each product; `apart` is the distance of
// rows in elements. Tiles after the last one, and pixels outside a map, are read from `none`, which is zero.
template <class Scheme, class Map>
inline void transform_tile(const Map *input, const Map *none, const Shape &s, int64_t down, int64_t across, int64_t tile,
                           float *to, int64_t apart) {
    constexpr int STEP = Scheme::STEP, READ = Scheme::READ, POINTS = Scheme::POINTS;
    const int64_t image = tile / (down * across), place = tile % (down * across);
    const int64_t top = place / across * TILE * STEP - s.above, start = place % across * TILE * STEP - s.left;
    const Map *pixels[READ][READ];
    int64_t places[READ];
    for (int j = 0; j < READ; j++) {
        const int64_t x = inside(start + j, s.width, s.reflect);
        places[j] = x < 0 ? -1 : x * s.pixel;
    }
    for (int i = 0; i < READ; i++) {
        const int64_t y = inside(top + i, s.height, s.reflect);
        const bool there = image < s.batch && y >= 0;
        const Map *line = input + image * s.image + y * s.row;
        for (int j = 0; j < READ; j++) pixels[i][j] = !there || places[j] < 0 ? none : line + places[j];
    }
    for (int64_t k = 0; k < s.inputs; k += LANES) {
        Vector columns[POINTS][READ];
#pragma GCC unroll 9
        for (int j = 0; j < READ; j++) {
            Vector in[READ], out[POINTS];
            for (int i = 0; i < READ; i++) in[i] = load(pixels[i][j] + k);
            Scheme::input(in, out);
            for (int i = 0; i < POINTS; i++) columns[i][j] = out[i];
        }
#pragma GCC unroll 9
        for (int i = 0; i < POINTS; i++) {
            Vector out[POINTS];
            Scheme::input(columns[i], out);
            for (int j = 0; j < POINTS; j++) store(to + (i * POINTS + j) * apart + k, out[j]);
        }
    }
}

template <class Scheme, int HALVES, class Map, class Weight>
class Convolution {
    static constexpr int PANEL = HALVES * LANES;
    static constexpr int STEP = Scheme::STEP, POINTS = Scheme::POINTS, PRODUCTS = POINTS * POINTS;

    const Map *input;
    const Weight *weight;
    const float *bias;
    const float slope;
    const Map *add;
    const float alpha;
    Map *result;
    const Shape &s;

    const int64_t height = (s.height + s.above + s.below - 3) / STEP + 1;
    const int64_t width = (s.width + s.left + s.right - 3) / STEP + 1;
    const int64_t down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE;
    const int64_t tiles = s.batch * down * across, panels = (s.outputs + PANEL - 1) / PANEL;
    const int64_t blocks = (tiles + ROWS - 1) / ROWS;
    const int64_t stride = s.inputs + LANES;  // powers of two would fall on the same lines of the cache
    const int64_t block_size = PRODUCTS * ROWS * stride, panel_size = PRODUCTS * s.inputs * PANEL;
    const Memory zeros{s.inputs};

    // Transforms a panel of the weights: [product][input][PANEL]; lanes beyond the last output are zeros.
    void transform_weights(int64_t panel, float *to) const {
        for (int64_t k = 0; k < s.inputs; k++, to += PANEL) {
            Vector taps[HALVES][3][3] = {};
            for (int half = 0; half < HALVES; half++)
                for (int lane = 0; lane < LANES; lane++) {
                    const int64_t o = panel * PANEL + half * LANES + lane;
                    if (o >= s.outputs) break;
                    const Weight *w = weight + o * s.weight_out + k * s.weight_in;
                    for (int y = 0; y < 3; y++)
                        for (int x = 0; x < 3; x++) taps[half][y][x][lane] = number(w[y * s.weight_y + x * s.weight_x]);
                }
            for (int half = 0; half < HALVES; half++) {
                Vector rows[POINTS][3];
                for (int x = 0; x < 3; x++) {
                    const Vector column[3] = {taps[half][0][x], taps[half][1][x], taps[half][2][x]};
                    Vector out[POINTS];
                    Scheme::weight(column, out);
                    for (int i = 0; i < POINTS; i++) rows[i][x] = out[i];
                }
                for (int i = 0; i < POINTS; i++) {
                    Vector out[POINTS];
                    Scheme::weight(rows[i], out);
                    for (int j = 0; j < POINTS; j++)
                        store(to + (i * POINTS + j) * s.inputs * PANEL + half * LANES, out[j]);
                }
            }
        }
    }

    // Transforms the inputs of a block of tiles: [product][ROWS][stride]. The last block may have rows without a tile.
    void transform_block(int64_t block, float *to) const {
        const Map *none = reinterpret_cast<const Map *>(zeros.numbers);
        for (int64_t row = 0; row < ROWS; row++)
            transform_tile<Scheme>(input, none, s, down, across, block * ROWS + row, to + row * stride, ROWS * stride);
    }

    // Multiplies a block by a panel, transforms the products back and writes the results.
    void finish(int64_t block, const float *left, int64_t panel, const float *right, float *products) const {
        for (int p = 0; p < PRODUCTS; p++)
            multiply<HALVES>(left + p * ROWS * stride, stride, right + p * s.inputs * PANEL, s.inputs,
                             products + p * ROWS * PANEL);
        for (int64_t row = 0; row < ROWS && block * ROWS + row < tiles; row++) {
            const int64_t image = (block * ROWS + row) / (down * across), place = (block * ROWS + row) % (down * across);
            const int64_t top = place / across * TILE, start = place % across * TILE;
            for (int half = 0; half < HALVES; half++) {
                const int64_t o = panel * PANEL + half * LANES;
                if (o >= s.outputs) break;
                Vector rows[TILE][POINTS];
#pragma GCC unroll 9
                for (int j = 0; j < POINTS; j++) {
                    Vector in[POINTS], out[TILE];
                    for (int i = 0; i < POINTS; i++)
                        in[i] = load(products + ((i * POINTS + j) * ROWS + row) * PANEL + half * LANES);
                    Scheme::result(in, out);
                    for (int i = 0; i < TILE; i++) rows[i][j] = out[i];
                }
                const Vector offset = bias ? load(bias + o) : Vector{};
#pragma GCC unroll 4
                for (int i = 0; i < TILE; i++) {
                    if (top + i >= height) break;
                    Vector out[TILE];
                    Scheme::result(rows[i], out);
                    const Map *other = add + image * s.add_image + (top + i) * s.add_row + start * s.add_pixel + o;
                    Map *to = result + image * s.out_image + (top + i) * s.out_row + start * s.out_pixel + o;
                    for (int j = 0; j < TILE && start + j < width; j++) {
                        Vector value = out[j] + offset;
                        value = value > 0 ? value : value * slope;
                        if (add) value += alpha * load(other + j * s.add_pixel);
                        store(to + j * s.out_pixel, value);
                    }
                }
            }
        }
    }

    // If there are more weights than inputs, as in deep layers: one panel of weights at a time, for all blocks.
    void panel_by_panel() const {
        const Memory left{blocks * block_size};
#pragma omp parallel num_threads(s.threads)
        {
#pragma omp for schedule(static)
            for (int64_t block = 0; block < blocks; block++) transform_block(block, left + block * block_size);
            const Memory right{panel_size}, products{PRODUCTS * ROWS * PANEL};
#pragma omp for schedule(dynamic, 1)
            for (int64_t panel = 0; panel < panels; panel++) {
                transform_weights(panel, right);
                for (int64_t block = 0; block < blocks; block++)
                    finish(block, left + block * block_size, panel, right, products);
            }
        }
    }

    // Otherwise one block of tiles at a time, for all panels.
    void block_by_block() const {
        const Memory right{panels * panel_size};
#pragma omp parallel num_threads(s.threads)
        {
#pragma omp for schedule(static)
            for (int64_t panel = 0; panel < panels; panel++) transform_weights(panel, right + panel * panel_size);
            const Memory left{block_size}, products{PRODUCTS * ROWS * PANEL};
#pragma omp for schedule(dynamic, 2)
            for (int64_t block = 0; block < blocks; block++) {
                transform_block(block, left);
                for (int64_t panel = 0; panel < panels; panel++)
                    finish(block, left, panel, right + panel * panel_size, products);
            }
        }
    }

  public:
    Convolution(const Map *input, const Weight *weight, const float *bias, float slope, const Map *add, float alpha,
                Map *result, const Shape &s)
        : input(input), weight(weight), bias(bias), slope(slope), add(add), alpha(alpha), result(result), s(s) {
        std::memset(zeros.numbers, 0, s.inputs * sizeof(float));
    }

    void run() const {
        if (panels >= s.threads && blocks * block_size < panels * panel_size)
            panel_by_panel();
        else
            block_by_block();
    }
};

// sums[0..COLUMNS)[0..PANEL) += left[0..depth)[0..COLUMNS)^T * right[0..depth)[0..PANEL)
constexpr int COLUMNS = 8;

template <int HALVES>
inline void accumulate(const float *__restrict left, int64_t left_stride, const float *__restrict right, int64_t depth,
                       float *__restrict sums, int64_t stride) {
    constexpr int PANEL = HALVES * LANES;
    constexpr int AT_ONCE = COLUMNS <= ROWS ? COLUMNS : COLUMNS / 2;  // as many as fit in the registers
    for (int start = 0; start < COLUMNS; start += AT_ONCE) {
        Vector block[AT_ONCE][HALVES];
#pragma GCC unroll 8
        for (int i = 0; i < AT_ONCE; i++)
            for (int half = 0; half < HALVES; half++) block[i][half] = load(sums + (start + i) * stride + half * LANES);
        const float *from = left + start, *with = right;
        for (int64_t k = 0; k < depth; k++, from += left_stride, with += PANEL) {
            Vector values[HALVES];
            for (int half = 0; half < HALVES; half++) values[half] = load(with + half * LANES);
#pragma GCC unroll 8
            for (int i = 0; i < AT_ONCE; i++)
                for (int half = 0; half < HALVES; half++) block[i][half] += from[i] * values[half];
        }
#pragma GCC unroll 8
        for (int i = 0; i < AT_ONCE; i++)
            for (int half = 0; half < HALVES; half++) store(sums + (start + i) * stride + half * LANES, block[i][half]);
    }
}

// The gradient of the weights of a convolution of stride 1, from its input and the gradient of its result.
template <int HALVES, class Map>
class WeightGradient {
    static constexpr int PANEL = HALVES * LANES;
    using Scheme = Unstrided;
    static constexpr int POINTS = Scheme::POINTS, PRODUCTS = POINTS * POINTS;
    static constexpr int64_t CACHED = 1 << 17;  // elements that fit in a core's cache

    const Map *input, *gradient;
    float *result;
    const Shape &s;

    const int64_t height = s.height + s.above + s.below - 2, width = s.width + s.left + s.right - 2;
    const int64_t down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE;
    const int64_t tiles = s.batch * down * across, panels = (s.outputs + PANEL - 1) / PANEL;
    const int64_t columns = panels * PANEL, sums_size = PRODUCTS * s.inputs * columns;
    const int64_t fitting = CACHED / (PRODUCTS * (s.inputs + columns));
    const int64_t chunk = fitting < 24 ? 24 : fitting > 96 ? 96 : fitting;  // tiles processed at a time
    const int64_t left_row = s.inputs + LANES;  // powers of two would fall on the same lines of the cache
    const Memory zeros{s.inputs};

    // Transforms the tiles' inputs: [product][tile][left_row].
    void transform_inputs(int64_t first, int64_t count, float *to) const {
        const Map *none = reinterpret_cast<const Map *>(zeros.numbers);
        for (int64_t t = 0; t < count; t++)
            transform_tile<Scheme>(input, none, s, down, across, first + t, to + t * left_row, chunk * left_row);
    }

    // Transforms the gradients of the tiles' results: [product][panel][tile][PANEL]; lanes beyond the last are zeros.
    void transform_gradients(int64_t first, int64_t count, float *to) const {
        for (int64_t t = 0; t < count; t++) {
            const int64_t image = (first + t) / (down * across), place = (first + t) % (down * across);
            const int64_t top = place / across * TILE, start = place % across * TILE;
            for (int64_t o = 0; o < columns; o += LANES) {
                Vector lines[POINTS][TILE];
#pragma GCC unroll 4
                for (int j = 0; j < TILE; j++) {
                    Vector in[TILE], out[POINTS];
                    for (int i = 0; i < TILE; i++) {
                        const bool there = top + i < height && start + j < width && o < s.outputs;
                        const Map *at = gradient + image * s.out_image + (top + i) * s.out_row + (start + j) * s.out_pixel;
                        in[i] = there ? load(at + o) : Vector{};
                    }
                    Scheme::result_gradient(in, out);
                    for (int i = 0; i < POINTS; i++) lines[i][j] = out[i];
                }
#pragma GCC unroll 6
                for (int i = 0; i < POINTS; i++) {
                    Vector out[POINTS];
                    Scheme::result_gradient(lines[i], out);
                    for (int j = 0; j < POINTS; j++)
                        store(to + (((i * POINTS + j) * panels + o / PANEL) * chunk + t) * PANEL + o % PANEL, out[j]);
                }
            }
        }
    }

    // Transforms the sums of an input's products with LANES outputs back to its 3x3 weights.
    void finish(const float *sums, int64_t k, int64_t o) const {
        Vector lines[3][POINTS];
#pragma GCC unroll 6
        for (int j = 0; j < POINTS; j++) {
            Vector in[POINTS], out[3];
            for (int i = 0; i < POINTS; i++) in[i] = load(sums + ((i * POINTS + j) * s.inputs + k) * columns + o);
            Scheme::weight_gradient(in, out);
            for (int y = 0; y < 3; y++) lines[y][j] = out[y];
        }
        for (int y = 0; y < 3; y++) {
            Vector out[3];
            Scheme::weight_gradient(lines[y], out);
            for (int x = 0; x < 3; x++)
                for (int lane = 0; lane < LANES; lane++)
                    result[(o + lane) * s.weight_out + k * s.weight_in + y * s.weight_y + x * s.weight_x] = out[x][lane];
        }
    }

  public:
    WeightGradient(const Map *input, const Map *gradient, float *result, const Shape &s)
        : input(input), gradient(gradient), result(result), s(s) {
        std::memset(zeros.numbers, 0, s.inputs * sizeof(float));
    }

    // Each thread sums a fixed part of the tiles, and the parts are added in order, so the sums are reproducible.
    void run() const {
        const int64_t chunks = (tiles + chunk - 1) / chunk, threads = s.threads < chunks ? s.threads : chunks;
        const Memory sums{threads * sums_size};
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static, 1)
            for (int64_t part = 0; part < threads; part++) {
                float *own = sums + part * sums_size;
                std::memset(own, 0, sums_size * sizeof(float));
                const Memory left{PRODUCTS * chunk * left_row}, right{PRODUCTS * chunk * columns};
                for (int64_t at = part * chunks / threads; at < (part + 1) * chunks / threads; at++) {
                    const int64_t first = at * chunk, count = tiles - first < chunk ? tiles - first : chunk;
                    transform_inputs(first, count, left);
                    transform_gradients(first, count, right);
                    for (int p = 0; p < PRODUCTS; p++)
                        for (int64_t panel = 0; panel < panels; panel++)
                            for (int64_t k = 0; k < s.inputs; k += COLUMNS)
                                accumulate<HALVES>(left + p * chunk * left_row + k, left_row,
                                    right + (p * panels + panel) * chunk * PANEL, count,
                                    own + (p * s.inputs + k) * columns + panel * PANEL, columns);
                }
            }
#pragma omp for schedule(static)
            for (int64_t k = 0; k < s.inputs; k++) {
                for (int64_t part = 1; part < threads; part++)
                    for (int p = 0; p < PRODUCTS; p++)
                        for (int64_t o = 0; o < columns; o += LANES) {
                            float *to = sums + (p * s.inputs + k) * columns + o;
                            store(to, load(to) + load(to + part * sums_size));
                        }
                for (int64_t o = 0; o < s.outputs; o += LANES) finish(sums, k, o);
            }
        }
    }
};

// tanh(x) = 1 - 2 / (exp(2x) + 1), within 2e-7; exp(y) = 2^n exp(r), r at most ln(2) / 2, by its Taylor series.
inline Vector hyperbolic_tangent(Vector x) {
    typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
    constexpr float limit = 10, log2e = 1.44269504f, high = 0.693359375f, low = -2.12194440e-4f;  // ln 2 in two parts
    Vector y = 2.f * (x > limit ? Vector{} + limit : x < -limit ? Vector{} - limit : x);
    const Vector shifted = y * log2e + 12582912.f;  // 1.5 * 2^23: the last bits are the nearest integer
    const Integers power = (Integers)shifted - 0x4b400000;
    const Vector n = shifted - 12582912.f;
    const Vector r = y - n * high - n * low;
    Vector series = Vector{} + 1.f / 5040;
    constexpr float factors[] = {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f};
    for (const float factor : factors) series = series * r + factor;
    const Vector exponential = (Vector)((Integers)series + (power << 23));
    return 1.f - 2.f / (exponential + 1.f);
}

template <class Map>
void apply_tanh(Map *values, int64_t count, int64_t threads) {
    const int64_t whole = count / LANES * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < whole; i += LANES) store(values + i, hyperbolic_tangent(load(values + i)));
    if (whole < count) {
        Map last[LANES] = {};
        std::memcpy(last, values + whole, (count - whole) * sizeof(Map));
        store(last, hyperbolic_tangent(load(last)));
        std::memcpy(values + whole, last, (count - whole) * sizeof(Map));
    }
}

template <class Map, class Weight>
void convolve(const Map *input, const Weight *weight, const float *bias, float slope, const Map *add, float alpha,
              Map *result, const Shape &s) {
    if (s.step == 2)
        Convolution<Strided, 2, Map, Weight>(input, weight, bias, slope, add, alpha, result, s).run();
    else if (s.outputs > LANES)
        Convolution<Unstrided, 2, Map, Weight>(input, weight, bias, slope, add, alpha, result, s).run();
    else
        Convolution<Unstrided, 1, Map, Weight>(input, weight, bias, slope, add, alpha, result, s).run();
}

template <class Map>
void add_up(const Map *input, const Map *gradient, float *result, const Shape &s) {
    if (s.outputs > LANES)
        WeightGradient<2, Map>(input, gradient, result, s).run();
    else
        WeightGradient<1, Map>(input, gradient, result, s).run();
}

}  // namespace

extern "C" {

int64_t lanes() { return LANES; }

void tanh_float32(float *values, int64_t count, int64_t threads) { apply_tanh(values, count, threads); }

void tanh_bfloat16(bfloat16 *values, int64_t count, int64_t threads) { apply_tanh(values, count, threads); }

#define CONVOLVE(name, Map, Weight)                                                                                  \
    void name(const Map *input, const Weight *weight, const float *bias, float slope, const Map *add, float alpha,   \
              Map *result, const Shape *shape) {                                                                     \
        convolve(input, weight, bias, slope, add, alpha, result, *shape);                                            \
    }
CONVOLVE(convolve_float32_float32, float, float)
CONVOLVE(convolve_float32_bfloat16, float, bfloat16)
CONVOLVE(convolve_bfloat16_float32, bfloat16, float)
CONVOLVE(convolve_bfloat16_bfloat16, bfloat16, bfloat16)

void weight_gradient_float32(const float *input, const float *gradient, float *result, const Shape *shape) {
    add_up(input, gradient, result, *shape);
}

void weight_gradient_bfloat16(const bfloat16 *input, const bfloat16 *gradient, float *result, const Shape *shape) {
    add_up(input, gradient, result, *shape);
}
}
