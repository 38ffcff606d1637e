//! The page of a run: one file, with its plots as SVG in it, for light and dark screens.

use std::fmt::Write as _;

use testkit::load::{Latencies, Measured, Second};

use super::report::{Report, millis};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
/// Room for labels: left, right, top, bottom.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Points of a percentile curve.
const STEPS: u32 = 120;
/// The last percentile that is plotted: 99.99.
const NINES: f64 = 4.0;
/// Points that are few enough to be marked.
const DOTS: usize = 30;
/// Lines that are told apart by colour.
const COLOURS: usize = 6;

const STYLE: &str = "
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --ink: #1d2430; --dim: #667080; --rule: #e2e5ea;
  --c0: #2563c9; --c1: #d9662b; --c2: #23895b; --c3: #8b4bbf; --c4: #b8345a; --c5: #71808f; --good: #23895b; --bad: #c22f3d; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --card: #1c2027; --ink: #e4e8ee; --dim: #98a2b0; --rule: #333a45;
  --c0: #6ea8ff; --c1: #f59a63; --c2: #56c791; --c3: #c08df0; --c4: #f0779b; --c5: #a3b1c0; --good: #56c791; --bad: #ff7b86; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 56rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.35rem; margin: 0 } h2 { font-size: 1rem; margin: 0 0 .6rem }
p, figcaption { color: var(--dim); margin: .2rem 0 0 }
section, figure { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; margin: 1rem 0 0; padding: 1rem }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .8rem; margin: 0 }
dt { color: var(--dim); font-size: .8rem } dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100% } td, th { padding: .25rem .5rem; text-align: right; font-variant-numeric: tabular-nums }
td:first-child, th:first-child { text-align: left } th { color: var(--dim); font-weight: 400; border-bottom: 1px solid var(--rule) }
ul { list-style: none; margin: 0; padding: 0 } .yes::before { content: '✓ '; color: var(--good) } .no { color: var(--bad) }
.no::before { content: '✗ ' } svg { display: block; width: 100%; height: auto } svg text { fill: var(--dim); font-size: 11px }
.key span { margin-right: 1rem; white-space: nowrap } .key i { display: inline-block; width: 1.1em; height: 3px; margin-right: .35em;
  vertical-align: middle } pre { overflow: auto; font-size: 12px } summary { cursor: pointer }
";

/// A line of a plot over time: its name, and its value in a second.
type InSeconds<'a> = (&'a str, fn(&Second) -> u64);

/// A line of a plot.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// A plot's axis: where its marks are, and what they are called.
struct Axis {
    name: &'static str,
    from: f64,
    to: f64,
    marks: Vec<(f64, String)>,
}

/// The page of `report`, which is `json` in full.
pub fn render(report: &Report, json: &str) -> String {
    let mut page = String::new();
    // A string takes all that is written to it.
    let _ = write(report, json, &mut page);
    page
}

fn write(report: &Report, json: &str, page: &mut String) -> std::fmt::Result {
    let headline = escaped(&report.headline());
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{headline}</title>\n<style>{STYLE}</style></head><body>\n<h1>{headline}</h1>\n"
    )?;
    write!(page, "<section><h2>Figures</h2><dl>")?;
    for (name, value) in report.figures() {
        write!(
            page,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escaped(&name),
            escaped(&value)
        )?;
    }
    write!(page, "</dl></section>\n<section><h2>Checks</h2><ul>")?;
    for (name, held) in &report.checks {
        let class = if *held { "yes" } else { "no" };
        write!(page, "<li class=\"{class}\">{}</li>", name.replace('_', " "))?;
    }
    writeln!(page, "</ul></section>")?;
    percentiles(&report.curves(), page)?;
    if let Some(load) = &report.load {
        over_time(load, page)?;
    }
    if let Some(lag) = &report.lag {
        let lines: [InSeconds; 2] = [("median", |second| second.p50), ("longest", |second| second.max)];
        figure(
            "From the acknowledgment until it is seen",
            "The median and the longest of each second.",
            &in_seconds(lag, "ms", &lines),
            page,
        )?;
    }
    processes(report, page)?;
    writeln!(
        page,
        "<section><details><summary>All of it, as JSON</summary><pre>{}</pre></details></section>\n</body></html>",
        escaped(json)
    )
}

