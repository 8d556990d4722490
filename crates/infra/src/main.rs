//! The binary: arguments → settings → wiring → exit code.

mod ad_hoc;
mod approval;
mod arguments;
mod earlier_hosts;
mod exec;
mod interrupts;
mod journal;
mod out_folder;
mod outcome;
mod reporting;
mod results;
mod resume;
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
    if let Some(Verb::Runs(asked)) = &arguments.verb {
        let json = asked.json();
        return runs::tell(asked).map_or_else(|trouble| trouble.report(0, json), |()| ExitCode::SUCCESS);
    }
    let resumed = match arguments.verb.take() {
        Some(Verb::Resume(asked)) => Some(asked),
        _ => None,
    };
    let options = resumed.as_ref().map_or(&arguments.options, |asked| &asked.options);
    let (verbosity, json) = (options.verbose, options.json);
    let meant = match resumed {
        Some(asked) => resume::resolve(asked).map(|meant| meant.map(|(settings, resumed)| (settings, Some(resumed)))),
        None => Settings::resolve(arguments).map(|settings| Some((settings, None))).map_err(Trouble::misuse),
    };
    let ended = meant.and_then(|meant| {
        let Some((settings, resumed)) = meant else { return Ok(0) };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Trouble::failure(format!("the runtime could not be started: {error}")))?;
        let code = runtime.block_on(wiring::run(settings, resumed));
        // What an interrupt left unfinished tidies up after itself as it is dropped; what does not end in time holds nothing up.
        runtime.shutdown_timeout(Duration::from_secs(1));
        code
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => trouble.report(verbosity, json),
    }
}
