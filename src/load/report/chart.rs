//! Lines, areas and dots as SVG. Colours and sizes of text are the page's (`page/style.css`).

use std::fmt::Write as _;

use super::page::escape;
use super::show;

/// How numbers become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
    /// Places of quantiles, each factor of ten nearer to 100 % as wide as the one before; see [`nines`].
    Nines,
}

/// What numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    /// Mails a second.
    Rate,
    Micros,
    Cores,
    Octets,
    Percentile,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) unit: Unit,
}

/// One series.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    /// From 1; the page's colours. 0 is the one for what is bad.
    pub(super) colour: usize,
    /// Runs of points without a gap.
    pub(super) runs: Vec<Vec<(f64, f64)>>,
    pub(super) shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Line,
    Dashed,
    Area,
    Dots,
}

#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// A level across, with its name.
    pub(super) level: Option<(f64, String)>,
}

/// Where a quantile stands: 90 % at 1, 99 % at 2, 99.9 % at 3.
pub(super) fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile.clamp(0.0, 1.0 - 1e-9)).log10()
}

/// Room for the labels: left, right, above, below.
const MARGIN: (f64, f64, f64, f64) = (58.0, 14.0, 10.0, 26.0);

/// An axis with its ends, in pixels and in numbers.
struct Ruler {
    axis: Axis,
    from: f64,
    to: f64,
    start: f64,
    length: f64,
}

impl Ruler {
    fn new(axis: Axis, values: impl Iterator<Item = f64>, start: f64, length: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite()) {
            (least, most) = (least.min(value), most.max(value));
        }
        let (from, to) = match axis.scale {
            Scale::Linear if axis.unit == Unit::Seconds => (0.0, if most > 0.0 { most } else { 1.0 }),
            Scale::Linear => (0.0, if most > 0.0 { most * 1.08 } else { 1.0 }),
            Scale::Nines => (0.0, most.max(1.0)),
            Scale::Log => {
                let (least, most) = (least.clamp(1.0, 1e15), most.clamp(1.0, 1e15));
                let (low, high) = (least.min(most).log10(), most.log10());
                // At least half a factor of ten, so that one value has something about it.
                let spare = ((0.5 - (high - low)) / 2.0).max(0.05);
                (low - spare, high + spare)
            }
        };
        Self { axis, from, to, start, length }
    }

    /// Pixels.
    fn place(&self, value: f64) -> f64 {
        let value = if self.axis.scale == Scale::Log { value.max(1.0).log10() } else { value };
        let share = (value - self.from) / (self.to - self.from);
        self.start + share.clamp(0.0, 1.0) * self.length
    }

    /// Round numbers between the ends, about so many.
    fn ticks(&self, about: f64) -> Vec<f64> {
        match self.axis.scale {
            Scale::Linear => {
                let step = round_step((self.to - self.from) / about, self.axis.unit);
                (0..100_u32).map(|n| f64::from(n) * step).take_while(|tick| *tick <= self.to * 1.000_001).collect()
            }
            Scale::Nines => {
                let all = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999, 0.999_999_9].map(nines);
                all.into_iter().filter(|tick| *tick <= self.to + 1e-6).collect()
            }
            Scale::Log => {
                let factors: &[f64] = match self.to - self.from {
                    decades if decades > 2.5 => &[1.0],
                    decades if decades > 1.2 => &[1.0, 3.0],
                    _ => &[1.0, 2.0, 3.0, 5.0, 7.0],
                };
                let decades = (0..16).flat_map(|decade| factors.iter().map(move |factor| factor * 10_f64.powi(decade)));
                decades.filter(|tick| (self.from..=self.to).contains(&tick.log10())).collect()
            }
        }
    }
}

/// The next of 1, 2, 5 times a power of ten; of times, the next that a clock has.
fn round_step(least: f64, unit: Unit) -> f64 {
    if unit == Unit::Seconds && least > 5.0 {
        let steps =
            [10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 21_600.0, 43_200.0];
        if let Some(step) = steps.into_iter().find(|step| *step >= least) {
            return step;
        }
    }
    if unit == Unit::Octets && least > 1.0 {
        return 2_f64.powf(least.log2().ceil());
    }
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least * 0.999_999)
        .unwrap_or(least)
}

