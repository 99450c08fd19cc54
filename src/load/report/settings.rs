//! A scenario as keys and values.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{cut, show};
use crate::load::scenario::{Contents, FOREVER, Pace, People, Scenario, Sizes, Step, TlsMode, Verify};

/// By the keys of docs/scenario.toml; what has no meaning in a scenario is left out.
pub(super) fn of(scenario: &Scenario) -> BTreeMap<String, String> {
    let Scenario { bound, tls, sink, .. } = scenario;
    let mut settings = BTreeMap::new();
    let mut set = |key: &str, value: String| {
        settings.insert(key.to_owned(), cut(&value));
    };
    pace(&scenario.pace, &mut set);
    set("bound.mails", bound.mails.map_or_else(|| "none".into(), show::count));
    set("bound.time", bound.time.map_or_else(|| "none".into(), time));
    set("bound.drain", time(bound.drain));
    set("connection.count", scenario.connections.to_string());
    set("connection.mails", scenario.mails_per_connection.map_or_else(|| "kept".into(), |mails| mails.to_string()));
    let when = match tls.mode {
        TlsMode::Off => "off",
        TlsMode::StartTls => "starttls",
        TlsMode::Implicit => "implicit",
    };
    set("connection.tls", when.into());
    if tls.mode != TlsMode::Off {
        let verify = match &tls.verify {
            Verify::No => "no".into(),
            Verify::System => "by the system's CAs".into(),
            Verify::File(file) => format!("by {}", file.display()),
        };
        set("connection.verify", verify);
    }
    set("connection.hello", scenario.hello.to_string());
    set("connection.patience", time(scenario.patience));
    let contents = match &scenario.contents {
        Contents::Made => "made".into(),
        Contents::Folder(path) | Contents::Mbox(path) => path.display().to_string(),
    };
    if scenario.contents == Contents::Made {
        set("mail.size", sizes(&scenario.sizes));
    }
    set("mail.contents", contents);
    let (least, most) = scenario.recipients;
    set("mail.recipients", if least == most { least.to_string() } else { format!("{least} to {most}") });
    let mix = scenario.mix.iter().map(|(weight, kind)| format!("{} {weight}", kind.name()));
    set("mix", mix.collect::<Vec<_>>().join(", "));
    set("people", people(&scenario.people));
    set("profile", scenario.profile.clone());
    set("expect.verdict", scenario.verdict.to_string());
    set("seed", scenario.seed.to_string());
    if !sink.slow.is_zero() {
        set("sink.slow", time(sink.slow));
    }
    for (key, share) in [
        ("sink.defer", sink.defer),
        ("sink.refuse", sink.refuse),
        ("sink.close", sink.close),
        ("sink.stall", sink.stall),
    ] {
        if share > 0.0 {
            set(key, share.to_string());
        }
    }
    if sink.stall > 0.0 {
        set("sink.stall_for", time(sink.stall_for));
    }
    settings
}

fn time(time: Duration) -> String {
    if time >= FOREVER { "for ever".into() } else { show::micros(show::whole_micros(time)) }
}

fn pace(pace: &Pace, set: &mut impl FnMut(&str, String)) {
    let arrivals = |poisson: bool| if poisson { "poisson".to_owned() } else { "even".to_owned() };
    match pace {
        Pace::Closed => set("pace.kind", "closed".into()),
        Pace::Open { steps, poisson } => {
            set("pace.kind", "open".into());
            set("pace.arrivals", arrivals(*poisson));
            match steps[..] {
                [Step { rate, lasts, ramp: false }] if lasts >= FOREVER => set("pace.rate", format!("{rate}/s")),
                _ => set("pace.step", steps.iter().map(step).collect::<Vec<_>>().join(", ")),
            }
        }
        Pace::Knee { from, p99, each, most, poisson } => {
            set("pace.kind", "knee".into());
            set("pace.arrivals", arrivals(*poisson));
            set("pace.from", format!("{from}/s"));
            set("pace.most", format!("{most}/s"));
            set("pace.p99", time(*p99));
            set("pace.each", time(*each));
        }
    }
}

fn step(step: &Step) -> String {
    let how = if step.ramp { "to " } else { "" };
    format!("{how}{}/s for {}", step.rate, time(step.lasts))
}

fn sizes(of: &Sizes) -> String {
    let octets = |octets: usize| show::octets(show::float(octets as u64));
    match of {
        Sizes::Fixed(size) => octets(*size),
        Sizes::Even(from, to) => format!("{} to {}", octets(*from), octets(*to)),
        Sizes::LogNormal(median, p99, most) => {
            format!("median {}, p99 {}, most {}", octets(*median), octets(*p99), octets(*most))
        }
        Sizes::Choice(choices) => {
            let all = choices.iter().map(|(weight, size)| format!("{weight} × ({})", sizes(size)));
            all.collect::<Vec<_>>().join(" or ")
        }
    }
}

fn people(people: &People) -> String {
    match people {
        People::Named { from, to } => format!("{} to {}", named(from), named(to)),
        People::Made { count, keys } => format!("{count} of each side made for the run, keys {}", keys.join(", ")),
        People::Folder(folder) => format!("those in the folder {}", folder.display()),
        People::Store(file) => format!("those in the store of {}", file.display()),
    }
}

fn named(addresses: &[String]) -> String {
    match addresses {
        [first, _, ..] => format!("{first} and {} more", addresses.len() - 1),
        _ => addresses.concat(),
    }
}
