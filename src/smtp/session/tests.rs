use super::record::{Record, play, run, settings};
use super::*;
use proptest::prelude::*;

const EHLO: &[u8] = b"EHLO client.example\r\n";
const ENVELOPE: &[u8] = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n";

fn smtp(turns: &[&[u8]]) -> Record {
    run(false, turns, usize::MAX)
}

/// The codes of the replies after the greeting.
fn codes(record: &Record) -> Vec<u16> {
    record
        .output
        .lines()
        .skip(1)
        .filter(|line| line.as_bytes()[3] == b' ')
        .map(|line| line.split_at(3).0.parse().unwrap())
        .collect()
}

#[test]
fn a_pipelined_mail() {
    let record = smtp(&[EHLO, ENVELOPE, b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n"]);
    assert_eq!(codes(&record), [250, 250, 250, 354, 250, 221]);
    assert_eq!(record.messages, [b"Subject: x\r\n\r\n.dot\r\n"]);
    assert_eq!(record.events.iter().filter(|event| *event == "Message").count(), 1);
    for offer in
        ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "SIZE 1000", "STARTTLS"]
    {
        assert!(record.output.contains(offer), "{offer}");
    }
}

#[test]
fn two_mails_and_an_empty_one() {
    let record = smtp(&[EHLO, ENVELOPE, b"1\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\n", b".\r\n"]);
    assert_eq!(codes(&record), [250, 250, 250, 354, 250, 250, 250, 354, 250]);
    assert_eq!(record.messages, [b"1\r\n".to_vec(), vec![]]);
    assert!(record.events.iter().any(|event| event.contains("local: \"postmaster\", domain: Domain(\"example.org\")")));
}

#[test]
fn lmtp_answers_each_recipient() {
    let turns: [&[u8]; 3] = [
        b"LHLO client\r\n",
        b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<refuse@example.net>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n",
        b"x\r\n.\r\n",
    ];
    assert_eq!(codes(&run(true, &turns, 1)), [250, 250, 250, 550, 250, 354, 250, 250]);
    let fault = [turns[0], turns[1], b"x\n.\r\n\r\n.\r\n"];
    assert_eq!(codes(&run(true, &fault, 1)), [250, 250, 250, 550, 250, 354, 550, 550]);
    assert_eq!(codes(&run(true, &[EHLO], 1)), [500]);
    assert_eq!(codes(&run(false, &[b"LHLO x\r\n"], 1)), [500]);
}

#[test]
fn replies_are_made_to_fit_so_that_no_mail_is_lost() {
    let ok = Reply::new(250, Enhanced(2, 0, 0), "ok");
    let later = Reply::new(421, Enhanced(4, 3, 0), "later");
    for (lmtp, replies, expected) in [
        (false, vec![ok.clone(), later.clone()], "451 4.3.0 later\r\n"),
        (false, vec![], "451 4.3.0 no answer; try again\r\n"),
        (true, vec![ok.clone(), later.clone()], "250 2.0.0 ok\r\n451 4.3.0 later\r\n"),
        (true, vec![later.clone()], "451 4.3.0 later\r\n451 4.3.0 later\r\n"),
        (true, vec![], "451 4.3.0 no answer; try again\r\n451 4.3.0 no answer; try again\r\n"),
    ] {
        let mut session = Session::new(Arc::new(settings(lmtp).unwrap()), LineEnds::Refuse, false);
        session.state = State::WaitMessage;
        session.transaction = Some(Transaction { accepted: 2, ..Transaction::default() });
        session.answer_message(&replies);
        assert_eq!(session.take_output(), expected.as_bytes());
    }
}

#[test]
fn order_and_limits() {
    for (turns, expected) in [
        (vec![&b"MAIL FROM:<a@b>\r\n"[..]], vec![503]),
        (vec![b"EHLO x\r\n", b"RCPT TO:<a@b>\r\nDATA\r\n"], vec![250, 503, 503]),
        (vec![b"EHLO x\r\n", b"MAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nDATA\r\n"], vec![250, 250, 503, 503]),
        (vec![b"EHLO x\r\n", b"MAIL FROM:<a@b>\r\nRSET\r\nRCPT TO:<a@b>\r\n"], vec![250, 250, 250, 503]),
        (vec![b"EHLO x\r\n", b"MAIL FROM:<a@b> SIZE=1001\r\n"], vec![250, 552]),
        (vec![b"EHLO x\r\n", b"MAIL FROM:<a@b> SIZE=1000\r\n"], vec![250, 250]),
        (vec![b"EHLO x\r\n", b"MAIL FROM:<\xc3\xbc@b>\r\nMAIL FROM:<\xc3\xbc@b> SMTPUTF8\r\n"], vec![250, 553, 250]),
        (vec![b"EHLO x\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<\xc3\xbc@b>\r\n"], vec![250, 250, 553]),
        (vec![b"HELO x\r\n", b"MAIL FROM:<a@b> SIZE=1\r\n"], vec![250, 555]),
        (vec![b"EHLO x\r\n", b"VRFY a\r\nHELP\r\nEXPN a\r\nXYZ\r\nNOOP\r\n"], vec![250, 252, 214, 502, 500, 250]),
        (vec![b"EHLO x\r\n", b"NOOP\nNOOP\r\n"], vec![250, 500, 250]),
        (vec![b"EHLO x\r\n", b"BDAT 5 LAST\r\nabc\r\n.\r\nMAIL FROM:<a@b>\r\n"], vec![250, 503, 500, 250]),
        (vec![b"EHLO x\r\n", b"BDAT x\r\nMAIL FROM:<a@b>\r\n"], vec![250, 501]),
        (vec![b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], vec![554]),
        (
            vec![
                b"EHLO x\r\n",
                b"MAIL FROM:<a@b>\r\nRCPT TO:<1@b>\r\nRCPT TO:<2@b>\r\nRCPT TO:<refuse@b>\r\nRCPT TO:<3@b>\r\nRCPT TO:<4@b>\r\n",
            ],
            vec![250, 250, 250, 250, 550, 250, 452],
        ),
    ] {
        assert_eq!(codes(&smtp(&turns)), expected, "{}", String::from_utf8_lossy(&turns.concat()));
    }
}

#[test]
fn rcpts_that_lie_together_are_taken_before_their_answers() {
    let mut session = Session::new(Arc::new(settings(false).unwrap()), LineEnds::Refuse, false);
    session.greet();
    session.take_output();
    session.step(EHLO);
    session.take_output();
    assert!(matches!(session.step(b"MAIL FROM:<a@b>\r\n").event, Some(Event::Mail(..))));
    let (yes, no) = (Reply::new(250, Enhanced(2, 1, 5), "yes"), Reply::new(550, Enhanced(5, 1, 1), "no"));
    assert_eq!(session.further_rcpt(b"RCPT TO:<1@b>\r\n"), None, "MAIL waits for its answer");
    session.answer(&yes);
    assert_eq!(session.further_rcpt(b"RCPT TO:<1@b>\r\n"), None, "the first is an event");
    assert!(matches!(session.step(b"RCPT TO:<1@b>\r\n").event, Some(Event::Rcpt(_))));
    for other in ["RCPT TO:<2@b>", "RCPT TO:<2@b>\n", "RCPT TO:<2@b> X=1\r\n", "RCPT TO:<\u{fc}@b>\r\n", "DATA\r\n", ""]
    {
        assert_eq!(session.further_rcpt(other.as_bytes()), None, "{other:?}");
    }
    for mailbox in ["2@b", "3@b"] {
        let line = format!("rcpt TO:<{mailbox}>\r\n");
        let (octets, recipient) = session.further_rcpt(format!("{line}DATA\r\n").as_bytes()).unwrap();
        assert_eq!((octets, recipient.mailbox.to_string().as_str()), (line.len(), mailbox));
    }
    assert_eq!(session.further_rcpt(b"RCPT TO:<4@b>\r\n"), None, "three are the limit, were all of them taken");
    for reply in [&yes, &no, &yes] {
        assert_eq!(session.step(b"NOOP\r\n"), Step { eaten: 0, event: None }, "an answer is due");
        session.answer(reply);
    }
    let said = String::from_utf8(session.take_output().to_vec()).unwrap();
    assert_eq!(said, "250 2.1.5 yes\r\n250 2.1.5 yes\r\n550 5.1.1 no\r\n250 2.1.5 yes\r\n");
    assert!(matches!(session.step(b"RCPT TO:<4@b>\r\n").event, Some(Event::Rcpt(_))), "one was refused");
    let mut without = Session::new(Arc::new(settings(false).unwrap()), LineEnds::Refuse, false);
    without.greet();
    for line in [&b"HELO x\r\n"[..], b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<1@b>\r\n"] {
        without.take_output();
        without.step(line);
        if matches!(without.state, State::WaitMail { .. }) {
            without.answer(&yes);
        }
    }
    assert_eq!(without.further_rcpt(b"RCPT TO:<2@b>\r\n"), None, "HELO offers no PIPELINING");
}

#[test]
fn a_message_over_the_limit_is_eaten_and_refused() {
    let body = [b"x".repeat(2000), b"\r\n.\r\nNOOP\r\n".to_vec()].concat();
    let record = smtp(&[EHLO, ENVELOPE, &body]);
    assert_eq!(codes(&record), [250, 250, 250, 354, 552, 250]);
    assert_eq!(record.messages.len(), 0);
}

#[test]
fn long_lines_and_many_errors() {
    let long = [b"NOOP ".to_vec(), b"x".repeat(10_000), b"\r\nNOOP\r\n".to_vec()].concat();
    for chunk in [1, 5000, usize::MAX] {
        assert_eq!(codes(&run(false, &[EHLO, &long], chunk)), [250, 500, 250]);
    }
    let record = smtp(&[EHLO, &b"WHAT\r\n".repeat(50)]);
    assert_eq!(codes(&record), [vec![250], vec![500; 20], vec![421]].concat());
    let record = smtp(&[EHLO, &b"NOOP\r\n".repeat(500)]);
    assert_eq!(codes(&record).len(), 102);
    assert_eq!(record.events.last().unwrap(), "Close");
}

#[test]
fn a16_what_follows_a_false_end_is_no_second_message() {
    for sequence in [
        &b"\n.\n"[..],
        b"\r.\r",
        b"\r.\n",
        b"\n.\r",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
    ] {
        let smuggled = [b"first", sequence, b"MAIL FROM:<evil@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nsecond\r\n.\r\n"].concat();
        let record = smtp(&[EHLO, ENVELOPE, &smuggled]);
        assert_eq!(codes(&record), [250, 250, 250, 354, 550], "{sequence:?}");
        assert!(record.messages.is_empty());
        assert_eq!(record.events.iter().filter(|event| event.starts_with("Mail")).count(), 1);
    }
}

#[test]
fn a17_nothing_sent_after_starttls_is_answered() {
    for injected in [&b"NOOP\r\n"[..], b"M", b"EHLO evil\r\nMAIL FROM:<evil@x>\r\n"] {
        for chunk in [1, usize::MAX] {
            let record = run(false, &[EHLO, &[b"STARTTLS\r\n", injected].concat(), b"NOOP\r\n"], chunk);
            assert_eq!(codes(&record), [250], "not even 220 is given");
            assert_eq!(record.events.last().unwrap(), "Close");
        }
    }
}

#[test]
fn a17_tls_forgets_all_that_was_said_before() {
    let record = smtp(&[
        EHLO,
        b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nSTARTTLS\r\n",
        b"DATA\r\n",
        b"MAIL FROM:<a@b>\r\n",
        EHLO,
        b"STARTTLS\r\n",
    ]);
    assert_eq!(codes(&record), [250, 250, 250, 220, 503, 503, 250, 503]);
    assert_eq!(record.output.matches("STARTTLS\r\n").count(), 1, "not offered inside TLS");
}

#[test]
fn no_mail_without_tls_where_it_is_required() {
    let settings = Settings { tls_required: true, ..settings(false).unwrap() };
    let record = play(
        Session::new(Arc::new(settings), LineEnds::Refuse, false),
        &[EHLO, b"MAIL FROM:<a@b>\r\nSTARTTLS\r\n", EHLO, b"MAIL FROM:<a@b>\r\n"],
        1,
    );
    assert_eq!(codes(&record), [250, 530, 220, 250, 250]);
}

#[test]
fn a19_an_early_talker_is_refused() {
    let mut session = Session::new(Arc::new(settings(false).unwrap()), LineEnds::Refuse, false);
    assert_eq!(session.step(EHLO), Step { eaten: EHLO.len(), event: Some(Event::Close) });
    assert!(session.take_output().starts_with(b"554 "));
    session.greet();
    assert!(!session.has_output());
}

#[test]
fn a19_pipelining_out_of_turn_is_refused() {
    let dropped = |turns: &[&[u8]], expected: &[u16]| {
        for chunk in [1, usize::MAX] {
            let record = run(false, turns, chunk);
            assert_eq!(codes(&record), expected);
            assert_eq!(record.events.last().unwrap(), "Close");
            assert!(record.messages.is_empty());
        }
    };
    dropped(&[b"EHLO x\r\nMAIL FROM:<a@b>\r\n"], &[250, 554]);
    dropped(
        &[EHLO, &[ENVELOPE, b"evil\r\n.\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"].concat()],
        &[250, 250, 250, 354, 554],
    );
    dropped(&[b"HELO x\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\n"], &[250, 250, 554]);
    dropped(&[b"NOOP\r\nNOOP\r\n"], &[250, 554]);
}

#[test]
fn xclient_is_for_those_who_may() {
    let play_as = |allowed: bool, turns: &[&[u8]]| {
        let mut session = Session::new(Arc::new(settings(false).unwrap()), LineEnds::Refuse, false);
        if allowed {
            session.allow_xclient();
        }
        play(session, turns, usize::MAX)
    };
    let record = play_as(false, &[EHLO, b"XCLIENT ADDR=192.0.2.1\r\n"]);
    assert_eq!(codes(&record), [250, 550]);
    assert!(!record.output.contains("XCLIENT"));
    // It begins anew: EHLO is wanted again, and nothing may be sent before the greeting was read.
    let record = play_as(
        true,
        &[
            EHLO,
            b"XCLIENT ADDR=192.0.2.1 LOGIN=a@b\r\n",
            b"MAIL FROM:<a@b>\r\n",
            EHLO,
            b"MAIL FROM:<a@b>\r\nXCLIENT PORT=1\r\n",
        ],
    );
    assert_eq!(codes(&record), [250, 220, 503, 250, 250, 503]);
    assert!(record.output.contains("250 XCLIENT NAME ADDR "));
    assert_eq!(record.events.iter().filter(|event| event.starts_with("Client(")).count(), 1);
    let record = play_as(true, &[EHLO, b"XCLIENT ADDR=192.0.2.1\r\nEHLO x\r\n"]);
    assert_eq!(codes(&record), [250, 220, 554]);
}

/// It is for those who may, holds for one mail, and is no more after RSET.
#[test]
fn xforward_is_for_those_who_may_and_for_one_mail() {
    let record = smtp(&[EHLO, b"XFORWARD ADDR=192.0.2.1\r\n"]);
    assert_eq!(codes(&record), [250, 550]);
    assert!(!record.output.contains("XFORWARD"));
    let mut session = Session::new(Arc::new(settings(false).unwrap()), LineEnds::Refuse, false);
    session.allow_xforward();
    let record = play(
        session,
        &[
            b"XFORWARD ADDR=192.0.2.1\r\n",
            EHLO,
            &[&b"XFORWARD ADDR=192.0.2.1 NAME=[UNAVAILABLE]\r\nXFORWARD HELO=one\r\n"[..], ENVELOPE].concat(),
            b"1\r\n.\r\n",
            ENVELOPE,
            b"2\r\n.\r\nXFORWARD HELO=two\r\nRSET\r\nMAIL FROM:<a@b>\r\nXFORWARD HELO=three\r\n",
        ],
        usize::MAX,
    );
    assert_eq!(codes(&record), [503, 250, 250, 250, 250, 250, 354, 250, 250, 250, 354, 250, 250, 250, 250, 503]);
    assert!(record.output.contains("250 XFORWARD NAME ADDR "));
    let mails: Vec<&String> = record.events.iter().filter(|event| event.starts_with("Mail(")).collect();
    assert!(mails[0].contains("address: Some(192.0.2.1)") && mails[0].contains("helo: Some(\"one\")"), "{mails:?}");
    assert!(mails[1..].iter().all(|mail| mail.contains("client: None")), "{mails:?}");
}

#[test]
fn authentication_in_each_form() {
    use base64::Engine;
    let text = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let (right, wrong) = (text("\0anna\0right"), text("\0anna\0wrong"));
    let one = |turns: &[String], expected: &[u16]| {
        let mut all = vec![EHLO];
        all.extend(turns.iter().map(String::as_bytes));
        let record = run(false, &all, usize::MAX);
        assert_eq!(codes(&record), expected, "{turns:?}");
        record
    };
    let line = |text: &str| format!("{text}\r\n");
    let record = one(&[line(&format!("AUTH PLAIN {right}"))], &[250, 235]);
    assert!(record.output.contains("AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n"));
    one(&[line("auth plain"), line(&right)], &[250, 334, 235]);
    one(&[line(&format!("AUTH PLAIN {wrong}")), line(&format!("AUTH PLAIN {right}"))], &[250, 535, 235]);
    one(&[line("AUTH LOGIN"), line(&text("anna")), line(&text("right"))], &[250, 334, 334, 235]);
    one(&[line(&format!("AUTH LOGIN {}", text("anna"))), line(&text("wrong"))], &[250, 334, 535]);
    // Once, and nothing in between counts as a command.
    one(&[line(&format!("AUTH PLAIN {right}")), line("AUTH PLAIN")], &[250, 235, 503]);
    one(&[line("AUTH PLAIN"), line("*"), line("NOOP")], &[250, 334, 501, 250]);
    one(&[line("AUTH PLAIN"), line("QUIT"), line("NOOP")], &[250, 334, 501, 250]);
    one(&[line("AUTH LOGIN ="), line("NOOP")], &[250, 501, 250]);
    one(&[line("AUTH GSSAPI")], &[250, 504]);
    one(&[line("MAIL FROM:<a@b> AUTH=<>"), line("AUTH PLAIN")], &[250, 250, 503]);
    // SCRAM: the client's proof of RFC 7677 is for another nonce.
    let first = text("n,,n=anna,r=abcdefgh");
    let last = text("c=biws,r=abcdefghnonce,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let record = one(&[line(&format!("AUTH SCRAM-SHA-256 {first}")), line(&last)], &[250, 334, 535]);
    assert!(record.events.contains(&"NotAuthenticated(\"anna\")".to_owned()));
    // Not pipelined: what is behind it could have been injected.
    one(&["AUTH PLAIN\r\nNOOP\r\n".to_owned()], &[250, 334, 554]);
}

#[test]
fn no_authentication_in_clear_unless_told() {
    let settings = Settings { auth: AuthOffer::WithinTls, ..settings(false).unwrap() };
    let session = Session::new(Arc::new(settings), LineEnds::Refuse, false);
    let record =
        play(session, &[EHLO, b"AUTH PLAIN\r\n", b"STARTTLS\r\n", b"AUTH PLAIN\r\n", EHLO, b"AUTH PLAIN\r\n"], 1);
    assert_eq!(codes(&record), [250, 538, 220, 503, 250, 334]);
    assert_eq!(record.output.matches("AUTH SCRAM").count(), 1, "offered inside TLS alone");
    let settings = Settings { scram: false, ..super::record::settings(false).unwrap() };
    let turns: [&[u8]; 3] = [EHLO, b"AUTH SCRAM-SHA-256\r\n", b"AUTH PLAIN\r\n"];
    let record = play(Session::new(Arc::new(settings), LineEnds::Refuse, true), &turns, 1);
    assert_eq!(codes(&record), [250, 504, 334]);
    assert!(record.output.contains("AUTH PLAIN LOGIN\r\n"));
    let settings = Settings { auth: AuthOffer::Off, ..super::record::settings(false).unwrap() };
    let record = play(Session::new(Arc::new(settings), LineEnds::Refuse, true), &[EHLO, b"AUTH PLAIN\r\n"], 1);
    assert_eq!(codes(&record), [250, 503]);
}

#[test]
fn content_can_be_refused_while_it_comes() {
    let mut session = Session::new(Arc::new(settings(false).unwrap()), LineEnds::Refuse, false);
    session.state = State::Content(Box::new(Framing::new(LineEnds::Refuse, 1000)));
    session.transaction = Some(Transaction { accepted: 1, ..Transaction::default() });
    assert_eq!(session.step(b"a\r\n"), Step { eaten: 3, event: Some(Event::Content(b"a\r\n")) });
    session.refuse_content(&Reply::new(452, Enhanced(4, 3, 1), "full"));
    assert_eq!(session.step(b"b\r\n.\r\n"), Step { eaten: 6, event: Some(Event::Reset) });
    assert_eq!(session.take_output(), &b"452 4.3.1 full\r\n"[..]);
    assert!(!session.in_transaction());
}

/// The three foreign scripts, each by what it must not bring about.
#[test]
fn foreign_attack_sessions() {
    let Some(folder) = crate::outside::corpora() else { return };
    let table = std::fs::read_to_string(folder.join("smtp-attack/sessions.tsv")).unwrap();
    let mut seen = vec![];
    for line in table.lines().skip(1) {
        let (name, rest) = line.split_once('\t').unwrap();
        let script = rest.split('\t').next().unwrap().replace("\\r", "\r").replace("\\n", "\n");
        let (greeted, script) = match script.strip_prefix("EHLO x\r\n") {
            Some(script) => (true, script.as_bytes()),
            None => (false, script.as_bytes()),
        };
        let recipient = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n";
        let record = match name {
            "starttls-cmd-injection" => smtp(&[EHLO, script, b"NOOP\r\n"]),
            "data-pipelining" => smtp(&[EHLO, recipient, script]),
            "bdat-smuggle" => smtp(&[EHLO, recipient, script]),
            other => panic!("a new script: {other}"),
        };
        assert_eq!(greeted, name == "starttls-cmd-injection");
        if name == "bdat-smuggle" {
            // Exactly five octets; what is behind them is a command of the client's own.
            assert_eq!(record.messages, [b"abc\r\n"]);
        } else {
            assert_eq!(record.events.last().unwrap(), "Close", "{name}");
            assert!(record.messages.is_empty(), "{name}");
            assert!(record.events.iter().filter(|event| event.starts_with("Mail")).count() <= 1, "{name}");
        }
        seen.push(codes(&record));
    }
    assert_eq!(seen, [vec![250], vec![250, 250, 250, 354, 554], vec![250, 250, 250, 250, 500, 250]]);
}

const TO_ONE: &[u8] = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n";

/// Commands and content of a mail in chunks of these lengths, the last with what is left.
fn in_chunks(content: &[u8], lengths: &[usize]) -> Vec<u8> {
    let (mut wire, mut rest) = (Vec::new(), content);
    for length in lengths {
        let (chunk, more) = rest.split_at((*length).min(rest.len()));
        wire.extend(format!("BDAT {}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()));
        rest = more;
    }
    wire.extend(format!("BDAT {} LAST\r\n", rest.len()).bytes().chain(rest.iter().copied()));
    wire
}

#[test]
fn a18_chunks_are_one_message_and_nothing_in_them_is_an_end_or_a_command() {
    let content = b"Subject: x\r\n\r\n.\r\n.\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<b@x>\r\nBDAT 3 LAST\r\n..x\r\n";
    for lengths in [vec![], vec![0], vec![1, 0, 13, 7], vec![16, 3], vec![content.len()], vec![content.len() - 1]] {
        let wire = [TO_ONE, &in_chunks(content, &lengths), b"NOOP\r\n"].concat();
        for chunk in [1, 3, usize::MAX] {
            let record = run(false, &[EHLO, &wire], chunk);
            assert_eq!(record.messages, [content], "{lengths:?}");
            assert_eq!(codes(&record), vec![250; 5 + lengths.len()]);
            assert_eq!(record.events.iter().filter(|event| event.starts_with("Mail(")).count(), 1);
        }
    }
    // Over LMTP each chunk has an answer, the last one one for each recipient.
    let to_two = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\n";
    let record = run(true, &[b"LHLO x\r\n", &[&to_two[..], &in_chunks(b"a\r\n", &[1])].concat()], 1);
    assert_eq!(codes(&record), [250, 250, 250, 250, 250, 250, 250]);
    // A connection that ends within a chunk, or before the last one, has brought no message.
    for wire in [&b"BDAT 9 LAST\r\nhalf\r\n"[..], b"BDAT 4\r\nhalf"] {
        let record = smtp(&[EHLO, &[TO_ONE, wire].concat()]);
        assert!(record.messages.is_empty() && !record.events.contains(&"Message".to_owned()));
    }
}

#[test]
fn a18_chunks_in_a_wrong_order_are_eaten_and_refused() {
    for (wire, expected, messages) in [
        // Not before somebody is to get it.
        (&b"BDAT 7 LAST\r\nQUIT\r\n.NOOP\r\n"[..], vec![503, 250], 0),
        (b"MAIL FROM:<a@b>\r\nBDAT 6\r\nQUIT\r\nRCPT TO:<refuse@b>\r\nBDAT 6 LAST\r\nQUIT\r\n", vec![250, 503, 550, 503], 0),
        // Not mixed with DATA, and no recipient more.
        (
            b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nBDAT 3\r\na\r\nDATA\r\nRCPT TO:<b@b>\r\nMAIL FROM:<a@b>\r\nBDAT 0 LAST\r\n",
            vec![250, 250, 250, 503, 503, 503, 250],
            1,
        ),
        // RSET between chunks: what there was is gone.
        (
            b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nBDAT 3\r\na\r\nRSET\r\nBDAT 3 LAST\r\nb\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nBDAT 3 LAST\r\nc\r\n",
            vec![250, 250, 250, 250, 503, 250, 250, 250],
            1,
        ),
        // After the last one the mail is over.
        (b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nBDAT 3 LAST\r\na\r\nBDAT 3\r\nb\r\n", vec![250, 250, 250, 503], 1),
    ] {
        for chunk in [1, usize::MAX] {
            let record = run(false, &[EHLO, wire], chunk);
            assert_eq!(codes(&record), [vec![250], expected.clone()].concat(), "{}", String::from_utf8_lossy(wire));
            assert_eq!(record.messages.len(), messages);
        }
    }
    assert_eq!(codes(&smtp(&[b"HELO x\r\n", b"BDAT 6 LAST\r\nQUIT\r\n", b"NOOP\r\n"])), [250, 503, 250]);
}

/// What DATA refuses, chunks do not bring in; what is over the limit is read and not kept; and all goes on after RSET.
#[test]
fn a18_chunks_of_refused_content_are_eaten_and_bring_nothing() {
    let big = b"x".repeat(600);
    for (content, lengths, code) in [
        (&b"a\nb\r\n"[..], vec![3], 550),
        (b"a\r\n.\rb\r\n", vec![5], 550),
        (b"a\0\r\nb", vec![3], 550),
        (&[&big[..], &big[..]].concat(), vec![600, 500], 552),
        (&big.repeat(3), vec![1200, 100], 552),
    ] {
        let wire = [TO_ONE, &in_chunks(content, &lengths), b"RSET\r\n", TO_ONE, b"BDAT 3 LAST\r\nx\r\n"].concat();
        for chunk in [1, usize::MAX] {
            let record = run(false, &[EHLO, &wire], chunk);
            assert_eq!(record.messages, [b"x\r\n"]);
            let codes = codes(&record);
            let refused = codes.iter().filter(|one| **one == code).count();
            assert!((1..=lengths.len() + 1).contains(&refused), "{codes:?}");
            assert_eq!(codes[codes.len() - 5..], [code, 250, 250, 250, 250]);
            assert!(record.events.contains(&"Reset".to_owned()));
        }
    }
    // A bare CR at the end, held back until the last chunk has come.
    assert_eq!(codes(&smtp(&[EHLO, &[TO_ONE, &in_chunks(b"a\r", &[2])].concat()])), [250, 250, 250, 250, 550]);
    // A number that no memory holds is only counted.
    let mut session = Session::new(Arc::new(settings(false).unwrap()), LineEnds::Refuse, false);
    session.greet();
    session.take_output();
    let wire = b"BDAT 18446744073709551615\r\nQUIT\r\n";
    let step = session.step(wire);
    assert_eq!(step.event, Some(Event::ContentStart(None)));
    assert_eq!(session.step(&wire[step.eaten..]), Step { eaten: 6, event: None });
    assert!(session.in_content() && !session.has_output());
}

#[test]
fn fuzz_seeds() {
    for seed in [
        &b"\x01EHLO x\r\n\xffMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 2\r\n..BDAT 4 LAST\r\nx\r\n.BDAT 1 LAST\r\n."[..],
        b"\x01EHLO x\r\n\xffMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n\xff..x\r\n.\r\n",
        b"\x03LHLO x\r\n\xffSTARTTLS\r\nx",
        b"",
        b"\x02\n\r\n\0\r\n",
    ] {
        fuzz_session(seed);
    }
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(chunk in 1u8..9, parts in prop::collection::vec(prop::sample::select(vec![
        &b"\xff"[..], b"\xff", b"\xff", b"EHLO x\r\n", b"LHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b>\r\n", b"MAIL FROM:<refuse@b> SIZE=9\r\n",
        b"RCPT TO:<b@c>\r\n", b"RCPT TO:<refuse@c>\r\n", b"DATA\r\n", b"DATA\r\n\xff", b"body\r\n", b"..\r\n", b".\r\n", b"\r\n.\r\n", b"\n.\n", b"\r", b"RSET\r\n",
        b"NOOP\r\n", b"QUIT\r\n", b"STARTTLS\r\n", b"BAD\r\n", b"BDAT 0\r\n", b"BDAT 7\r\n", b"BDAT 0 LAST\r\n", b"BDAT 3 LAST\r\n",
        b"EHLO x\r\n\xffMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\nBDAT 3\r\na\r\n", b"x", b"VRFY y\r\n", b"EHLO x\r\n\xffMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\nDATA\r\n\xff",
    ]), 0..24)) {
        fuzz_session(&[&[chunk], &parts.concat()[..]].concat());
    }

    /// However content is cut into chunks, and the wire into reads, it is the message, octet for octet.
    #[test]
    fn a18_any_chunks_are_the_same_message(
        lines in prop::collection::vec("[.aQ]{0,5}", 0..12),
        lengths in prop::collection::vec(0usize..9, 0..8),
        chunk in 1usize..9,
    ) {
        let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let wire = [TO_ONE, &in_chunks(content.as_bytes(), &lengths)].concat();
        let record = run(false, &[EHLO, &wire], chunk);
        prop_assert_eq!(&record.messages, &[content.into_bytes()]);
        prop_assert_eq!(codes(&record).len(), 4 + lengths.len());
    }

    #[test]
    fn any_octets_are_survived(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_session(&data);
    }
}
