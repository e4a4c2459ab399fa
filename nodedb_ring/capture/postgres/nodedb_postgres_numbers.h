// Numbers and times from the text in which PostgreSQL writes them.
//
// Each function returns whether the text is one. Text that is none is a corrupt message: the server writes no other.

#ifndef NODEDB_POSTGRES_NUMBERS_H
#define NODEDB_POSTGRES_NUMBERS_H

#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// strtod goes by the thread's locale, in which the decimal point may be a comma. This one is made at import.
static locale_t postgres_c_locale;

static inline int postgres_make_locale(void) {
    if (postgres_c_locale == (locale_t)0)
        postgres_c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return postgres_c_locale != (locale_t)0;
}

static inline int postgres_is(const uint8_t *text, uint64_t size, const char *word) {
    return size == strlen(word) && memcmp(text, word, size) == 0;
}

static inline int postgres_is_digit(uint8_t character) { return character >= '0' && character <= '9'; }

// `bits` of a negative number are its two's complement.
static inline int postgres_parse_integer(const uint8_t *text, uint64_t size, uint64_t *bits, int *is_negative) {
    uint64_t magnitude = 0, i = 0;
    *is_negative = size != 0 && text[0] == '-';
    i = (uint64_t)*is_negative;
    // Nineteen digits fit into 64 bits, and int8 has no more.
    if (size == i || size - i > 19)
        return 0;
    for (; i < size; i++) {
        if (!postgres_is_digit(text[i]))
            return 0;
        magnitude = 10 * magnitude + (uint64_t)(text[i] - '0');
    }
    if (magnitude > (uint64_t)INT64_MAX + (uint64_t)*is_negative)
        return 0;
    *bits = *is_negative ? 0 - magnitude : magnitude;
    // There is no -0.
    *is_negative = *is_negative && magnitude != 0;
    return 1;
}

// A decimal number as digits and a power of ten; 0 if it is longer than that, or no number.
static inline int postgres_parse_decimal(const uint8_t *text, uint64_t size, uint64_t *digits, int32_t *power,
                                         int *is_negative) {
    uint64_t i = 0, count = 0;
    int32_t exponent = 0, sign = 1;
    *digits = 0;
    *power = 0;
    *is_negative = size != 0 && text[0] == '-';
    i = (uint64_t)*is_negative;
    const uint64_t first = i;
    for (; i < size && postgres_is_digit(text[i]); i++, count++)
        *digits = 10 * *digits + (uint64_t)(text[i] - '0');
    if (i == first)
        return 0;
    if (i < size && text[i] == '.')
        for (i++; i < size && postgres_is_digit(text[i]); i++, count++, --*power)
            *digits = 10 * *digits + (uint64_t)(text[i] - '0');
    if (count > 19)
        return 0;
    if (i < size && text[i] == 'e') {
        i++;
        if (i < size && (text[i] == '-' || text[i] == '+'))
            sign = text[i++] == '-' ? -1 : 1;
        if (i == size || size - i > 3)
            return 0;
        for (; i < size && postgres_is_digit(text[i]); i++)
            exponent = 10 * exponent + (text[i] - '0');
    }
    *power += sign * exponent;
    return i == size;
}

enum { POSTGRES_MOST_OF_FLOAT = 32 };

// By the library, for what is not exact in a few steps.
static inline int postgres_parse_any_float(const uint8_t *text, uint64_t size, double *wide, float *narrow) {
    char copy[POSTGRES_MOST_OF_FLOAT + 1], *end = copy;
    if (size == 0 || size > POSTGRES_MOST_OF_FLOAT)
        return 0;
    memcpy(copy, text, size);
    copy[size] = 0;
    if (!postgres_is_digit((uint8_t)copy[copy[0] == '-']))
        return 0;
    const locale_t before = uselocale(postgres_c_locale);
    if (wide != NULL)
        *wide = strtod(copy, &end);
    else
        *narrow = strtof(copy, &end);
    (void)uselocale(before);
    // Neither in another notation, which the library reads as well, nor beyond all numbers of the type.
    return end == copy + size && strspn(copy, "0123456789.eE+-") == size &&
           isfinite(wide != NULL ? *wide : (double)*narrow);
}

// Of the words that are no number, each sign apart; 0 if it is none of them.
static inline double postgres_float_word(const uint8_t *text, uint64_t size) {
    if (postgres_is(text, size, "NaN"))
        return NAN;
    if (postgres_is(text, size, "Infinity"))
        return INFINITY;
    return postgres_is(text, size, "-Infinity") ? -INFINITY : 0.0;
}

static inline int postgres_parse_double(const uint8_t *text, uint64_t size, double *value) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    uint64_t digits;
    int32_t power;
    int is_negative;
    // Both numbers are exact then, and one operation rounds once.
    if (!postgres_parse_decimal(text, size, &digits, &power, &is_negative))
        digits = UINT64_MAX;
    const uint32_t zeros = power < 0 ? 0 - (uint32_t)power : (uint32_t)power;
    if (digits <= (uint64_t)1 << 53 && zeros < sizeof(powers) / sizeof(powers[0])) {
        const double ten = powers[zeros], exact = power < 0 ? (double)digits / ten : (double)digits * ten;
        *value = is_negative ? -exact : exact;
        return 1;
    }
    *value = postgres_float_word(text, size);
    return *value != 0.0 || postgres_parse_any_float(text, size, value, NULL);
}

