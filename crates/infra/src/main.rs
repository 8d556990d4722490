//! The binary: arguments → settings → wiring → exit code.

mod ad_hoc;
mod approval;
mod arguments;
mod earlier_hosts;
mod interrupts;
mod journal;
mod outcome;
mod reporting;
mod results;
mod runs;
mod settings;
mod wiring;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::arguments::{Arguments, Verb};
use crate::outcome::Trouble;
use crate::settings::Settings;

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if let Some(Verb::Runs(asked)) = arguments.verb.take() {
        let json = asked.json();
        return runs::tell(&asked).map_or_else(|trouble| trouble.report(0, json), |()| ExitCode::SUCCESS);
    }
    let (verbosity, json) = (arguments.verbose, arguments.json);
    let ended = Settings::resolve(arguments).map_err(Trouble::misuse).and_then(|settings| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Trouble::failure(format!("the runtime could not be started: {error}")))?;
        let code = runtime.block_on(wiring::run(settings));
        // What an interrupt left unfinished tidies up after itself as it is dropped; what does not end in time holds nothing up.
        runtime.shutdown_timeout(Duration::from_secs(1));
        code
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => trouble.report(verbosity, json),
    }
}
