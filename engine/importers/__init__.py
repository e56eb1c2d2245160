"""Importers: files of other systems, read into events; one file per format."""
