use std::sync::Arc;
use std::time::{Duration, Instant};

use super::process::{Family, Stat, Units, Watch, stat};
use super::series::MOST;
use super::*;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn begun(origin: Instant) -> Recorder {
    let recorder = Recorder::new();
    assert_eq!(recorder.begin(origin), origin);
    recorder
}

/// Within a histogram's error, above.
fn near(found: u64, wanted: u64, error: f64) -> bool {
    found >= wanted && found as f64 <= wanted as f64 * (1.0 + error) + 1.0
}

#[test]
fn percentiles_are_those_of_what_was_recorded_by_whatever_thread() {
    let origin = Instant::now();
    let recorder = Arc::new(begun(origin));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let recorder = &recorder;
            scope.spawn(move || {
                // 1 ms to 80,000 ms, each once, in all.
                for step in 0..10_000 {
                    recorder.record(Stage::Answer, origin + ms(step), ms(1 + step * 8 + thread));
                }
            });
        }
    });
    let figures = recorder.figures();
    let answer = &figures.stages[Stage::Answer as usize];
    assert_eq!(answer.count, 80_000);
    for (found, wanted) in [
        (answer.p50, 40_000_000),
        (answer.p90, 72_000_000),
        (answer.p99, 79_200_000),
        (answer.p99_9, 79_920_000),
        (answer.p99_99, 79_992_000),
        (answer.max, 80_000_000),
    ] {
        assert!(near(found, wanted, 0.001), "{found} for {wanted}");
    }
    assert!((answer.mean as f64 / 40_000_500.0 - 1.0).abs() < 0.001);
    // The curve goes as far as 80,000 tell apart, and stays in order.
    assert!(answer.curve.is_sorted() && answer.curve.last().unwrap().0 >= 9_999_800, "{:?}", answer.curve);
    let p99 = answer.curve.iter().find(|(quantile, _)| *quantile == 9_900_000).unwrap();
    assert_eq!(p99.1, answer.p99);
    // The other stages heard nothing.
    assert_eq!(figures.stages[Stage::Delivery as usize], Spread::default());
}

#[test]
fn a_few_latencies_make_a_short_curve() {
    let recorder = Recorder::new();
    recorder.record(Stage::Wait, Instant::now(), Duration::ZERO);
    recorder.record(Stage::Wait, Instant::now(), Duration::MAX);
    let figures = recorder.figures();
    let wait = &figures.stages[Stage::Wait as usize];
    assert_eq!((wait.count, wait.p50), (2, 0));
    assert!(near(wait.max, LONGEST, 0.001));
    assert!(wait.curve.len() <= 4, "{:?}", wait.curve);
}

#[test]
fn intervals_hold_what_ended_in_them() {
    let origin = Instant::now();
    let recorder = begun(origin);
    for (at, latency, class) in
        [(0, 10, Class::Taken), (999, 20, Class::Taken), (1_000, 30, Class::Deferred), (3_500, 40, Class::NotSent)]
    {
        recorder.record(Stage::Answer, origin + ms(at), ms(latency));
        recorder.answered(class, origin + ms(at), 1_000);
    }
    recorder.record(Stage::Delivery, origin + ms(2_000), ms(70));
    let figures = recorder.figures();
    assert_eq!(figures.series.width, 1);
    let points = &figures.series.points;
    assert_eq!(
        points.iter().map(|point| point.classes).collect::<Vec<_>>(),
        [[2, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0; 5], [0, 0, 0, 0, 1]]
    );
    assert_eq!(points.iter().map(|point| point.delivered).collect::<Vec<_>>(), [0, 0, 1, 0]);
    assert_eq!(points.iter().map(|point| point.octets).collect::<Vec<_>>(), [2_000, 0, 0, 0]);
    assert!(near(points[0].answer[0], 10_000, 0.01) && near(points[0].answer[2], 20_000, 0.01), "{:?}", points[0]);
    assert!(near(points[2].delivery[1], 70_000, 0.01), "{:?}", points[2]);
    assert_eq!((figures.classes, figures.octets), ([2, 0, 1, 0, 1], 2_000));
}

