"""A batch as Arrow data, by the Arrow PyCapsule interface: the schema, export, import. Without pyarrow.

Not here: what only one library needs, which is the business of ``docs/arrow.md``; but for pandas' index columns.
"""
