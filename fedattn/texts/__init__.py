"""Private texts as they lie on a disk: which files, their characters, the pieces of them.

    listing    a folder        -> files of known kinds, and what was left out
    pieces     a file          -> small pieces, each with its place; see there for the parts
    loading    files           -> bytes, within a limit, and the text of all of them
    decoding   bytes           -> characters, only where the encoding is certain (legacy: old ones)
    markup     HTML            -> the text a reader sees

One bad file costs itself alone: it becomes a `SkippedFile`, or raises a `SkippedError`.
"""
