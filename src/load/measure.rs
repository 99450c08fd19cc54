//! Latencies, rates, processor time and memory over time.

/// What is timed of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From the first octet sent to a session that is ready (new connections only).
    Connect,
    /// From when it was due to when it began to be sent: the generator's own lag, or all connections busy.
    Wait,
    /// From when it was due to the answer to the final dot.
    Answer,
    /// From when it was due to its arrival at the sink.
    Delivery,
}
