//! Tables for people.

use jiff::Timestamp;
use serde_json::Value;

use super::super::{print_table, shown};
use crate::admin::protocol::Change;

/// Characters of what stands in one cell.
const CELL: usize = 60;

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => shown(text),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A time as how long it is from now: `3 h`.
fn from_now(value: &Value, key: &str, now: Timestamp) -> String {
    let Some(time) = value.get(key).and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok()) else {
        return String::new();
    };
    spelt(time.duration_since(now).as_secs().unsigned_abs())
}

fn spelt(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn octets(octets: u64) -> String {
    match octets {
        0..10_240 => octets.to_string(),
        10_240..10_485_760 => format!("{}K", octets >> 10),
        _ => format!("{}M", octets >> 20),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= CELL {
        return text.to_owned();
    }
    text.chars().take(CELL - 1).chain(['…']).collect()
}

pub(super) fn list(entries: &[Value], now: Timestamp) {
    if entries.is_empty() {
        println!("no mail");
        return;
    }
    let row = |entry: &Value| {
        let recipients = items(entry, "recipients");
        let first = recipients.first().map(|one| text(one, "recipient")).unwrap_or_default();
        let more = number(entry, "recipients_total").saturating_sub(1);
        let to = if more == 0 { first } else { format!("{first} +{more}") };
        let last = recipients.iter().find_map(|one| one.get("last_reply").and_then(Value::as_str)).map(shown);
        let why = if entry.get("held").is_some_and(Value::is_string) {
            text(entry, "held")
        } else {
            last.unwrap_or_default()
        };
        vec![
            text(entry, "id"),
            text(entry, "state"),
            text(entry, "content"),
            octets(number(entry, "size")),
            from_now(entry, "created", now),
            text(entry, "attempts"),
            text(entry, "next_hop"),
            cut(&text(entry, "sender")),
            cut(&to),
            cut(&why),
        ]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    let heading = ["ID", "STATE", "CONTENT", "SIZE", "AGE", "TRIED", "NEXT HOP", "SENDER", "RECIPIENTS", "WHY"];
    print_table(&heading, &rows);
}

pub(super) fn entry(entry: &Value, now: Timestamp) {
    let line = |label: &str, value: String| {
        if !value.is_empty() {
            println!("{label:<10} {value}");
        }
    };
    line("id", text(entry, "id"));
    line("state", text(entry, "state"));
    line("held", text(entry, "held"));
    line("way", format!("{}, {}", text(entry, "direction"), what(entry)));
    line("size", format!("{} octets", number(entry, "size")));
    line("since", format!("{} ({})", text(entry, "created"), from_now(entry, "created", now)));
    line("tried", format!("{} times", number(entry, "attempts")));
    if entry.get("next_attempt").is_some_and(Value::is_string) {
        line("next try", format!("{} (in {})", text(entry, "next_attempt"), from_now(entry, "next_attempt", now)));
    }
    line("delay told", text(entry, "delay_told"));
    line("next hop", text(entry, "next_hop"));
    line("came by", text(entry, "listener"));
    line("user", text(entry, "user"));
    line("log id", text(entry, "log_id"));
    line("sender", text(entry, "sender"));
    for one in items(entry, "recipients") {
        let last = text(one, "last_reply");
        let last = if last.is_empty() { last } else { format!(": {last}") };
        line("recipient", format!("{} {}{last}", text(one, "recipient"), text(one, "state")));
    }
    line("content", text(entry, "content_error"));
    for field in items(entry, "header") {
        let part = |at: usize| field.get(at).and_then(Value::as_str).map(shown).unwrap_or_default();
        println!("  {}: {}", part(0), part(1));
    }
}

/// What the content is, in words.
fn what(entry: &Value) -> &'static str {
    match entry.get("content").and_then(Value::as_str) {
        Some("submitted") => "as submitted: policy treats it when it is released",
        Some("received") => "as received: opened and judged when it is handed over",
        Some("encrypted") => "encrypted",
        _ => "in clear, as it may leave",
    }
}

pub(super) fn changed(what: Change, changed: &[Value]) {
    if changed.is_empty() {
        println!("no mail");
    }
    let done = match what {
        Change::Retry => "is tried now",
        Change::Hold => "held",
        Change::Release => "released",
        Change::Delete => "deleted",
    };
    for one in changed {
        let id = text(one, "id");
        if one.get("done").and_then(Value::as_bool) == Some(true) {
            println!("{id}  {done}");
        } else {
            let hint = text(one, "hint");
            let hint = if hint.is_empty() { hint } else { format!("; {hint}") };
            println!("{id}  not done: {}{hint}", text(one, "error"));
        }
        for recipient in items(one, "recipients") {
            let leaves = recipient.get("leaves").and_then(Value::as_bool) == Some(true);
            let how = if leaves { "leaves" } else { "stays held" };
            println!("    {}  {how}: {}", text(recipient, "recipient"), text(recipient, "how"));
        }
    }
}

pub(super) fn stats(stats: &Value, now: Timestamp) {
    let sum = |hop: &Value, key: &str| {
        let sum = hop.get(key).unwrap_or(&Value::Null);
        format!("{} ({})", number(sum, "entries"), octets(number(sum, "octets")))
    };
    let row = |name: String, hop: &Value| {
        let states = ["waiting", "deferred", "delivering", "held"].map(|key| sum(hop, key));
        [vec![name], states.to_vec(), vec![from_now(hop, "oldest", now)]].concat()
    };
    let mut rows: Vec<Vec<String>> =
        items(stats, "by_next_hop").iter().map(|hop| row(text(hop, "next_hop"), hop)).collect();
    rows.push(row("all".into(), stats.get("total").unwrap_or(&Value::Null)));
    print_table(&["NEXT HOP", "WAITING", "OF THEM TRIED", "DELIVERING", "HELD", "OLDEST"], &rows);
    if let Some(health) = stats.get("next_hops").and_then(Value::as_array).filter(|health| !health.is_empty()) {
        println!("");
        let row = |hop: &Value| {
            let aside = hop.get("aside").and_then(Value::as_bool) == Some(true);
            let until = from_now(hop, "aside_until", now);
            let state = match (aside, until.is_empty()) {
                (false, _) => "in use".to_owned(),
                (true, true) => "set aside, tried with the next mail".to_owned(),
                (true, false) => format!("set aside for {until}"),
            };
            let counts = ["under_way", "answered", "failed"].map(|key| text(hop, key));
            [vec![text(hop, "next_hop"), state], counts.to_vec(), vec![cut(&text(hop, "last_error"))]].concat()
        };
        let rows: Vec<Vec<String>> = health.iter().map(row).collect();
        print_table(&["NEXT HOP", "STATE", "UNDER WAY", "ANSWERED", "FAILED", "LAST ERROR"], &rows);
    }
    if let Some(found) = stats.get("certificates").filter(|found| !found.is_null()) {
        let count = |key: &str| number(found, key);
        let (soon, expired) = (count("ours"), count("ours_expired"));
        if soon > 0 || expired > 0 {
            let days = count("within_days");
            println!(
                "\ncertificates of users of ours: {soon} run out within {days} days, {expired} have run out; `waxwing cert expiring` lists them"
            );
        }
    }
    let spool = stats.get("spool").unwrap_or(&Value::Null);
    if spool.get("takes_mail").and_then(Value::as_bool) == Some(false) {
        println!("\nno mail is taken: {}", text(spool, "trouble"));
    }
}
