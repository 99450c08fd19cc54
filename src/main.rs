//! Arguments, configuration, signals, shutdown; nothing else.
#![forbid(unsafe_code)]

/// Mail is many small pieces of memory, taken by one thread and often given back by another. Without its background threads: they are late
/// to give back what big mails took.
#[cfg(feature = "server")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "server")]
fn main() -> std::process::ExitCode {
    waxwing::cli::main()
}

#[cfg(not(feature = "server"))]
fn main() {}
