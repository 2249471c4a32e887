"""A private store of passages: texts in pieces, indexed here, some of them chosen for a question.

    store        the store: bring it up to date, and what a reader can
    reader       an index                                  -> search, look up
    refreshing   everything under the root                 -> read again what changed
    comparing    files as they are and as they were read   -> what to do about each
    indexing     one file                                  -> its passages, in transactions
    database     SQLite: schema, who may write, what happens to a broken one
    read_only    the database of another process           -> looked at, never written
    words        text                                      -> the words it is found by
    vocabulary   a word of a question                      -> words of the texts it may mean
    query        a question                                -> units, each a phrase and its variants
    expanding    units                                     -> the same, with other words
    postings     a phrase                                  -> how many passages hold it, and which
    ranking      units                                     -> passages, best first
    watching     a folder                                  -> refreshes as it changes

What is in here never leaves the node by itself. File names are for its owner's eyes only.
"""
