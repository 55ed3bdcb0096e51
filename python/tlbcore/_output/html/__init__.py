"""Reports as self-contained HTML pages, from the same figures and words as their text."""
