//! For the test of the guardian: starts an sshd and, where asked to, a machine, writes down what there is, and waits to be
//! killed.
//!
//! `abandoned-bench REPORT [NAME…]` writes, once all is up, one line of JSON to the file REPORT and then waits for ten
//! minutes at most. NAMEs are machines to boot.

use std::path::PathBuf;
use std::time::Duration;

use infra_test::process::wait_for;
use infra_test::{Fleet, Sshd, SshdOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let report = PathBuf::from(arguments.next().ok_or("the file to report to is missing")?);
    let names: Vec<String> = arguments.collect();

    let sshd = Sshd::start(SshdOptions::default())?;
    // A command that has cut itself loose from its session.
    let started = std::process::Command::new("ssh")
        .arg("-F")
        .arg(sshd.ssh_config())
        .args(["sshd-01", "setsid sleep 4321 </dev/null >/dev/null 2>&1 &"])
        .status()?;
    if !started.success() {
        return Err(format!("ssh ended with {started}").into());
    }
    // The session ends before the command that it leaves behind has become itself.
    let is_there = || sshd.processes().iter().any(|process| process.command == "sleep 4321").then_some(());
    wait_for(Duration::from_secs(20), is_there).ok_or("the command that was left behind did not start")?;
    let mut processes = vec![sshd.process_id()];
    processes.extend(sshd.processes().iter().map(|process| process.pid));
    let mut folders = vec![sshd.folder().display().to_string()];

    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fleet = match names.as_slice() {
        [] => None,
        names => Some(Fleet::boot(names)?),
    };
    if let Some(fleet) = &fleet {
        folders.push(fleet.folder().display().to_string());
        for machine in fleet.machines() {
            processes.extend(machine.processes().iter().map(|process| process.pid));
        }
    }
    let text = serde_json::json!({
        "processes": processes,
        "folders": folders,
        "addresses": fleet.iter().flat_map(Fleet::machines).map(|machine| machine.address()).collect::<Vec<_>>(),
    });
    // Complete or not there: whoever waits for it looks for the name.
    let unfinished = report.with_extension("unfinished");
    std::fs::write(&unfinished, text.to_string())?;
    std::fs::rename(&unfinished, &report)?;
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}
