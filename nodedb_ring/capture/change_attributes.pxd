# cython: language_level=3
# What the preupdate hook reads of a change of a row.

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

cdef extern from "nodedb_change_attributes.h":
    enum ChangeAttribute:
        DATABASE_NAME
        TABLE_NAME
        OPCODE
        DEPTH
        ROWID
        ROWID_NEW
        BLOB_WRITE
        NEW_VALUES
        OLD_VALUES
        UPDATED_VALUES
    int change_attributes_find(object type) except -1
    object change_attribute(object change, ChangeAttribute which)


# The values after an UPDATE, or apsw.no_change for one that is the same: apsw then makes no object of it. It takes 0.0
# and -0.0 for the same, which are not.
cdef inline tuple values_after(change, tuple old):
    cdef tuple new = change_attribute(change, UPDATED_VALUES)
    cdef Py_ssize_t i
    for i in range(PyTuple_GET_SIZE(old)):
        value = <object>PyTuple_GET_ITEM(old, i)
        if PyFloat_CheckExact(value) and PyFloat_AS_DOUBLE(value) == 0.0:
            if not PyFloat_CheckExact(<object>PyTuple_GET_ITEM(new, i)):
                return change_attribute(change, NEW_VALUES)
    return new
