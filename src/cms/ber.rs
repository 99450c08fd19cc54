//! A BER pull reader (X.690): zero-copy, limited in depth and size; lengths beyond what remains fail before any allocation (A13).
