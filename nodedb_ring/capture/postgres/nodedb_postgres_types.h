// What becomes of a value, by the object identifier of its column's type. PostgreSQL never gives these numbers to other
// types; any type that is not here is text, as the server writes it.

#ifndef NODEDB_POSTGRES_TYPES_H
#define NODEDB_POSTGRES_TYPES_H

#include <stdint.h>

typedef enum PostgresKind {
    POSTGRES_TEXT,
    POSTGRES_BOOL,
    POSTGRES_INTEGER,
    POSTGRES_FLOAT4,
    POSTGRES_FLOAT8,
    POSTGRES_NUMERIC, // text, which a key shows without quotes
    POSTGRES_BYTEA,
    POSTGRES_TIMESTAMPTZ,
} PostgresKind;

typedef struct PostgresType {
    uint8_t kind;     // of a value, or of an array's elements
    uint8_t is_array; // of any number of dimensions
    uint8_t delimiter;
} PostgresType;

static inline PostgresKind postgres_scalar_kind(uint32_t oid) {
    switch (oid) {
    case 16:
        return POSTGRES_BOOL;
    case 17:
        return POSTGRES_BYTEA;
    case 20: // int8
    case 21: // int2
    case 23: // int4
    case 26: // oid
        return POSTGRES_INTEGER;
    case 700:
        return POSTGRES_FLOAT4;
    case 701:
        return POSTGRES_FLOAT8;
    case 1184:
        return POSTGRES_TIMESTAMPTZ;
    case 1700:
        return POSTGRES_NUMERIC;
    default:
        return POSTGRES_TEXT;
    }
}

// The element type of an array; 0 if it is none, or one of a type that is not built in.
static inline uint32_t postgres_element_oid(uint32_t oid) {
    switch (oid) {
    case 1000:
        return 16;
    case 1001:
        return 17;
    case 1016:
        return 20;
    case 1005:
        return 21;
    case 1007:
        return 23;
    case 1028:
        return 26;
    case 1021:
        return 700;
    case 1022:
        return 701;
    case 1185:
        return 1184;
    case 1231:
        return 1700;
    // All others have elements that are text.
    case 143:           // xml
    case 199:           // json
    case 271:           // xid8
    case 629:           // line
    case 651:           // cidr
    case 719:           // circle
    case 775:           // macaddr8
    case 791:           // money
    case 1002:          // "char"
    case 1003:          // name
    case 1006:          // int2vector
    case 1008 ... 1015: // regproc, text, tid, xid, cid, oidvector, bpchar, varchar
    case 1017 ... 1020: // point, lseg, path, box
    case 1027:          // polygon
    case 1034:          // aclitem
    case 1040:          // macaddr
    case 1041:          // inet
    case 1115:          // timestamp
    case 1182:          // date
    case 1183:          // time
    case 1187:          // interval
    case 1263:          // cstring
    case 1270:          // timetz
    case 1561:          // bit
    case 1563:          // varbit
    case 2201:          // refcursor
    case 2207 ... 2211: // regprocedure, regoper, regoperator, regclass, regtype
    case 2949:          // txid_snapshot
    case 2951:          // uuid
    case 3221:          // pg_lsn
    case 3643:          // tsvector
    case 3644:          // gtsvector
    case 3645:          // tsquery
    case 3735:          // regconfig
    case 3770:          // regdictionary
    case 3807:          // jsonb
    case 3905:          // int4range
    case 3907:          // numrange
    case 3909:          // tsrange
    case 3911:          // tstzrange
    case 3913:          // daterange
    case 3927:          // int8range
    case 4073:          // jsonpath
    case 4090:          // regnamespace
    case 4097:          // regrole
    case 4192:          // regcollation
    case 5039:          // pg_snapshot
    case 6150 ... 6153: // int4multirange, nummultirange, tsmultirange, tstzmultirange
    case 6155:          // datemultirange
    case 6157:          // int8multirange
        return 25;
    default:
        return 0;
    }
}

static inline PostgresType postgres_type(uint32_t oid) {
    const uint32_t element = postgres_element_oid(oid);
    return (PostgresType){
        .kind = (uint8_t)postgres_scalar_kind(element == 0 ? oid : element),
        .is_array = element != 0,
        // That of boxes, which have commas inside.
        .delimiter = oid == 1020 ? ';' : ',',
    };
}

#endif
