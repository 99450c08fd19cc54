//! A mail server that keeps account and can be faulty.
