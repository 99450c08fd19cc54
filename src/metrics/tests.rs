use super::family::NAMES;
use super::*;
use crate::config::Direction;

fn written(metrics: &Metrics) -> String {
    let mut text = Text::default();
    metrics.write(&mut text);
    text.finish()
}

#[test]
fn a_latency_is_in_every_bucket_that_is_not_under_it() {
    let metrics = Metrics::default();
    metrics.stage(Stage::Treat, Duration::from_millis(3));
    metrics.stage(Stage::Treat, Duration::from_secs(100));
    let text = written(&metrics);
    let line = |le: &str, count| format!("waxwing_stage_seconds_bucket{{stage=\"treat\",le=\"{le}\"}} {count}\n");
    for (le, count) in [("0.0025", 0), ("0.005", 1), ("60", 1), ("+Inf", 2)] {
        assert!(text.contains(&line(le, count)), "{le}: {text}");
    }
    assert!(text.contains("waxwing_stage_seconds_sum{stage=\"treat\"} 100.003\n"));
    assert!(text.contains("waxwing_stage_seconds_count{stage=\"treat\"} 2\n"));
}

#[test]
fn every_label_has_a_number_of_its_own() {
    let metrics = Metrics::default();
    for (at, result) in SmimeResult::ALL.iter().enumerate() {
        (0..=at).for_each(|_| metrics.verdicts.one(*result));
    }
    metrics.mail(Way::Inbound, Fate::Spooled, 500);
    metrics.mail(Way::of_all([Direction::Inbound, Direction::Outbound].into_iter()), Fate::Rejected, 1);
    metrics.key(KeyUse::Agree, false, Duration::ZERO);
    metrics.turned_away(true);
    metrics.too_fast.one((Whose::User, Metered::Recipients));
    metrics.vouched.one(Vouched::Broken);
    metrics.hop_connections.one((FoundBy::Mx, (Protection::Dane, Opened::NoTls)));
    metrics.released.one(Once);
    metrics.authenticated(&[Finding::new(Method::Iprev, Outcome::PermError)]);
    let text = written(&metrics);
    for expected in [
        "waxwing_verdicts_total{result=\"none\"} 1",
        "waxwing_verdicts_total{result=\"permerror\"} 7",
        "waxwing_mails_total{direction=\"inbound\",outcome=\"spooled\"} 1",
        "waxwing_mails_total{direction=\"both\",outcome=\"rejected\"} 1",
        "waxwing_mails_total{direction=\"outbound\",outcome=\"spooled\"} 0",
        "waxwing_mail_octets_total{direction=\"inbound\"} 500",
        "waxwing_key_operations_total{operation=\"agree\",outcome=\"failed\"} 1",
        "waxwing_turned_away_total{outcome=\"deferred\"} 1",
        "waxwing_dkim_total{outcome=\"broken\"} 1",
        "waxwing_authentication_total{method=\"iprev\",result=\"permerror\"} 1",
        "waxwing_hop_connections_total{found_by=\"mx\",protection=\"dane\",outcome=\"no_tls\"} 1",
        "waxwing_hop_connections_total{found_by=\"mx\",protection=\"dane\",outcome=\"opened\"} 0",
        "waxwing_hop_connections_total{found_by=\"configuration\",protection=\"dane\",outcome=\"no_tls\"} 0",
        "waxwing_released_total 1",
        "waxwing_turned_away_total{outcome=\"rejected\"} 0",
        "waxwing_too_fast_total{whose=\"client\",what=\"recipients\"} 0",
        "waxwing_too_fast_total{whose=\"user\",what=\"recipients\"} 1",
    ] {
        assert!(text.contains(&format!("{expected}\n")), "{expected}: {text}");
    }
}

#[test]
fn names_of_rules_are_escaped_and_bounded() {
    let metrics = Metrics::default();
    metrics.ruled.one("a \"b\"\\\nc", (Way::Outbound, Ruled::Clear));
    for number in 0..NAMES + 50 {
        metrics.ruled.one(&format!("rule {number}"), (Way::Outbound, Ruled::Clear));
    }
    let text = written(&metrics);
    let samples = text.lines().filter(|line| line.starts_with("waxwing_recipients_total{"));
    assert_eq!(samples.count(), NAMES + 1);
    assert!(text.contains(r#"{rule="a \"b\"\\\nc",direction="outbound",treatment="clear"} 1"#));
    assert!(text.contains("{rule=\"other\",direction=\"outbound\",treatment=\"clear\"} 51\n"), "{text}");
}

#[test]
fn of_replies_those_that_take_nothing_are_counted_once_by_their_last_line() {
    let said =
        b"220 gw\r\n250-gw\r\n250 SIZE 1\r\n503 5.5.1 x\r\n550-5.7.5 a\r\n550 5.7.5 b\r\n421 4.7.0 x\r\n599 x\r\n45";
    let refused: Vec<Refused> = said.split(|octet| *octet == b'\n').filter_map(Refused::of).collect();
    assert_eq!(refused, [Refused::C503, Refused::C550, Refused::C421, Refused::Other]);
}