/// The further right, the rarer: each mark is a tenth of what the one before it leaves.
fn percentiles(curves: &[(&str, &Latencies)], page: &mut String) -> std::fmt::Result {
    let lines: Vec<Line> = curves
        .iter()
        .filter(|(_, latencies)| !latencies.is_empty())
        .map(|(name, latencies)| {
            let points = (0..=STEPS).map(|step| {
                let nines = NINES * f64::from(step) / f64::from(STEPS);
                let quantile = 1.0 - 10_f64.powf(-nines);
                (
                    nines,
                    millis(latencies.value_at_quantile(quantile).max(1)).log10(),
                )
            });
            Line {
                name,
                points: points.collect(),
            }
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    let marks = ["0", "90", "99", "99.9", "99.99"].iter().zip(0..);
    let x = Axis {
        name: "percentile",
        from: 0.0,
        to: NINES,
        marks: marks
            .map(|(name, at)| (f64::from(at), (*name).to_owned()))
            .collect(),
    };
    let (low, high) = bounds(&lines);
    let (from, to) = (low.floor(), high.ceil().max(low.floor() + 1.0));
    let powers = (from as i32)..=(to as i32);
    let y = Axis {
        name: "ms",
        from,
        to,
        marks: powers
            .map(|power| (f64::from(power), plain(10_f64.powi(power))))
            .collect(),
    };
    figure(
        "Latency by percentile",
        "Of steps that were done.",
        &(x, y, lines),
        page,
    )
}

fn over_time(load: &Measured, page: &mut String) -> std::fmt::Result {
    let mut lines: Vec<InSeconds> = vec![("done", |second| second.completed)];
    if load.shed > 0 {
        lines.push(("shed", |second| second.shed));
    }
    if load.failed > 0 {
        lines.push(("failed", |second| second.failed));
    }
    figure(
        "Throughput",
        "Steps that ended in each second.",
        &in_seconds(load, "a second", &lines),
        page,
    )?;
    let lines: [InSeconds; 2] = [
        ("median", |second| second.p50),
        ("99 of 100", |second| second.p99),
    ];
    figure(
        "Latency over time",
        "The median and the 99th percentile of each second.",
        &in_seconds(load, "ms", &lines),
        page,
    )
}

/// Lines over the seconds of the load; what ended later is left out. `ms` are given in microseconds.
fn in_seconds<'a>(
    load: &Measured,
    unit: &'static str,
    lines: &[InSeconds<'a>],
) -> (Axis, Axis, Vec<Line<'a>>) {
    let seconds = load.window.as_secs().max(1);
    let scale = if unit == "ms" { 1_000.0 } else { 1.0 };
    let lines: Vec<Line> = lines
        .iter()
        .map(|(name, value)| {
            let points = load.seconds.iter().take(seconds as usize).zip(1_u32..);
            Line {
                name,
                points: points
                    .map(|(second, number)| (f64::from(number), value(second) as f64 / scale))
                    .collect(),
            }
        })
        .collect();
    let to = (seconds as f64).max(2.0);
    let x = Axis {
        name: "second",
        from: 1.0,
        to,
        marks: marks(1.0, to, 1.0),
    };
    let top = bounds(&lines).1.max(f64::MIN_POSITIVE);
    let marks = marks(0.0, top, 0.0);
    let step = marks.get(1).map_or(top, |(at, _)| *at);
    let y = Axis {
        name: unit,
        from: 0.0,
        to: (top / step).ceil() * step,
        marks,
    };
    (x, y, lines)
}

fn bounds(lines: &[Line]) -> (f64, f64) {
    let values = lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y));
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// About six round numbers from `from` to `to`, no closer to each other than `least`.
fn marks(from: f64, to: f64, least: f64) -> Vec<(f64, String)> {
    let rough = (to - from).max(f64::MIN_POSITIVE) / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough)
        .max(least);
    let first = (from / step).ceil() as i64;
    let end = ((to / step).ceil() as i64).min(first + 12);
    (first..=end)
        .map(|number| number as f64 * step)
        .map(|at| (at, plain(at)))
        .collect()
}