static inline int postgres_parse_float(const uint8_t *text, uint64_t size, float *value) {
    static const float powers[] = {1e0F, 1e1F, 1e2F, 1e3F, 1e4F, 1e5F, 1e6F, 1e7F, 1e8F, 1e9F, 1e10F};
    uint64_t digits;
    int32_t power;
    int is_negative;
    if (!postgres_parse_decimal(text, size, &digits, &power, &is_negative))
        digits = UINT64_MAX;
    const uint32_t zeros = power < 0 ? 0 - (uint32_t)power : (uint32_t)power;
    if (digits <= (uint64_t)1 << 24 && zeros < sizeof(powers) / sizeof(powers[0])) {
        const float ten = powers[zeros], exact = power < 0 ? (float)digits / ten : (float)digits * ten;
        *value = is_negative ? -exact : exact;
        return 1;
    }
    *value = (float)postgres_float_word(text, size);
    return *value != 0.0F || postgres_parse_any_float(text, size, NULL, value);
}

// ---- times ------------------------------------------------------------------------------------------------------

// Days from 1970-01-01 to a day of the Gregorian calendar; year 0 is 1 BC.
static inline int64_t postgres_days(int64_t year, uint32_t month, uint32_t day) {
    // Years begin in March, so that the leap day is the last of its year.
    const int64_t from_march = year - (month <= 2);
    const int64_t era = (from_march >= 0 ? from_march : from_march - 399) / 400;
    const int64_t of_era = from_march - era * 400;
    const int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

// From 1 on.
static inline uint32_t postgres_days_of_month(int64_t year, uint32_t month) {
    const int is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 ? 28 + (uint32_t)is_leap : 30 + ((month + (month > 7)) & 1);
}

// Two digits below `limit`, with `before` ahead of them unless it is 0; moves `at` behind them.
static inline int postgres_parse_pair(const uint8_t **at, const uint8_t *end, uint8_t before, uint32_t limit,
                                      uint32_t *value) {
    const uint8_t *text = *at;
    if (before != 0) {
        if (text == end || *text != before)
            return 0;
        text++;
    }
    if (end - text < 2 || !postgres_is_digit(text[0]) || !postgres_is_digit(text[1]))
        return 0;
    *value = 10 * (uint32_t)(text[0] - '0') + (uint32_t)(text[1] - '0');
    *at = text + 2;
    return *value < limit;
}

// A timestamptz in DateStyle ISO: `2013-01-01 05:15:00.25+00`, perhaps with ` BC` behind it.
//
// `infinity` and `-infinity` are the last and the first whole second that datetime64[us] has, so that they stay behind
// and before all others. What PostgreSQL has behind that second, 29 years of them, is that second, too.
static inline int postgres_parse_timestamptz(const uint8_t *text, uint64_t size, int64_t *seconds,
                                             uint32_t *nanoseconds) {
    const uint8_t *at = text, *end = text + size;
    const int64_t last = INT64_MAX / 1000000;
    int64_t year = 0, offset;
    uint32_t month, day, hour, minute, second, zone_hour, zone_minute = 0, zone_second = 0, unit = 100000000;
    if (postgres_is(text, size, "infinity") || postgres_is(text, size, "-infinity")) {
        *seconds = text[0] == '-' ? -last : last;
        *nanoseconds = 0;
        return 1;
    }
    for (; at < end && at - text < 7 && postgres_is_digit(*at); at++)
        year = 10 * year + (*at - '0');
    if (at - text < 4 || !postgres_parse_pair(&at, end, '-', 13, &month) ||
        !postgres_parse_pair(&at, end, '-', 32, &day) || !postgres_parse_pair(&at, end, ' ', 24, &hour) ||
        !postgres_parse_pair(&at, end, ':', 60, &minute) || !postgres_parse_pair(&at, end, ':', 60, &second) ||
        year == 0)
        return 0;
    *nanoseconds = 0;
    if (at < end && *at == '.') {
        for (at++; at < end && postgres_is_digit(*at) && unit >= 1000; at++, unit /= 10)
            *nanoseconds += unit * (uint32_t)(*at - '0');
        if (unit == 100000000)
            return 0;
    }
    if (at == end || (*at != '+' && *at != '-'))
        return 0;
    const int is_west = *at == '-';
    at++;
    if (!postgres_parse_pair(&at, end, 0, 24, &zone_hour) ||
        (at < end && *at == ':' && !postgres_parse_pair(&at, end, ':', 60, &zone_minute)) ||
        (at < end && *at == ':' && !postgres_parse_pair(&at, end, ':', 60, &zone_second)))
        return 0;
    if (end - at == 3 && memcmp(at, " BC", 3) == 0) {
        year = 1 - year;
        at += 3;
    }
    if (at != end || month == 0 || day == 0 || day > postgres_days_of_month(year, month))
        return 0;
    offset = 3600 * (int64_t)zone_hour + 60 * (int64_t)zone_minute + zone_second;
    *seconds = 86400 * postgres_days(year, month, day) + 3600 * (int64_t)hour + 60 * (int64_t)minute + second +
               (is_west ? offset : -offset);
    // From 4714-11-24 BC to the end of 294276.
    if (*seconds < -210866803200 || *seconds >= 9224318016000)
        return 0;
    if (*seconds >= last) {
        *seconds = last;
        *nanoseconds = 0;
    }
    return 1;
}

#endif
