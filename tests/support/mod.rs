//! A recording SMTP sink with programmable faults, a client, and a house with a PKI, a store and a gateway.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

pub mod client;
pub mod etcd;
pub mod forwarder;
pub mod gate;
pub mod house;
pub mod mx;
pub mod sink;
pub mod teller;

pub use client::{Client, Said};
pub use sink::{Fault, Sink};
