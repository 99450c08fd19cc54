//! Mails in a file one after another: mbox (RFC 4155 appendix A), its quoting undone as mboxrd has it.

/// One mail of an mbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MboxMail {
    /// The sender that the "From " line names; empty where it names none.
    pub sender: String,
    /// Header and body; line ends as they are in the file.
    pub octets: Vec<u8>,
    /// It is longer than the limit, and its end is missing.
    pub cut: bool,
}

/// Takes an mbox apart line by line, so that a large one needs no more memory than its largest mail.
#[derive(Debug)]
pub struct MboxReader {
    limit: usize,
    mail: Option<MboxMail>,
    /// The line before was empty: the next may begin a mail.
    after_empty: bool,
    /// An empty line that belongs to the mail only if the mail goes on.
    held: Vec<u8>,
}

impl MboxReader {
    /// Mails are read up to `limit` octets each.
    pub fn new(limit: usize) -> Self {
        Self { limit, mail: None, after_empty: true, held: Vec::new() }
    }

    /// Takes the next line, its end included; gives the mail before it where it begins another. Lines before the first mail are
    /// passed over.
    pub fn line(&mut self, line: &[u8]) -> Option<MboxMail> {
        if let Some(envelope) = line.strip_prefix(b"From ").filter(|_| self.after_empty) {
            let sender = envelope.split(|octet| octet.is_ascii_whitespace()).next().unwrap_or_default();
            let sender = String::from_utf8_lossy(sender).into_owned();
            self.after_empty = false;
            self.held.clear();
            return self.mail.replace(MboxMail { sender, octets: Vec::new(), cut: false });
        }
        self.after_empty = matches!(line, b"\n" | b"\r\n");
        let held = std::mem::take(&mut self.held);
        self.push(&held);
        if self.after_empty {
            self.held = line.to_vec();
        } else {
            self.push(if is_quoted(line) { line.get(1..).unwrap_or_default() } else { line });
        }
        None
    }

    /// The last mail.
    pub fn end(mut self) -> Option<MboxMail> {
        // The header's own empty line may be the last.
        if self.mail.as_ref().is_some_and(|mail| !has_body(&mail.octets)) {
            let held = std::mem::take(&mut self.held);
            self.push(&held);
        }
        self.mail
    }

    fn push(&mut self, octets: &[u8]) {
        let Some(mail) = &mut self.mail else { return };
        let room = self.limit.saturating_sub(mail.octets.len());
        mail.cut |= octets.len() > room;
        mail.octets.extend(octets.iter().take(room));
    }
}

fn has_body(octets: &[u8]) -> bool {
    memchr::memmem::find(octets, b"\n\n").is_some() || memchr::memmem::find(octets, b"\n\r\n").is_some()
}

/// Quote signs, then "From ".
fn is_quoted(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|octet| **octet == b'>').count();
    quotes > 0 && line.get(quotes..).is_some_and(|rest| rest.starts_with(b"From "))
}

/// Fuzz body: no mail is longer than the limit, and nothing is made up.
#[doc(hidden)]
pub fn fuzz_mbox(data: &[u8]) {
    let mut reader = MboxReader::new(1000);
    let mut mails = Vec::new();
    for line in data.split_inclusive(|octet| *octet == b'\n') {
        mails.extend(reader.line(line));
    }
    mails.extend(reader.end());
    assert!(mails.iter().all(|mail| mail.octets.len() <= 1000));
    assert!(mails.iter().map(|mail| mail.octets.len()).sum::<usize>() <= data.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, limit: usize) -> Vec<MboxMail> {
        let mut reader = MboxReader::new(limit);
        let mut mails: Vec<MboxMail> =
            text.as_bytes().split_inclusive(|octet| *octet == b'\n').filter_map(|line| reader.line(line)).collect();
        mails.extend(reader.end());
        mails
    }

    #[test]
    fn mails_are_taken_apart_and_unquoted() {
        let text = "From anna@ours.example Mon Jun  1 10:00:00 2026\nSubject: one\n\nFrom here on\n>From there\n>>From two\n> From no\n\n\
            From MAILER-DAEMON Mon\nSubject: two\n\nbody\n\nmore\n";
        let mails = read(text, 1000);
        let octets = |at: usize| String::from_utf8(mails[at].octets.clone()).unwrap();
        assert_eq!(mails.len(), 3, "a line after an empty one that begins so begins a mail: {mails:?}");
        assert_eq!((mails[0].sender.as_str(), octets(0).as_str()), ("anna@ours.example", "Subject: one\n"));
        assert_eq!((mails[1].sender.as_str(), octets(1).as_str()), ("here", "From there\n>From two\n> From no\n"));
        assert_eq!(octets(2), "Subject: two\n\nbody\n\nmore\n");
        let quoted = text.replace("\nFrom here", "\n>From here");
        let mails = read(&quoted, 1000);
        assert_eq!(mails.len(), 2);
        assert_eq!(mails[0].octets, b"Subject: one\n\nFrom here on\nFrom there\n>From two\n> From no\n");
        let crlf = read(&quoted.replace('\n', "\r\n"), 1000);
        assert_eq!(crlf.len(), 2);
        assert!(crlf[0].octets.ends_with(b"> From no\r\n"));
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_no_mbox_gives_nothing() {
        let mails = read("From a@b.example x\nSubject: one\n\n0123456789\n\nFrom c@d.example x\nX: y\n\n", 20);
        assert_eq!((mails[0].cut, mails[0].octets.len(), mails[1].cut), (true, 20, false));
        assert_eq!(mails[1].octets, b"X: y\n\n", "the empty line that ends the header stays");
        assert!(read("Subject: x\n\nFrom the start\n", 1000).len() == 1);
        assert!(read("", 1000).is_empty() && read("Subject: x\n", 1000).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_octets(text in "((From |>|\r\n|\n|[a-z:]){0,40})", data in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            fuzz_mbox(text.as_bytes());
            fuzz_mbox(&data);
        }
    }
}
