# The capsules of the Arrow PyCapsule interface. Each owns its struct, which `calloc` made, and frees it when it goes; of
# what the importer has not taken over it calls the release, too.

from .abi cimport ArrowArray, ArrowArrayStream, ArrowSchema

cdef object schema_capsule(ArrowSchema* schema)
cdef object array_capsule(ArrowArray* array)
cdef object stream_capsule(ArrowArrayStream* stream)