/// A number without the digits that a float has too many.
fn plain(number: f64) -> String {
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn figure(
    title: &str,
    caption: &str,
    (x, y, lines): &(Axis, Axis, Vec<Line>),
    page: &mut String,
) -> std::fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let across = |at: f64| LEFT + (at - x.from) / (x.to - x.from) * (right - LEFT);
    let up = |at: f64| bottom - (at - y.from) / (y.to - y.from) * (bottom - TOP);
    write!(
        page,
        "<figure><h2>{title}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    )?;
    for (at, name) in y.marks.iter().filter(|(at, _)| *at <= y.to) {
        let (from, y) = (LEFT - 8.0, up(*at));
        write!(
            page,
            "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"var(--rule)\"/>\
             <text x=\"{from}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            y + 4.0
        )?;
    }
    for (at, name) in x.marks.iter().filter(|(at, _)| *at <= x.to) {
        let (x, y) = (across(*at), bottom + 16.0);
        write!(
            page,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{name}</text>"
        )?;
    }
    let (names_at, low) = (f64::midpoint(LEFT, right), HEIGHT - 6.0);
    write!(
        page,
        "<text x=\"{names_at}\" y=\"{low}\" text-anchor=\"middle\">{}</text>",
        x.name
    )?;
    let middle = f64::midpoint(TOP, bottom);
    write!(
        page,
        "<text x=\"14\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle})\">{}</text>",
        y.name
    )?;
    for (number, line) in lines.iter().enumerate() {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", across(*x), up(*y)))
            .collect();
        write!(
            page,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--c{})\" stroke-width=\"1.8\"/>",
            points.join(" "),
            number % COLOURS
        )?;
        // A line through few points is hardly one.
        for (x, y) in line.points.iter().filter(|_| line.points.len() <= DOTS) {
            write!(
                page,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"var(--c{})\"/>",
                across(*x),
                up(*y),
                number % COLOURS
            )?;
        }
    }
    write!(page, "</svg><p class=\"key\">")?;
    for (number, line) in lines.iter().enumerate() {
        let colour = number % COLOURS;
        write!(
            page,
            "<span><i style=\"background:var(--c{colour})\"></i>{}</span>",
            escaped(line.name)
        )?;
    }
    writeln!(page, "</p><figcaption>{caption}</figcaption></figure>")
}

fn processes(report: &Report, page: &mut String) -> std::fmt::Result {
    if report.processes.is_empty() {
        return Ok(());
    }
    write!(
        page,
        "<section><h2>Processes</h2><table><tr><th>name</th><th>CPU s/s</th><th>MB at start</th><th>peak</th><th>end</th></tr>"
    )?;
    for process in &report.processes {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        write!(
            page,
            "<tr><td>{}</td><td>{:.2}</td><td>{:.0}</td><td>{:.0}</td><td>{:.0}</td></tr>",
            escaped(&process.name),
            process.cpu,
            megabytes(process.rss_start),
            megabytes(process.rss_peak),
            megabytes(process.rss_end)
        )?;
    }
    writeln!(
        page,
        "</table><p>“bench” makes the load and checks it.</p></section>"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_cover_what_is_shown() {
        let names =
            |from, to| -> Vec<String> { marks(from, to, 0.0).into_iter().map(|(_, name)| name).collect() };
        assert_eq!(names(0.0, 10.0), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(names(0.0, 0.07), ["0", "0.02", "0.04", "0.06", "0.08"]);
        assert_eq!(
            marks(0.0, 23_456.0, 0.0).last().map(|(at, _)| *at >= 23_456.0),
            Some(true)
        );
        let seconds: Vec<f64> = marks(1.0, 3.0, 1.0).into_iter().map(|(at, _)| at).collect();
        assert_eq!(seconds, [1.0, 2.0, 3.0]);
        // Nothing happened.
        assert!(marks(0.0, 0.0, 0.0).len() <= 13);
    }
}
