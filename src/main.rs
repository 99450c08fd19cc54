//! Arguments, configuration, signals, shutdown; nothing else.
#![forbid(unsafe_code)]

#[cfg(feature = "server")]
fn main() -> std::process::ExitCode {
    waxwing::cli::main()
}

#[cfg(not(feature = "server"))]
fn main() {}
