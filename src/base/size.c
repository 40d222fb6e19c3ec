/*
 * size.c - parsing and formatting of sizes. Locale-independent: a comma is
 * never a decimal point, and strtod is never asked.
 */
#include "base/size.h"

#include <inttypes.h>
#include <stdio.h>

/* Digits of a fraction that are looked at: 10^-12 of a TiB is about a byte. */
#define FRACTION_DIGITS 12

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Bits that the unit shifts by, 0 for none; advances over the unit. */
static unsigned parse_unit(const char **text)
{
    unsigned shift;
    switch (**text) {
    case 'k':
    case 'K':
        shift = 10;
        break;
    case 'm':
    case 'M':
        shift = 20;
        break;
    case 'g':
    case 'G':
        shift = 30;
        break;
    case 't':
    case 'T':
        shift = 40;
        break;
    default:
        shift = 0;
        break;
    }
    if (shift != 0) {
        (*text)++;
        if ((*text)[0] == 'i' && ((*text)[1] == 'B' || (*text)[1] == 'b')) {
            (*text)++;
        }
    }
    if (**text == 'B' || **text == 'b') {
        (*text)++;
    }
    return shift;
}

bool hypura_size_parse(const char *text, uint64_t *bytes)
{
    if (text == NULL || !is_digit(*text)) {
        return false;
    }
    uint64_t whole = 0;
    for (; is_digit(*text); text++) {
        if (!hypura_size_mul(whole, 10, &whole) || !hypura_size_add(whole, (uint64_t)(*text - '0'), &whole)) {
            return false;
        }
    }
    uint64_t fraction = 0;
    uint64_t fraction_one = 1;
    bool has_fraction = false;
    if (*text == '.') {
        text++;
        if (!is_digit(*text)) {
            return false;
        }
        has_fraction = true;
        for (int i = 0; is_digit(*text); text++, i++) {
            if (i < FRACTION_DIGITS) {
                fraction = fraction * 10 + (uint64_t)(*text - '0');
                fraction_one *= 10;
            }
        }
    }
    if (*text == ' ' && text[1] != '\0') {
        text++;
    }
    unsigned shift = parse_unit(&text);
    if (*text != '\0' || (has_fraction && shift == 0)) {
        return false;
    }
    uint64_t result;
    if (!hypura_size_mul(whole, (uint64_t)1 << shift, &result)) {
        return false;
    }
    /* fraction < 2^40 and shift <= 40: split the product so that it fits. */
    uint64_t half = (uint64_t)1 << (shift / 2);
    uint64_t rest = (uint64_t)1 << (shift - shift / 2);
    uint64_t high = fraction * half / fraction_one;
    uint64_t low = fraction * half % fraction_one;
    if (!hypura_size_add(result, high * rest + low * rest / fraction_one, &result)) {
        return false;
    }
    *bytes = result;
    return true;
}

const char *hypura_size_format(uint64_t bytes, char *text, size_t capacity)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        (void)snprintf(text, capacity, "%" PRIu64 " B", bytes);
        return text;
    }
    /* Tenths of the unit, rounded; 10239.5 tenths would read "1024.0". */
    int unit = 0;
    uint64_t one = 1024;
    while (unit < 5 && bytes / one >= 1024) {
        one *= 1024;
        unit++;
    }
    uint64_t tenths = bytes / one * 10 + ((bytes % one >> (10 * unit)) * 10 + 512) / 1024;
    if (tenths >= 10240 && unit < 5) {
        tenths = 10;
        unit++;
    }
    if (tenths % 10 == 0) {
        (void)snprintf(text, capacity, "%" PRIu64 " %s", tenths / 10, units[unit]);
    } else {
        (void)snprintf(text, capacity, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, units[unit]);
    }
    return text;
}
