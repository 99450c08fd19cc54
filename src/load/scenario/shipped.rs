//! Scenarios that come with the program.

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its TOML text.
    pub text: &'static str,
}

/// All of them, the shortest first.
pub fn shipped() -> &'static [Shipped] {
    &[
        Shipped { name: "quick", text: include_str!("../../../scenarios/quick.toml") },
        Shipped { name: "office", text: include_str!("../../../scenarios/office.toml") },
        Shipped { name: "newsletter", text: include_str!("../../../scenarios/newsletter.toml") },
        Shipped { name: "invoices", text: include_str!("../../../scenarios/invoices.toml") },
        Shipped { name: "edi", text: include_str!("../../../scenarios/edi.toml") },
        Shipped { name: "burst", text: include_str!("../../../scenarios/burst.toml") },
        Shipped { name: "soak", text: include_str!("../../../scenarios/soak.toml") },
    ]
}
