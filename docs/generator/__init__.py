"""Writes the reference pages from the tables that the code itself uses: one module for each page."""
