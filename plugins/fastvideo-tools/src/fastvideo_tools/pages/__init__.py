"""Pieces of self-contained HTML pages: text, tables, curves, videos. Nothing on them is fetched from anywhere."""
