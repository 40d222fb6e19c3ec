/*
 * pixels.c - see pixels.h.
 */
#include "server/dialect/pixels.h"

#include "base/status.h"

#include <stdint.h>
#include <string.h>

typedef struct picture {
    const char *base64;
    size_t n; /* letters */
} picture;

static int value_of(char letter)
{
    return letter >= 'A' && letter <= 'Z'   ? letter - 'A'
           : letter >= 'a' && letter <= 'z' ? letter - 'a' + 26
           : letter >= '0' && letter <= '9' ? letter - '0' + 52
           : letter == '+'                  ? 62
           : letter == '/'                  ? 63
                                            : -1;
}

/* -1: the file ends before it. */
static int byte_at(const picture *p, size_t i)
{
    const size_t at = i / 3 * 4 + i % 3; /* the letters that hold it */
    const int high = at + 1 < p->n ? value_of(p->base64[at]) : -1;
    const int low = at + 1 < p->n ? value_of(p->base64[at + 1]) : -1;
    if (high < 0 || low < 0) {
        return -1;
    }
    return i % 3 == 0 ? high << 2 | low >> 4 : i % 3 == 1 ? (high & 15) << 4 | low >> 2 : (high & 3) << 6 | low;
}

/* n bytes, the first one the highest. 0 where the file ends before. */
static uint32_t big_at(const picture *p, size_t i, size_t n)
{
    uint32_t value = 0;
    for (size_t b = 0; b < n; b++) {
        const int byte = byte_at(p, i + b);
        if (byte < 0) {
            return 0;
        }
        value = value << 8 | (uint32_t)byte;
    }
    return value;
}

static uint32_t little_at(const picture *p, size_t i, size_t n)
{
    uint32_t value = 0;
    for (size_t b = n; b > 0; b--) {
        const int byte = byte_at(p, i + b - 1);
        if (byte < 0) {
            return 0;
        }
        value = value << 8 | (uint32_t)byte;
    }
    return value;
}

static uint32_t absolute(uint32_t value)
{
    return value >> 31 ? -value : value;
}

/* Chunks, of which Apple's may stand before the head. */
static uint64_t pixels_of_png(const picture *p)
{
    size_t i = 8;
    while (byte_at(p, i + 7) >= 0 && big_at(p, i + 4, 4) != 0x49484452) { /* IHDR */
        i += 12 + (size_t)big_at(p, i, 4);
    }
    return (uint64_t)big_at(p, i + 8, 4) * big_at(p, i + 12, 4);
}

/* Segments, each with its length, until one of those that begin a frame (SOF). What is between them is passed over. */
static uint64_t pixels_of_jpeg(const picture *p)
{
    for (size_t i = 2;;) {
        const int first = byte_at(p, i);
        const int marker = byte_at(p, i + 1);
        if (first < 0 || marker < 0) {
            return 0;
        }
        if (first != 0xff) {
            i++;
            continue;
        }
        if (marker == 0xff || (marker >= 0xd0 && marker <= 0xd8)) { /* a filler, or one without a length */
            i += marker == 0xff ? 1 : 2;
            continue;
        }
        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) {
            return (uint64_t)big_at(p, i + 5, 2) * big_at(p, i + 7, 2);
        }
        const uint32_t length = big_at(p, i + 2, 2);
        if (length < 2 || marker == 0xda) {
            return 0;
        }
        i += 2 + length;
    }
}

uint64_t pixels_of(const char *text, size_t n)
{
    picture p = {text, n};
    if (n > 5 && strncmp(text, "data:", 5) == 0) {
        const char *comma = memchr(text, ',', n);
        p.base64 = comma ? comma + 1 : text + n;
        p.n = n - (size_t)(p.base64 - text);
    }
    switch (big_at(&p, 0, 4)) {
    case 0x89504e47: /* PNG */
        return pixels_of_png(&p);
    case 0x47494638: /* GIF8 */
        return (uint64_t)little_at(&p, 6, 2) * little_at(&p, 8, 2);
    case 0x38425053: /* 8BPS */
        return (uint64_t)big_at(&p, 14, 4) * big_at(&p, 18, 4);
    default:
        break;
    }
    if (big_at(&p, 0, 3) == 0xffd8ff) {
        return pixels_of_jpeg(&p);
    }
    if (big_at(&p, 0, 2) == 0x424d) { /* BM, and the length of one of the heads that there are: a word may begin so */
        const uint32_t head = little_at(&p, 14, 4);
        if (head == 12) {
            return (uint64_t)little_at(&p, 18, 2) * little_at(&p, 20, 2);
        }
        if (head == 40 || head == 56 || head == 108 || head == 124) { /* one that stands on its head has a height below 0 */
            return (uint64_t)absolute(little_at(&p, 18, 4)) * absolute(little_at(&p, 22, 4));
        }
    }
    return 0;
}

/* False: one is too large. */
static bool add_all(const json_t *value, uint64_t *together)
{
    if (json_is_string(value)) {
        const uint64_t pixels = pixels_of(json_string_value(value), json_string_length(value));
        *together += pixels < PIXELS_MOST_EACH ? pixels : PIXELS_MOST_EACH;
        return pixels <= PIXELS_MOST_EACH;
    }
    const char *key;
    const json_t *item;
    size_t i;
    bool fits = true;
    json_array_foreach(value, i, item)
    {
        fits = fits && add_all(item, together);
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        fits = fits && add_all(item, together);
    }
    return fits;
}

hypura_status pixels_check(const json_t *body, hypura_error *error)
{
    uint64_t together = 0;
    if (!add_all(body, &together)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a picture is too large: %llu million pixels are taken",
                           (unsigned long long)(PIXELS_MOST_EACH / 1000000));
    }
    if (together > PIXELS_MOST_TOGETHER) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the pictures are too large: %llu million pixels are taken together",
                           (unsigned long long)(PIXELS_MOST_TOGETHER / 1000000));
    }
    return HYPURA_OK;
}
