//! What a run came to: a table for people, JSON for programs, files to keep.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use testkit::load::{Latencies, Measured};

use super::checks::Checks;
use super::page;
use super::processes::{self, OWN, Use};
use crate::cli::{Baskets, Bench, Profile};
use crate::config::Config;
use crate::error::{CliError, Context};

/// A run's outcome.
pub struct Report {
    command: Bench,
    profile: Profile,
    machine: Value,
    /// None where nothing but a rebuild was asked for.
    pub load: Option<Measured>,
    /// What was answered a second; of a rebuild, events.
    pub throughput: f64,
    /// To the baseline, the bare handler, or the log alone.
    pub ratio: Option<f64>,
    pub kinds: Vec<Kind>,
    /// From the acknowledgment to the answer that shows it.
    pub lag: Option<Measured>,
    pub processes: Vec<Use>,
    pub checks: Checks,
    pub failures: BTreeMap<String, u64>,
    baseline: Option<(&'static str, Measured)>,
    also: Map<String, Value>,
}

/// Steps of one kind.
pub struct Kind {
    pub name: &'static str,
    pub per_second: f64,
    pub latencies: Latencies,
    /// A handler that only answers with the same bytes.
    pub bare: Option<(f64, Latencies)>,
}

impl Kind {
    /// Of a load that was of this kind alone.
    pub fn of(name: &'static str, measured: &Measured, bare: Option<&Measured>) -> Self {
        Self {
            name,
            per_second: measured.goodput(),
            latencies: measured.latencies.clone(),
            bare: bare.map(|bare| (bare.goodput(), bare.latencies.clone())),
        }
    }

    fn json(&self) -> Value {
        let mut kind = json!({ "per_second": rounded(self.per_second) });
        add_latencies(&mut kind, &self.latencies);
        if let Some((per_second, latencies)) = &self.bare {
            let mut bare = json!({ "per_second": rounded(*per_second) });
            add_latencies(&mut bare, latencies);
            kind["bare_handler"] = bare;
            kind["ratio"] = rounded(self.per_second / per_second.max(0.001)).into();
        }
        kind
    }
}

impl Report {
    /// Of a load.
    pub fn new(config: &Config, command: &Bench, load: Measured) -> Self {
        let seconds = load.window.as_secs_f64().max(0.001);
        let kinds = load.kinds.iter().map(|(name, latencies)| Kind {
            name,
            per_second: latencies.len() as f64 / seconds,
            latencies: latencies.clone(),
            bare: None,
        });
        // One kind is all there is to tell.
        let kinds = if load.kinds.len() > 1 {
            kinds.collect()
        } else {
            Vec::new()
        };
        Self {
            kinds,
            throughput: load.throughput(),
            load: Some(load),
            ..Self::without_load(config, command, 0.0)
        }
    }

    /// Of work that is no load.
    pub fn without_load(config: &Config, command: &Bench, throughput: f64) -> Self {
        Self {
            command: command.clone(),
            profile: config.profile,
            machine: processes::machine(),
            load: None,
            throughput,
            ratio: None,
            kinds: Vec::new(),
            lag: None,
            processes: Vec::new(),
            checks: Vec::new(),
            failures: BTreeMap::new(),
            baseline: None,
            also: Map::new(),
        }
    }

    /// Another figure, under its name.
    pub fn also(&mut self, name: &str, value: Value) {
        let value = match value.as_f64() {
            Some(figure) if value.is_f64() => rounded(figure).into(),
            _ => value,
        };
        self.also.insert(name.to_owned(), value);
    }