#[test]
fn days_take_no_more_intervals_than_minutes_and_lose_no_mail() {
    let origin = Instant::now();
    let recorder = begun(origin);
    let minutes = 3 * 24 * 60;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let recorder = &recorder;
            // Not all threads see the last day: their widths differ.
            scope.spawn(move || {
                for minute in 0..minutes >> thread {
                    let at = origin + Duration::from_secs(60 * minute);
                    recorder.record(Stage::Answer, at, ms(5));
                    recorder.answered(Class::Taken, at, 1);
                }
            });
        }
    });
    let figures = recorder.figures();
    let mails: u64 = (0..4).map(|thread| minutes >> thread).sum();
    let points = &figures.series.points;
    assert_eq!(points.iter().map(|point| point.classes[0]).sum::<u64>(), mails);
    assert!(points.len() <= MOST && points.len() > MOST / 2, "{}", points.len());
    assert_eq!(figures.series.width, 512);
    assert_eq!(figures.stages[Stage::Answer as usize].count, mails);
    // Four threads in the first hours, one on the last day.
    assert!(points[0].classes[0] >= 32 && points.last().unwrap().classes[0] <= 9, "{points:?}");
}

#[test]
fn live_figures_are_those_of_the_last_whole_second() {
    let origin = Instant::now();
    let recorder = begun(origin);
    assert_eq!(recorder.live(origin), Live::default());
    assert_eq!(Recorder::new().live(origin), Live::default());
    for number in 0..100 {
        let at = origin + ms(5_000 + number * 10);
        recorder.record(Stage::Answer, at, ms(if number < 98 { 10 } else { 500 }));
        recorder.answered(Class::Taken, at, 1);
    }
    recorder.record(Stage::Answer, origin + ms(6_100), ms(9_000));
    recorder.answered(Class::Refused, origin + ms(6_100), 1);
    let live = recorder.live(origin + ms(6_200));
    assert_eq!((live.answered, live.classes), (100, [100, 1, 0, 0, 0]));
    assert!(near(live.p50.as_micros() as u64, 10_000, 0.01) && near(live.p99.as_micros() as u64, 500_000, 0.01));
    assert_eq!(recorder.live(origin + ms(7_000)).answered, 1);
    assert_eq!(recorder.live(origin + ms(8_000)).answered, 0);
    // The second that has the place of an older one begins at nothing.
    recorder.answered(Class::Taken, origin + ms(8_000), 1);
    assert_eq!(recorder.live(origin + ms(9_999)).answered, 1);
}

#[test]
fn the_best_answer_is_a_mails_class() {
    use crate::load::ledger::Answered::*;
    for (answers, class) in [
        (vec![Refused("550".into()), Taken, Deferred("450".into())], Class::Taken),
        (vec![Unknown("gone".into()), Refused("550".into())], Class::Refused),
        (vec![NotSent(String::new())], Class::NotSent),
        (vec![], Class::NotSent),
    ] {
        assert_eq!(Class::of(&answers), class);
    }
}

const LINE: &str = "S 1 77 77 0 -1 4194304 1 2 3 4 100 20 30 -1 20 0 1 0 5000 9999 250 18446744073709551615 1 2";

