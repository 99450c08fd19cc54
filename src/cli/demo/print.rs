//! What the demo shows: for people, with colours on a terminal alone, or as JSON.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::mails::{ANNA, BERT, Sample};
use super::sink::Arrived;
use crate::mime::entity::{Entity, MimeLimits};

/// What became of one mail.
pub struct Passed {
    pub title: &'static str,
    pub size: usize,
    pub sealed: usize,
    pub out: Duration,
    pub back: Duration,
    /// The layers as the recipient sees them.
    pub tree: String,
    /// Marks on what came in.
    pub verdict: Vec<String>,
    /// Parts that are equal.
    pub parts: usize,
    pub problems: Vec<String>,
}

impl Passed {
    pub fn new(title: &'static str, size: usize) -> Self {
        let zero = Duration::ZERO;
        Self {
            title,
            size,
            sealed: 0,
            out: zero,
            back: zero,
            tree: String::new(),
            verdict: Vec::new(),
            parts: 0,
            problems: Vec::new(),
        }
    }

    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// Reads the marks of a mail that came in; anything but `pass` is a problem.
    pub fn came(&mut self, message: &Bytes) {
        let Ok(entity) = Entity::parse(message.clone(), &MimeLimits::default()) else {
            return self.problems.push("what came out cannot be read".into());
        };
        let marks = ["Authentication-Results", "X-Waxwing-Decrypted", "X-Waxwing-Signature"];
        let lines = marks
            .iter()
            .flat_map(|name| entity.header.all(name))
            .map(|field| format!("{}: {}", field.name(), field.value()));
        self.verdict = lines.collect();
        if !self.verdict.iter().any(|line| line.contains("smime=pass")) {
            self.problems.push("the signature was not found to be good".into());
        }
    }
}

/// Prints.
pub struct Printer {
    json: bool,
    colour: bool,
}

impl Printer {
    pub fn new(json: bool) -> Self {
        let colour = !json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn begin(&self, out: SocketAddr, inward: SocketAddr, took: Duration) {
        if self.json {
            return;
        }
        println!("{}", self.paint("1", "Waxwing demo"));
        println!("A test PKI, a store, a gateway and two mail servers, made in {}.", time(took));
        println!("  submission  {out}   our users' mail goes out: signed and encrypted");
        println!("  internet    {inward}   the world's mail comes in: opened and judged");
    }

    pub fn title(&self, sample: &Sample) {
        if !self.json {
            println!("\n{}  {} -> {}", self.paint("1;36", &format!("── {}", sample.title)), ANNA, sample.to.join(", "));
        }
    }

    pub fn result(&self, result: &Passed) {
        if self.json {
            return;
        }
        println!("  out   {} in, {} sealed, {}", size(result.size), size(result.sealed), time(result.out));
        for line in result.tree.lines() {
            println!("        {}", self.paint("2", line));
        }
        println!("  in    opened and judged, {}", time(result.back));
        for line in &result.verdict {
            println!("        {}", self.paint("2", line));
        }
        if result.is_good() {
            let parts = if result.parts == 1 { "1 part".to_owned() } else { format!("{} parts", result.parts) };
            println!(
                "  {} what came out equals what went in ({parts}); the signature is good",
                self.paint("1;32", "ok   ")
            );
        }
        for problem in &result.problems {
            println!("  {} {problem}", self.paint("1;31", "FAIL "));
        }
    }

    pub fn end(&self, results: &[Passed], took: Duration) {
        let good = results.iter().filter(|result| result.is_good()).count();
        if self.json {
            let mails: Vec<_> = results.iter().map(as_json).collect();
            let all = json!({ "good": good == results.len(), "milliseconds": millis(took), "mails": mails });
            println!("{all:#}");
            return;
        }
        let colour = if good == results.len() { "1;32" } else { "1;31" };
        println!(
            "\n{} in {}",
            self.paint(colour, &format!("{good} of {} mails as they should be", results.len())),
            time(took)
        );
    }

    pub fn keep(&self, out: SocketAddr, inward: SocketAddr) {
        eprintln!("\nRunning until Ctrl-C. To play with:");
        eprintln!("  swaks --server {out} --from {ANNA} --to {BERT} --header 'Subject: hello' --body 'a secret'");
        eprintln!(
            "  swaks --server {out} --from {ANNA} --to nobody@example.com   # no certificate: refused, never sent in clear"
        );
        eprintln!("  swaks --server {inward} --from stranger@example.com --to {BERT}   # comes in unsigned, marked so");
        eprintln!("  swaks --server {inward} --from stranger@example.com --to victim@example.com   # no open relay");
    }

    pub fn arrived(&self, what: &str, mail: &Arrived) {
        let to = mail.to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut head = String::new();
        if let Ok(entity) = Entity::parse(mail.message.clone(), &MimeLimits::default()) {
            for name in
                ["Subject", "Content-Type", "Authentication-Results", "X-Waxwing-Decrypted", "X-Waxwing-Signature"]
            {
                for field in entity.header.all(name) {
                    // A stranger's text on a terminal: escaped (A28).
                    let value: String = field.value().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                    head.push_str(&format!("    {}: {value}\n", field.name()));
                }
            }
        }
        println!("{} for {to}, {}\n{head}", self.paint("1", what), size(mail.message.len()));
    }
}

fn as_json(result: &Passed) -> serde_json::Value {
    json!({
        "title": result.title,
        "good": result.is_good(),
        "octets": result.size,
        "sealed_octets": result.sealed,
        "out_milliseconds": millis(result.out),
        "in_milliseconds": millis(result.back),
        "tree": result.tree.lines().collect::<Vec<_>>(),
        "verdict": result.verdict,
        "parts_equal": result.parts,
        "problems": result.problems,
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1000.0),
    }
}

fn size(octets: usize) -> String {
    match octets {
        0..10_000 => format!("{octets} octets"),
        10_000..10_000_000 => format!("{} kB", octets / 1000),
        _ => format!("{}.{} MB", octets / 1_000_000, octets / 100_000 % 10),
    }
}