    /// The same load on what this is compared with.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "the baseline is of the cluster")
    )]
    pub fn compare(&mut self, name: &'static str, measured: Measured) {
        let goodput = self.load.as_ref().map_or(self.throughput, Measured::goodput);
        self.ratio = Some(goodput / measured.goodput().max(0.001));
        self.baseline = Some((name, measured));
    }

    /// All of it but the seconds.
    pub fn json(&self) -> Value {
        let command = &self.command;
        let mut report = json!({
            "scenario": command.scenario.name(),
            "profile": profile(self.profile),
            "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            "throughput": rounded(self.throughput),
        });
        if command.baskets == Baskets::Retail {
            report["baskets"] = "retail".into();
        }
        if let Some(load) = &self.load {
            let open = command.rate.is_some();
            report["callers"] = command.callers.into();
            report["loop"] = if open { "open" } else { "closed" }.into();
            report["rate"] = command.rate.into();
            report["seconds"] = command.seconds.into();
            report["goodput"] = rounded(load.goodput()).into();
            add_latencies(&mut report, &load.latencies);
            report["completed"] = load.completed.into();
            report["errors"] =
                json!({ "shed": load.shed, "failed": load.failed, "not_started": load.not_started });
            if !self.failures.is_empty() {
                report["failures"] = json!(self.failures);
            }
        }
        for (name, value) in &self.also {
            report[name] = value.clone();
        }
        if !self.kinds.is_empty() {
            let kinds = self.kinds.iter().map(|kind| (kind.name.to_owned(), kind.json()));
            report["kinds"] = Value::Object(kinds.collect());
        }
        if let Some(lag) = &self.lag {
            let millis = |quantile| millis(lag.latencies.value_at_quantile(quantile));
            report["lag"] = json!({
                "probes": lag.completed, "unseen": lag.failed,
                "p50_ms": millis(0.5), "p99_ms": millis(0.99), "max_ms": millis(1.0),
            });
        }
        let checks = self
            .checks
            .iter()
            .map(|(name, held)| ((*name).to_owned(), json!(held)));
        report["checks"] = Value::Object(checks.collect());
        let processes = self.processes.iter().map(|process| {
            json!({
                "name": process.name, "cpu_seconds_per_second": rounded(process.cpu),
                "rss_start_bytes": process.rss_start, "rss_peak_bytes": process.rss_peak, "rss_end_bytes": process.rss_end,
            })
        });
        report["processes"] = processes.collect();
        report["machine"] = self.machine.clone();
        if let Some((name, measured)) = &self.baseline {
            let mut baseline = json!({
                "name": name, "throughput": rounded(measured.throughput()), "goodput": rounded(measured.goodput()),
                "errors": { "shed": measured.shed, "failed": measured.failed, "not_started": measured.not_started },
            });
            add_latencies(&mut baseline, &measured.latencies);
            report["baseline"] = baseline;
        }
        if let Some(ratio) = self.ratio {
            report["ratio"] = rounded(ratio).into();
        }
        report
    }

    /// Prints it.
    pub fn tell(&self, json: bool) -> Result<(), CliError> {
        if json {
            println!("{}", self.json());
            return Ok(());
        }
        print!("{}", self.text()?);
        Ok(())
    }

    fn text(&self) -> Result<String, CliError> {
        let mut text = String::new();
        self.write_text(&mut text)
            .context("the report could not be written", "report this as a bug")?;
        Ok(text)
    }

    fn write_text(&self, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        writeln!(to, "{}", self.headline())?;
        if let Some(load) = &self.load {
            let row = |name: &str, per_second: f64, latencies: &Latencies| {
                let [p50, p90, p99, p999, max] =
                    QUANTILES.map(|(_, quantile)| millis(latencies.value_at_quantile(quantile)));
                format!(
                    "{name:<24}{per_second:>12.1}{p50:>10.2}{p90:>10.2}{p99:>10.2}{p999:>10.2}{max:>10.2}"
                )
            };
            writeln!(
                to,
                "\n{:<24}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}",
                "", "done/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"
            )?;
            writeln!(
                to,
                "{}",
                row(self.command.scenario.name(), load.goodput(), &load.latencies)
            )?;
            for kind in &self.kinds {
                writeln!(
                    to,
                    "{}",
                    row(&format!("  {}", kind.name), kind.per_second, &kind.latencies)
                )?;
                if let Some((per_second, latencies)) = &kind.bare {
                    writeln!(to, "{}", row("    bare handler", *per_second, latencies))?;
                }
            }
            if let Some((name, baseline)) = &self.baseline {
                writeln!(to, "{}", row(name, baseline.goodput(), &baseline.latencies))?;
            }
            if let Some(lag) = &self.lag {
                writeln!(to, "{}", row("seen after", lag.goodput(), &lag.latencies))?;
            }
            writeln!(
                to,
                "\nanswered {:.1}/s: {} done, {} shed, {} failed; {} not started",
                self.throughput, load.completed, load.shed, load.failed, load.not_started
            )?;
        }
        for (failure, count) in &self.failures {
            writeln!(to, "  {count} × {failure}")?;
        }
        for (name, value) in &self.also {
            writeln!(to, "{}: {}", name.replace('_', " "), figure(value))?;
        }
        if let Some(ratio) = self.ratio {
            writeln!(to, "{}: {ratio:.2}", self.compared_with())?;
        }
        if !self.processes.is_empty() {
            writeln!(
                to,
                "\n{:<24}{:>12}{:>14}{:>10}{:>10}",
                "process", "CPU s/s", "MB at start", "peak", "end"
            )?;
        }
        for process in &self.processes {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            let name = if process.name == OWN {
                "bench (the load)"
            } else {
                &process.name
            };
            writeln!(
                to,
                "{name:<24}{:>12.2}{:>14.0}{:>10.0}{:>10.0}",
                process.cpu,
                megabytes(process.rss_start),
                megabytes(process.rss_peak),
                megabytes(process.rss_end)
            )?;
        }
        writeln!(to)?;
        for (name, held) in &self.checks {
            let mark = if *held { "yes" } else { "NO " };
            writeln!(to, "{mark}  {}", name.replace('_', " "))?;
        }
        Ok(())
    }

    /// What was done, in a line.
    pub fn headline(&self) -> String {
        let command = &self.command;
        let name = command.scenario.name();
        let callers = command.callers.unwrap_or_default();
        let how = match (command.rate, &self.load) {
            (_, None) => format!("{:.0} events/s", self.throughput),
            (Some(rate), _) => format!(
                "open loop, {rate}/s arrive, at most {callers} at once, {} s",
                command.seconds
            ),
            (None, _) => format!("closed loop, {callers} callers, {} s", command.seconds),
        };
        format!("{name} on {}: {how}", profile(self.profile))
    }

    /// What the ratio is of.
    fn compared_with(&self) -> &'static str {
        match (&self.baseline, &self.load) {
            (Some(_), _) => "times the baseline",
            (None, Some(_)) => "of the bare handler",
            (None, None) => "of reading the log alone",
        }
    }

    /// What the page shows beside its plots: names and values.
    pub fn figures(&self) -> Vec<(String, String)> {
        let mut figures = vec![("answered a second".to_owned(), format!("{:.1}", self.throughput))];
        if let Some(load) = &self.load {
            figures.push(("done a second".to_owned(), format!("{:.1}", load.goodput())));
            for (name, quantile) in QUANTILES {
                let value = millis(load.latencies.value_at_quantile(quantile));
                figures.push((name.trim_end_matches("_ms").to_owned(), format!("{value:.2} ms")));
            }
            let errors = format!(
                "{} shed, {} failed, {} not started",
                load.shed, load.failed, load.not_started
            );
            figures.push(("errors".to_owned(), errors));
        }
        let also = self.also.iter();
        figures.extend(also.map(|(name, value)| (name.replace('_', " "), figure(value))));
        if let Some(ratio) = self.ratio {
            figures.push((self.compared_with().to_owned(), format!("{ratio:.2}")));
        }
        figures
    }

    /// Latencies to be plotted beside each other.
    pub fn curves(&self) -> Vec<(&str, &Latencies)> {
        let mut curves = Vec::new();
        if self.kinds.is_empty() {
            curves.extend(
                self.load
                    .iter()
                    .map(|load| (self.command.scenario.name(), &load.latencies)),
            );
        }
        curves.extend(self.kinds.iter().map(|kind| (kind.name, &kind.latencies)));
        curves.extend(
            self.baseline
                .iter()
                .map(|(name, baseline)| (*name, &baseline.latencies)),
        );
        curves
    }

    /// Writes `<scenario>.json` and `<scenario>.html` into `directory`, over what is there.
    pub fn write(&self, directory: &Path) -> Result<(), CliError> {
        let what = format!("the report could not be written to {}", directory.display());
        let remedy = "name a folder that you may write to with --report";
        let name = self.command.scenario.name();
        let mut report = self.json();
        if let Some(load) = &self.load {
            report["series"] = series(load);
        }
        if let Some(lag) = &self.lag {
            report["lag"]["series"] = series(lag);
        }
        std::fs::create_dir_all(directory).context(&what, remedy)?;
        let text = format!("{report:#}\n");
        std::fs::write(directory.join(format!("{name}.json")), &text).context(&what, remedy)?;
        std::fs::write(directory.join(format!("{name}.html")), page::render(self, &text))
            .context(&what, remedy)
    }

    /// An error if a check failed, or nothing was done.
    pub fn verdict(&self) -> Result<(), CliError> {
        let failed: Vec<&str> = self
            .checks
            .iter()
            .filter(|(_, held)| !held)
            .map(|(name, _)| *name)
            .collect();
        if !failed.is_empty() {
            return Err(CliError::failed(
                format!(
                    "the load did not leave what it should: not {}",
                    failed.join(", ").replace('_', " ")
                ),
                "run it again with --against a system of yours, and look at `omisys audit --views` on it",
            ));
        }
        if self.load.as_ref().is_some_and(|load| load.completed == 0) {
            return Err(CliError::failed(
                "nothing was done",
                "look at the failures above; try more seconds, or a lower rate",
            ));
        }
        Ok(())
    }
}

