//! Everybody's objects read by everybody, as a table.

use std::collections::BTreeMap;

use crate::case::{Case, Job, Peer, World};
use crate::place::{CONTENT, tampered, tampered_object};

/// Who read what: case -> maker -> how -> reader -> whether.
#[derive(Default)]
pub struct Table {
    cells: BTreeMap<Case, BTreeMap<char, Vec<Cell>>>,
    pub complaints: Vec<String>,
}

struct Cell {
    how: &'static str,
    /// Reader, and why it did not read it.
    outcomes: Vec<(char, Result<(), String>)>,
}

/// Makes every case with every peer, and has every peer read it: as it is, and with an octet changed.
pub fn run(world: &World, peers: &[&dyn Peer]) -> Table {
    let mut table = Table::default();
    let (mut makers, mut jobs) = (Vec::new(), Vec::new());
    for case in Case::ALL {
        for maker in peers {
            for made in maker.make(world, case) {
                makers.push((case, maker.letter(), made.how));
                jobs.extend(with_tampered(case, made.object));
            }
        }
    }
    let mut answers: Vec<_> = peers.iter().map(|peer| (peer.letter(), peer.read(world, &jobs).into_iter())).collect();
    for (case, maker, how) in makers {
        let mut outcomes = Vec::new();
        for (reader, answers) in &mut answers {
            let (good, spoiled) = (answers.next().unwrap(), answers.next().unwrap());
            let name = format!("{} {how} made by {maker}, read by {reader}", case.title());
            match spoiled {
                // CBC alone proves nothing: other octets may come out, the same may not.
                Ok(content) if case.is_signed() || case == Case::Gcm || content == CONTENT.as_bytes() => {
                    table.complaints.push(format!("{name}: taken with an octet changed"));
                }
                _ => {}
            }
            let outcome = good.and_then(|content| match content == CONTENT.as_bytes() {
                true => Ok(()),
                false => Err(format!("other content: {:?}", String::from_utf8_lossy(&content))),
            });
            outcomes.push((*reader, outcome));
        }
        table.cells.entry(case).or_default().entry(maker).or_default().push(Cell { how, outcomes });
    }
    table
}

/// The object, and the same with one octet changed: of the content where it is in clear, else of the object.
fn with_tampered(case: Case, object: Vec<u8>) -> [Job; 2] {
    let content = CONTENT.as_bytes().to_vec();
    let (changed, changed_content) = match case {
        case if case.is_detached() => (object.clone(), tampered(&content)),
        Case::Opaque if tampered(&object) != object => (tampered(&object), content.clone()),
        _ => (tampered_object(&object), content.clone()),
    };
    [Job { case, object, content }, Job { case, object: changed, content: changed_content }]
}

impl Table {
    /// Whether `reader` reads what `maker` makes, in every way it makes it; `None`: it makes nothing of this.
    pub fn reads(&self, case: Case, maker: char, reader: char) -> Option<Result<(), String>> {
        let cells = self.cells.get(&case)?.get(&maker)?;
        let outcomes = cells.iter().flat_map(|cell| cell.outcomes.iter().map(move |(who, what)| (cell.how, who, what)));
        let first_bad = outcomes
            .filter(|(_, who, _)| **who == reader)
            .find_map(|(how, _, what)| what.as_ref().err().map(|why| format!("{how} {why}")));
        Some(first_bad.map_or(Ok(()), Err))
    }

    /// Why something was not read, a line each.
    pub fn refusals(&self) -> String {
        let mut text = String::new();
        for (case, makers) in &self.cells {
            for (maker, cells) in makers {
                for (cell, reader, why) in cells.iter().flat_map(|cell| {
                    cell.outcomes.iter().filter_map(move |(who, what)| Some((cell, who, what.as_ref().err()?)))
                }) {
                    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
                    let why: String = why.chars().take(160).collect();
                    text.push_str(&format!("{} {} of {maker}, not read by {reader}: {why}\n", case.title(), cell.how));
                }
            }
        }
        text
    }

    fn makers(&self, case: Case) -> Vec<char> {
        self.cells.get(&case).map(|makers| makers.keys().copied().collect()).unwrap_or_default()
    }

    /// In markdown: for each case who makes it, and whose each one reads.
    pub fn markdown(&self, letters: &[char]) -> String {
        let letters_of = |chosen: &[char]| {
            let text: Vec<String> = letters.iter().filter(|one| chosen.contains(one)).map(char::to_string).collect();
            if text.is_empty() { "–".to_owned() } else { text.join(" ") }
        };
        let mut text = "| case | made by | read by | refused by |\n|---|---|---|---|\n".to_owned();
        for case in Case::ALL {
            let makers = self.makers(case);
            let (mut read, mut refused) = (Vec::new(), Vec::new());
            for reader in letters {
                let reads = |maker: &&char| self.reads(case, **maker, *reader).is_some_and(|outcome| outcome.is_ok());
                let whose: Vec<char> = makers.iter().filter(reads).copied().collect();
                match whose.len() {
                    0 => refused.push(reader.to_string()),
                    count if count == makers.len() => read.push(reader.to_string()),
                    _ => read.push(format!("{reader} ({})", letters_of(&whose))),
                }
            }
            let or_none = |words: Vec<String>| if words.is_empty() { "–".to_owned() } else { words.join(" ") };
            let (read, refused) = if makers.is_empty() { (Vec::new(), Vec::new()) } else { (read, refused) };
            text.push_str(&format!(
                "| {} | {} | {} | {} |\n",
                case.title(),
                letters_of(&makers),
                or_none(read),
                or_none(refused)
            ));
        }
        text
    }
}
