//! A guide as a test reads it: the code blocks whose info string names a file, and what is put in place of the operator's own names.

use std::fs;
use std::path::{Path, PathBuf};

/// A code block: ```` ```LANGUAGE FILE [VARIANT] ````.
pub struct Block {
    pub language: String,
    pub file: String,
    pub variant: String,
    pub text: String,
}

pub struct Page {
    pub name: String,
    pub text: String,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides")
}

/// All pages, by name; the index is not one of them.
pub fn pages() -> Vec<Page> {
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".md") && name != "README.md").collect();
    names.sort();
    names.iter().map(|name| Page::open(name)).collect()
}

impl Page {
    pub fn open(name: &str) -> Self {
        Self { name: name.to_owned(), text: fs::read_to_string(folder().join(name)).unwrap() }
    }

    /// The blocks that name a file.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        // Within a block: whether it is one of ours.
        let mut within: Option<bool> = None;
        for line in self.text.lines() {
            match (line.strip_prefix("```"), within) {
                (Some(info), None) => {
                    let mut words = info.split_whitespace().map(str::to_owned);
                    let (language, file) = (words.next(), words.next());
                    within = Some(file.is_some());
                    if let (Some(language), Some(file)) = (language, file) {
                        let variant = words.next().unwrap_or_default();
                        blocks.push(Block { language, file, variant, text: String::new() });
                    }
                }
                (Some(_), Some(_)) => within = None,
                (None, Some(true)) => {
                    let text = &mut blocks.last_mut().unwrap().text;
                    text.push_str(line);
                    text.push('\n');
                }
                _ => {}
            }
        }
        assert!(within.is_none(), "{}: a block has no end", self.name);
        blocks
    }

    /// All lines that the page has for a file.
    pub fn lines(&self, file: &str, variant: &str) -> String {
        let blocks = self.blocks();
        let mine = blocks.iter().filter(|block| block.file == file && block.variant == variant);
        let lines: String = mine.map(|block| block.text.as_str()).collect();
        assert!(!lines.is_empty(), "{}: no block {file} {variant}", self.name);
        lines
    }

    /// The same with the test's ports, folders and hosts in place of the page's. Each must be found: a page that is changed says so here.
    pub fn adapted(&self, file: &str, variant: &str, changes: &[(&str, String)]) -> String {
        let text = self.lines(file, variant);
        for (old, _) in changes {
            assert!(text.contains(old), "{}: {file} {variant} has no {old:?}:\n{text}", self.name);
        }
        // All at once, the longest first: what was put in is not changed again.
        let mut changes: Vec<&(&str, String)> = changes.iter().collect();
        changes.sort_by_key(|(old, _)| std::cmp::Reverse(old.len()));
        let (mut rest, mut adapted) = (text.as_str(), String::new());
        while let Some(next) = rest.chars().next() {
            match changes.iter().find(|(old, _)| rest.starts_with(old)) {
                Some((old, new)) => {
                    adapted.push_str(new);
                    rest = &rest[old.len()..];
                }
                None => {
                    adapted.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        adapted
    }
}

/// Where keys end in TOML: of `key = …`, of those within inline tables, and of each word of `[a.b]`.
pub fn keys(toml: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    // In a word, a string, a comment, or the head of a section.
    let (mut word, mut string, mut comment, mut head) = (None, false, false, false);
    for (at, letter) in toml.char_indices() {
        match letter {
            '\n' => (word, comment, head) = (None, false, false),
            _ if comment => {}
            '"' => string = !string,
            _ if string => {}
            '#' => comment = true,
            '[' if at == 0 || toml[..at].ends_with(['\n', '[']) => head = true,
            '.' | ']' if head => ends.extend(word.take()),
            '=' => ends.extend(word.take()),
            ' ' => {}
            letter if letter.is_ascii_alphanumeric() || "-_".contains(letter) => word = Some(at + 1),
            _ => word = None,
        }
    }
    ends
}

#[test]
fn keys_are_found_and_values_are_not() {
    let toml = "a = \"b = c\" # d = 1\n[[e]]\n[f.g-h]\ni = { j = true, k_l = [\"m\"] }\n";
    let mut found: Vec<String> = Vec::new();
    for end in keys(toml) {
        let start = toml[..end].rfind(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)).map_or(0, |at| at + 1);
        found.push(toml[start..end].to_owned());
    }
    assert_eq!(found, ["a", "e", "f", "g-h", "i", "j", "k_l"]);
}
