//! The binary: arguments → settings → wiring → exit code.

mod ad_hoc;
mod approval;
mod arguments;
mod askpass;
mod copying;
mod disconnect;
mod earlier_hosts;
mod exec;
mod interrupts;
mod journal;
mod out_folder;
mod outcome;
mod passwords;
mod questions;
mod remembered;
mod reporting;
mod results;
mod resume;
mod runs;
mod saved_plans;
mod settings;
mod terminal_questions;
mod wiring;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use crate::arguments::{Arguments, Verb};
use crate::outcome::Trouble;
use crate::settings::Settings;
use crate::wiring::Origin;

fn main() -> ExitCode {
    if let Some(code) = askpass::answer() {
        return code;
    }
    let mut arguments = Arguments::typed();
    if let Some(Verb::Runs(asked)) = &arguments.verb {
        let json = asked.json();
        return runs::tell(asked).map_or_else(|trouble| trouble.report(0, json), |()| ExitCode::SUCCESS);
    }
    if let Some(Verb::Show(asked)) = &arguments.verb {
        return saved_plans::show(asked).map_or_else(|trouble| trouble.report(asked.verbose, asked.json), |()| ExitCode::SUCCESS);
    }
    let verb = match arguments.verb.take() {
        Some(Verb::Disconnect(asked)) => {
            let ended = runtime().and_then(|runtime| runtime.block_on(disconnect::disconnect(asked)));
            return ended.map_or_else(|trouble| trouble.report(0, false), ExitCode::from);
        }
        verb => verb,
    };
    let options = match &verb {
        Some(Verb::Resume(asked)) => &asked.options,
        Some(Verb::Apply(asked)) => &asked.options,
        _ => &arguments.options,
    };
    let (verbosity, json) = (options.verbose, options.json);
    let meant = match verb {
        Some(Verb::Resume(asked)) => {
            resume::resolve(asked).map(|meant| meant.map(|(settings, resumed)| (settings, Origin::Resumed(resumed))))
        }
        Some(Verb::Apply(asked)) => saved_plans::resolve(asked).map(|(settings, saved)| Some((settings, Origin::Saved(saved)))),
        _ => Settings::resolve(arguments).map(|settings| Some((settings, Origin::Typed))).map_err(Trouble::misuse),
    };
    let ended = meant.and_then(|meant| {
        let Some((settings, origin)) = meant else { return Ok(0) };
        let runtime = runtime()?;
        let code = runtime.block_on(wiring::run(settings, origin));
        // What an interrupt left unfinished tidies up after itself as it is dropped; what does not end in time holds nothing up.
        runtime.shutdown_timeout(Duration::from_secs(1));
        code
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => trouble.report(verbosity, json),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Trouble> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::failure(format!("the runtime could not be started: {error}")))
}