#[test]
fn stat_lines_are_read_whatever_a_command_is_called() {
    let wanted = Stat {
        pid: 4242,
        parent: 1,
        user: 100,
        system: 20,
        children_user: 30,
        children_system: 0,
        started: 5_000,
        pages: 250,
    };
    for name in [
        b"waxwing".as_slice(),
        b"",
        b"tmux: server",
        b") R 7 (",
        b"a) S 9 9 9",
        b"((()))",
        b"new\nline",
        b"\xff\xfe\x80",
        b"4242 (x) Z 3",
    ] {
        let line = [b"4242 (", name, b") ", LINE.as_bytes(), b"\n"].concat();
        assert_eq!(stat(&line), Some(wanted), "{}", name.escape_ascii());
    }
    for bad in ["", "1", "1 (x", "x (a) S 1", "1 (a) S 1 2 3", ")(", "-1 (a) S", "1 (a)"] {
        assert_eq!(stat(bad.as_bytes()), None, "{bad}");
    }
    // Our own, as this kernel writes it.
    let own = stat(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
    assert_eq!(own.pid, std::process::id());
    assert!(own.pages > 0 && own.started > 0);
}

#[test]
fn units_are_those_of_the_kernel() {
    let word = |number: u64| number.to_ne_bytes();
    let auxv = [17, 250, 6, 65_536, 0, 0].map(word).concat();
    assert_eq!(Units::read(&auxv), Units { ticks: 250, page: 65_536 });
    assert_eq!(Units::read(&auxv[..20]), Units { ticks: 250, page: 4_096 }, "cut short");
    assert_eq!(Units::read(&[17, 0].map(word).concat()), Units::default(), "no division by nothing");
}

/// pid, parent, started, user ticks, ticks of children waited for.
fn process(pid: u32, parent: u32, started: u64, user: u64, children: u64) -> Stat {
    Stat { pid, parent, user, system: 0, children_user: children, children_system: 0, started, pages: 10 }
}

fn family(children: bool) -> Family {
    Family::new(Watch { name: "x".into(), pid: 10, children }, Units::default())
}

/// Ticks used after these looks, and the peak in pages.
fn used(family: &mut Family, looks: &[&[Stat]]) -> (u64, u64) {
    for (second, look) in (0..).zip(looks) {
        family.look(Duration::from_secs(second), look);
    }
    let usage = family.usage();
    (usage.user / 10_000, usage.peak_rss / 4_096)
}

#[test]
fn a_family_is_a_process_and_its_children_those_that_end_too() {
    let other = process(99, 1, 1, 1_000_000, 0);
    let first: &[Stat] = &[other, process(10, 1, 5, 100, 7), process(11, 10, 6, 50, 0)];
    // A grandchild comes.
    let second: &[Stat] = &[other, process(10, 1, 5, 110, 7), process(11, 10, 6, 60, 0), process(12, 11, 8, 5, 0)];
    assert_eq!(used(&mut family(true), &[first, second]), (25, 30));
    assert_eq!(used(&mut family(false), &[first, second]), (10, 10), "the process alone");
    // The child and the grandchild end, and are waited for: 11 by 10, with what 11 had of 12.
    let third: &[Stat] = &[other, process(10, 1, 5, 120, 7 + 70 + 6)];
    assert_eq!(used(&mut family(true), &[first, second, third]), (20 + 20 + 6, 30));
    // The child ends; the grandchild goes to init, and is still of the family, also when it has ended.
    let orphan: &[Stat] = &[other, process(10, 1, 5, 120, 7 + 70), process(12, 1, 8, 15, 0)];
    let alone: &[Stat] = &[other, process(10, 1, 5, 130, 7 + 70)];
    assert_eq!(used(&mut family(true), &[first, second, orphan]), (20 + 20 + 15, 30));
    assert_eq!(used(&mut family(true), &[first, second, orphan, alone]), (30 + 20 + 15, 30));
    // All end: what was used was used. Another process with the number is none of them.
    let stranger: &[Stat] = &[other, process(10, 1, 500, 9_000, 0)];
    assert_eq!(used(&mut family(true), &[first, second, &[other], stranger]), (25, 30));
    // One that never was.
    assert_eq!(used(&mut family(true), &[&[other], &[other]]), (0, 0));
}

#[test]
fn many_looks_are_thinned_out_and_the_last_stays() {
    let mut family = family(false);
    for look in 0..100_000_u64 {
        family.look(ms(look), &[process(10, 1, 5, look, 0)]);
    }
    let looks = family.usage().looks;
    assert!((256..=514).contains(&looks.len()), "{}", looks.len());
    assert_eq!((looks[0].at, looks.last().unwrap().at), (0, 99_999_000));
    assert_eq!(looks.last().unwrap().cpu, 99_999 * 10_000);
    assert!(looks.is_sorted_by_key(|look| look.at));
}

#[test]
fn this_process_is_seen_at_work() {
    let origin = Instant::now();
    let sampler = sampler::Sampler::start(origin, vec![sampler::own("lab")]).unwrap();
    let mut sum = 0_u64;
    // Until the kernel has counted some ticks of this thread; another test's work counts too, and is welcome.
    let ticks = || stat(&std::fs::read("/proc/self/stat").unwrap()).map(|stat| stat.user + stat.system).unwrap();
    let before = ticks();
    while ticks() < before + 5 {
        sum =
            (0..100_000).fold(sum, |sum: u64, number| std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number)));
    }
    let usage = sampler.finish();
    assert_eq!((usage.len(), usage[0].name.as_str(), usage[0].pid), (1, "lab", std::process::id()));
    assert!(usage[0].user + usage[0].system >= 50_000, "{usage:?}");
    assert!(usage[0].peak_rss > 1 << 20 && usage[0].looks.len() >= 2, "{usage:?}");
}
