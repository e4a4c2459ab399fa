// The attributes of the object that apsw hands to a preupdate hook, read by their getters.
//
// A hook is called for every row that changes, and reads six of them or more. By its name each would be searched in the
// object's type first, which takes longer than most getters. So the getters are looked up once. Where an attribute has
// none, or the object is of another type, it is read by its name.

#ifndef NODEDB_RING_CHANGE_ATTRIBUTES_H
#define NODEDB_RING_CHANGE_ATTRIBUTES_H

#include <Python.h>

typedef enum ChangeAttribute {
    DATABASE_NAME,
    TABLE_NAME,
    OPCODE,
    DEPTH,
    ROWID,
    ROWID_NEW,
    BLOB_WRITE,
    NEW_VALUES,
    OLD_VALUES,
    UPDATED_VALUES,
    CHANGE_ATTRIBUTE_COUNT
} ChangeAttribute;

static struct {
    PyTypeObject *type; // the one that was looked up
    PyObject *name[CHANGE_ATTRIBUTE_COUNT];
    const PyGetSetDef *getter[CHANGE_ATTRIBUTE_COUNT]; // NULL: it has none
} change_attributes;

// What it finds lives as long as the process does.
static int change_attributes_find(PyObject *type) {
    static const char *const names[CHANGE_ATTRIBUTE_COUNT] = {
        [DATABASE_NAME] = "database_name",
        [TABLE_NAME] = "table_name",
        [OPCODE] = "opcode",
        [DEPTH] = "depth",
        [ROWID] = "rowid",
        [ROWID_NEW] = "rowid_new",
        [BLOB_WRITE] = "blob_write",
        [NEW_VALUES] = "new",
        [OLD_VALUES] = "old",
        [UPDATED_VALUES] = "update",
    };
    change_attributes.type = (PyTypeObject *)Py_NewRef(type);
    for (int i = 0; i < CHANGE_ATTRIBUTE_COUNT; i++) {
        PyObject *name = change_attributes.name[i] = PyUnicode_InternFromString(names[i]);
        PyObject *found = name == NULL ? NULL : PyObject_GetAttr(type, name);
        if (found == NULL)
            return -1;
        if (Py_IS_TYPE(found, &PyGetSetDescr_Type) && (PyObject *)PyDescr_TYPE(found) == type)
            change_attributes.getter[i] = ((PyGetSetDescrObject *)found)->d_getset;
        Py_DECREF(found);
    }
    return 0;
}

static inline PyObject *change_attribute(PyObject *change, ChangeAttribute which) {
    const PyGetSetDef *getter = change_attributes.getter[which];
    if (getter != NULL && Py_IS_TYPE(change, change_attributes.type))
        return getter->get(change, getter->closure);
    return PyObject_GetAttr(change, change_attributes.name[which]);
}

#endif
