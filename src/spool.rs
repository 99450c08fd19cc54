//! Accepted mail on disk until it is handed over: an append log of segments with group commit, behind a `Disk` trait.