const QUANTILES: [(&str, f64); 5] = [
    ("p50_ms", 0.5),
    ("p90_ms", 0.9),
    ("p99_ms", 0.99),
    ("p999_ms", 0.999),
    ("max_ms", 1.0),
];

fn add_latencies(to: &mut Value, latencies: &Latencies) {
    for (name, quantile) in QUANTILES {
        to[name] = millis(latencies.value_at_quantile(quantile)).into();
    }
}

fn series(load: &Measured) -> Value {
    let seconds = load.seconds.iter().zip(1..).map(|(second, number)| {
        json!({
            "second": number, "completed": second.completed, "shed": second.shed, "failed": second.failed,
            "p50_ms": millis(second.p50), "p99_ms": millis(second.p99), "max_ms": millis(second.max),
        })
    });
    seconds.collect()
}

/// Microseconds as milliseconds.
pub fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

fn figure(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

const fn profile(profile: Profile) -> &'static str {
    match profile {
        Profile::Embedded => "embedded",
        Profile::Cluster => "cluster",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_check_that_fails_is_named_and_an_error() {
        let cli = Cli::parse_from(["omisys", "bench", "rebuild", "--profile", "embedded"]);
        let config = Config::load(&cli.global).unwrap();
        let Command::Bench(command) = cli.command else {
            panic!("another command");
        };
        let mut report = Report::without_load(&config, &command, 1.0);
        report.checks = vec![("it_is_read", true)];
        assert!(report.verdict().is_ok());
        report.checks.push(("money_is_conserved", false));
        let error = report.verdict().unwrap_err();
        assert!(
            !error.usage && error.what.contains("not money is conserved"),
            "{}",
            error.what
        );
        assert_eq!(report.json()["checks"]["money_is_conserved"], false);
        let page = page::render(&report, "<json>");
        assert!(page.contains("class=\"no\">money is conserved") && page.contains("&lt;json&gt;"));
    }
}
