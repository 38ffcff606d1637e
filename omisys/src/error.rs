//! Errors of the command line: one line that says what failed, one that says what to do.

use std::error::Error;
use std::process::ExitCode;

/// Why a subcommand did not do its work.
#[derive(Debug)]
pub struct CliError {
    /// What failed, in one line.
    pub what: String,
    /// What the person can do about it, in one line.
    pub remedy: String,
    /// Wrong usage or configuration, as against work that could not be done.
    pub usage: bool,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl CliError {
    /// Work that could not be done.
    pub fn failed(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
            usage: false,
            cause: None,
        }
    }

    /// Wrong usage or configuration.
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            usage: true,
            ..Self::failed(what, remedy)
        }
    }

    /// Keeps the cause for `--verbose`.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Prints to stderr; with `verbose` the chain of causes too.
    pub fn print(&self, verbose: bool) {
        eprintln!("error: {}", self.what);
        eprintln!("  try: {}", self.remedy);
        let mut cause = self
            .cause
            .as_deref()
            .map(|cause| cause as &dyn Error)
            .filter(|_| verbose);
        while let Some(error) = cause {
            eprintln!("cause: {error}");
            cause = error.source();
        }
    }

    /// 2 for wrong usage, else 1.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.usage { 2 } else { 1 })
    }
}

/// Names what was being done when an error came up.
pub trait Context<T> {
    /// `what` failed; `remedy` is what to try. The error itself is kept as the cause, and ends the first line.
    fn context(self, what: &str, remedy: &str) -> Result<T, CliError>;
}

impl<T, E: Error + Send + Sync + 'static> Context<T> for Result<T, E> {
    fn context(self, what: &str, remedy: &str) -> Result<T, CliError> {
        self.map_err(|error| CliError::failed(format!("{what}: {error}"), remedy).because(error))
    }
}
