"""Private texts as they lie on a disk: which files, their bytes, their characters.

    listing    a folder        -> files of known kinds, and what was left out
    loading    files           -> bytes, within a limit
    decoding   bytes           -> characters, only where the encoding is certain (legacy: old ones)
    markup     HTML            -> the text a reader sees

Nothing here raises for one bad file: it becomes a `SkippedFile` with its reason.
"""
