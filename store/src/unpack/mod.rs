//! From a compressed stream to a tree of files, and back.
