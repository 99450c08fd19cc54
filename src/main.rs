//! Arguments, configuration, signals, shutdown; nothing else.
#![forbid(unsafe_code)]

#[cfg(feature = "server")]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}

#[cfg(not(feature = "server"))]
fn main() {}
