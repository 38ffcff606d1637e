//! `omisys bench`.

use crate::cli::Bench;
use crate::config::Config;
use crate::error::CliError;

pub async fn run(_config: &Config, _command: &Bench, _json: bool) -> Result<(), CliError> {
    Err(CliError::failed("not there yet", "wait"))
}
