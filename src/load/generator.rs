//! Sends by the pace of a scenario.