/// A number at an axis; `longest` is the axis' end.
fn label(value: f64, unit: Unit, longest: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    let whole = value.round() as u64;
    match unit {
        Unit::Seconds if longest < 120.0 => format!("{} s", plain(value)),
        Unit::Seconds if longest < 7_200.0 => format!("{}:{:02}", whole / 60, whole % 60),
        Unit::Seconds => format!("{}:{:02} h", whole / 3_600, whole / 60 % 60),
        Unit::Rate if value >= 10_000.0 => format!("{}k", plain(value / 1e3)),
        Unit::Rate if value >= 1_000.0 => show::count(whole),
        Unit::Rate | Unit::Cores => plain(value),
        Unit::Micros if value < 1e3 => format!("{} µs", plain(value)),
        Unit::Micros if value < 1e6 => format!("{} ms", plain(value / 1e3)),
        Unit::Micros => format!("{} s", plain(value / 1e6)),
        Unit::Octets => show::octets(value).replace(".00", "").replace(".0 ", " "),
        Unit::Percentile => {
            let percent = (1.0 - 10_f64.powf(-value)) * 100.0;
            format!("{}%", plain((percent * 1e5).round() / 1e5))
        }
    }
}

/// Without zeros behind the point.
fn plain(value: f64) -> String {
    let text = format!("{value:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Chart {
    /// Whether there is anything to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.runs.iter().all(Vec::is_empty))
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|line| line.runs.iter().flatten().copied())
    }

    /// SVG of this size in pixels, that grows and shrinks with its place.
    pub(super) fn svg(&self, width: f64, height: f64, class: &str) -> String {
        let (left, right, above, below) = MARGIN;
        let levels = self.level.iter().map(|(level, _)| *level);
        let x = Ruler::new(self.x, self.points().map(|point| point.0), left, width - left - right);
        let y = Ruler::new(
            self.y,
            self.points().map(|point| point.1).chain(levels),
            height - below,
            above + below - height,
        );
        let mut svg = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n",
            escape(self.title)
        );
        // Writing to a String does not fail.
        for tick in y.ticks(5.0) {
            let at = y.place(tick);
            let end = width - right;
            let _ = write!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}H{end}\"/>");
            let text = label(tick, self.y.unit, y.to);
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" class=\"y\">{}</text>",
                left - 7.0,
                at + 4.0,
                escape(&text)
            );
        }
        let mut free = f64::NEG_INFINITY;
        for tick in x.ticks((width / 90.0).floor()) {
            let (at, text) = (x.place(tick), label(tick, self.x.unit, x.to));
            let half = show::float(text.chars().count() as u64) * 3.4;
            if at - half < free {
                continue;
            }
            free = at + half + 8.0;
            let middle = at.min(width - half - 2.0);
            let _ = write!(svg, "<path class=\"tick\" d=\"M{at:.1} {:.1}v4\"/>", height - below);
            let _ =
                writeln!(svg, "<text x=\"{middle:.1}\" y=\"{:.1}\" class=\"x\">{}</text>", height - 7.0, escape(&text));
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{left} {:.1}H{:.1}\"/>", height - below, width - right);
        if let Some((level, name)) = &self.level {
            let at = y.place(*level);
            let _ = write!(svg, "<path class=\"level\" d=\"M{left} {at:.1}H{:.1}\"/>", width - right);
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" class=\"y\">{}</text>",
                width - right,
                at - 5.0,
                escape(name)
            );
        }
        for line in &self.lines {
            line.draw(&mut svg, &x, &y);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl Line {
    fn draw(&self, svg: &mut String, x: &Ruler, y: &Ruler) {
        let colour = self.colour;
        let dash = if self.shape == Shape::Dashed { " dash" } else { "" };
        for run in self.runs.iter().filter(|run| !run.is_empty()) {
            let places: Vec<(f64, f64)> = run.iter().map(|(across, up)| (x.place(*across), y.place(*up))).collect();
            if self.shape == Shape::Dots || places.len() == 1 {
                for (across, up) in places {
                    let _ = writeln!(svg, "<circle class=\"f{colour}\" cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"4\"/>");
                }
                continue;
            }
            let mut path = String::new();
            for (number, (across, up)) in places.iter().enumerate() {
                let _ = write!(path, "{}{across:.1} {up:.1}", if number == 0 { 'M' } else { 'L' });
            }
            if let (Shape::Area, Some(first), Some(last)) = (self.shape, places.first(), places.last()) {
                let base = y.start;
                let _ = writeln!(
                    svg,
                    "<path class=\"a{colour}\" d=\"{path}L{:.1} {base:.1}L{:.1} {base:.1}Z\"/>",
                    last.0, first.0
                );
            }
            let _ = writeln!(svg, "<path class=\"l{colour}{dash}\" d=\"{path}\"/>");
        }
    }
}
