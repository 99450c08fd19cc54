//! What people look at: table, JSON, a page, a comparison.
