"""Capture of PostgreSQL: the committed changes of a publication, by logical replication."""
