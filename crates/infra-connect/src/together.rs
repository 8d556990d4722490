//! Questions that are asked together: what one process can do for many of them, it does once.
//!
//! Starting a process costs a host far more than what most of them do. So questions with the same text are asked once; and of commands that are given
//! [in parts](infra_core::command::Parts), each program is started once and asked about all things at a time. Its lines are told apart by what they end with,
//! and come in the order of the things; where one is missing or is not understood, the question is asked again by itself.
//!
//! In the script the programs come first, and then question after question. One whose lines are all given does the rest, and any other one prints them by
//! itself before. What many of them do is a function, so that a question is hardly longer than its thing: what is sent at first is little before
//! the host has to say that it came (RFC 6928: about 14 kB).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use infra_core::command::{Line, Parts, Shell};
use infra_core::connection::Question;
use infra_core::output::Output;
use infra_core::sh;
use tokio::time::Duration;

use crate::envelope::Mark;
use crate::receipts::Marks;
use crate::{receipts, script};

/// The function that says that a question is answered; the one that says that its lines are given and the rest of it is answered; and the one that says that there
/// is no such thing.
const SAY: &str = "infra_say";
const SAY_REST: &str = "infra_rest";
const SAY_GONE: &str = "infra_gone";

/// How a question was answered: with all that its command prints, with the rest, or with nothing as there is no such thing. The last two are said once: where
/// nothing went wrong, nothing is on standard error that would have to be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Whole,
    Rest,
    Gone,
}

impl How {
    /// What is added to the exit status.
    fn more(self) -> i64 {
        match self {
            Self::Whole => 0,
            Self::Rest => 256,
            Self::Gone => 512,
        }
    }

    /// From the number of a mark; and the exit status.
    pub(crate) fn of(number: i64) -> (Self, i64) {
        let how = [Self::Gone, Self::Rest].into_iter().find(|how| number >= how.more()).unwrap_or(Self::Whole);
        (how, number - how.more())
    }
}

/// As many things as a program is asked about at a time, and as many bytes of them: what is handed to a program has its limits, which are far larger.
const THINGS: usize = 200;
const BYTES: usize = 30_000;

/// A question that has no answer yet.
pub(crate) struct Open {
    /// Those who asked it.
    pub(crate) places: Vec<usize>,
    /// What stands in its subshell.
    pub(crate) text: String,
    /// How long it may take, where that is not as long as any other.
    pub(crate) patience: Option<Duration>,
    /// What it has in common with others; none where it is to be asked by itself.
    pub(crate) parts: Option<Parts>,
}

impl Open {
    /// The question with this place.
    ///
    /// # Errors
    /// What cannot be said to a shell, as a sentence fragment.
    pub(crate) fn of(place: usize, question: &Question) -> Result<Self, String> {
        let Question { command, context } = question;
        let before = format!("{}{}", script::directory(context), script::environment(&context.env)?);
        let text = format!("{before}{}", script::evaluate(&command.script));
        if text.contains('\0') {
            return Err("a command cannot hold a NUL character".to_owned());
        }
        let patience = command.patience.map(seconds);
        Ok(Self { places: vec![place], text, patience, parts: command.parts.clone().filter(|_| before.is_empty()) })
    }
}

fn seconds(patience: u32) -> Duration {
    Duration::from_secs(u64::from(patience))
}

/// A program, and the things that it is asked about at a time.
struct Batch<'o> {
    line: &'o Line,
    /// Where its line is the first of a command, what holds if there is no such thing.
    gone: Option<&'o Shell>,
    things: Vec<&'o str>,
}

impl Batch<'_> {
    fn takes(&self, line: &Line, gone: Option<&Shell>, thing: &str) -> bool {
        let bytes = || self.things.iter().map(|thing| thing.len() + 1).sum::<usize>() + thing.len();
        self.things.len() < THINGS && self.line == line && self.gone == gone && bytes() < BYTES
    }

    /// What it said about a thing for which it has no line.
    fn reason<'p>(&self, thing: &str, said: &'p str) -> Option<&'p str> {
        let names = [format!("'{thing}': "), format!(" {thing}: ")];
        said.lines().find(|line| names.iter().any(|name| line.contains(name)))
    }

    /// The lines that it printed, without what they end with.
    fn read<'p>(&self, mut printed: &'p [u8]) -> Vec<Option<&'p [u8]>> {
        let next = |thing: &&str| {
            let end = printed.iter().position(|byte| *byte == b'\n')?;
            let found = printed[..end].strip_suffix(thing.as_bytes())?.strip_suffix(self.line.separator.as_bytes())?;
            printed = &printed[end + 1..];
            Some(found)
        };
        self.things.iter().map(next).collect()
    }
}

/// The functions of a script.
#[derive(Default)]
struct Functions {
    names: HashMap<Shell, Shell>,
    text: String,
}

impl Functions {
    /// The name of the function that does this.
    fn name(&mut self, does: &Shell) -> Shell {
        if let Some(name) = self.names.get(does) {
            return name.clone();
        }
        let name = sh!("infra_{}", self.names.len());
        self.text.push_str(&format!("{name}() {{ {does}\n}}\n"));
        self.names.insert(does.clone(), name.clone());
        name
    }
}

/// The questions of one request.
pub(crate) struct Together<'o> {
    open: &'o [Open],
    batches: Vec<Batch<'o>>,
    /// Where the lines of each question stand: batch and place in it.
    lines: Vec<Vec<(usize, usize)>>,
}

impl<'o> Together<'o> {
    pub(crate) fn new(open: &'o [Open]) -> Self {
        let mut batches: Vec<Batch<'o>> = Vec::new();
        let mut known = HashMap::new();
        let mut place = |line: &'o Line, gone: Option<&'o Shell>, thing: &'o str| {
            let place = known.entry((line.program.as_str(), gone, thing));
            if let Entry::Occupied(known) = place {
                return *known.get();
            }
            let batch = batches.iter().position(|batch| batch.takes(line, gone, thing)).unwrap_or_else(|| {
                batches.push(Batch { line, gone, things: Vec::new() });
                batches.len() - 1
            });
            batches[batch].things.push(thing);
            *place.or_insert((batch, batches[batch].things.len() - 1))
        };
        let mut lines = Vec::new();
        for one in open {
            let parts = one.parts.iter().flat_map(|parts| parts.lines.iter().enumerate().map(move |line| (parts, line)));
            let of = parts.map(|(parts, (at, line))| place(line, (at == 0).then_some(&parts.gone), &parts.about));
            lines.push(of.collect());
        }
        Self { open, batches, lines }
    }

    /// How many answers there will be: those of the programs, and then those of the questions.
    pub(crate) fn count(&self) -> usize {
        self.batches.len() + self.open.len()
    }

    /// How many of them are answers to questions.
    pub(crate) fn questions(&self) -> usize {
        self.open.len()
    }

    /// How long an answer may take, where that is not as long as any other.
    pub(crate) fn patience(&self, place: usize) -> Option<Duration> {
        match self.batches.get(place) {
            // Should all of them need longer than one may take, each is asked by itself.
            Some(batch) => batch.line.patience.map(seconds),
            None => self.open.get(place - self.batches.len())?.patience,
        }
    }

    /// The script that has all of them answered.
    pub(crate) fn script(&self, marks: &mut Marks<Mark>) -> String {
        let (mut functions, mut text) = (Functions::default(), String::new());
        for (place, batch) in self.batches.iter().enumerate() {
            let (given, program, answer) = (functions.name(&batch.line.given), &batch.line.program, marks.add(Mark::Answer(place)));
            // Of what is gone it says why.
            let asked = match batch.gone {
                Some(gone) => sh!("{ {} \"$infra_t\" || {} \"$infra_t\"; }", given, functions.name(gone)),
                None => sh!("{} \"$infra_t\"", given),
            };
            let choose = sh!("set --\nfor infra_t in {}; do {} && set -- \"$@\" \"$infra_t\"; done\n", batch.things, asked);
            text.push_str(&format!("{choose}[ $# = 0 ] || {program} \"$@\"\nset --;unset infra_t\n{SAY} {}\n", answer.as_str()));
        }
        for (place, one) in (self.batches.len()..).zip(self.open) {
            let answer = marks.add(Mark::Answer(place));
            let answer = answer.as_str();
            let Some(Parts { about, lines, gone, first, rest }) = &one.parts else {
                text.push_str(&format!("( {} )\n{SAY} {answer}\n", one.text));
                continue;
            };
            let given = lines.iter().map(|line| sh!("{} \"$1\"", functions.name(&line.given)));
            let given = Shell::join(" && ", given.collect::<Vec<_>>());
            let [gone, first, rest] = [gone, first, rest].map(|does| functions.name(does));
            // Its own parameters are the thing and the digits of the mark, which no program is handed.
            let ask = sh!(
                "if {}; then {} \"$1\"; {} \"$2\"; elif {} \"$1\"; then {} \"$2\"; else {} \"$1\" && {} \"$1\"; {} \"$2\"; fi",
                given,
                rest,
                SAY_REST,
                gone,
                SAY_GONE,
                first,
                rest,
                SAY
            );
            text.push_str(sh!("{} {} {}\n", functions.name(&ask), about, answer).as_str());
        }
        let once = [(SAY_REST, How::Rest), (SAY_GONE, How::Gone)];
        let once: String = once.into_iter().map(|(name, how)| receipts::function_once(name, how.more())).collect();
        format!("{}{once}{}{text}", receipts::function(SAY), functions.text)
    }

    /// The answers to the questions, from those in the order of the script, each with how it was answered. None where there is no answer.
    pub(crate) fn read(&self, answers: Vec<Option<Output>>, how: &[How]) -> Vec<Option<Output>> {
        let (of_programs, of_questions) = answers.split_at(self.batches.len());
        let said = |output: &Option<Output>| output.clone().unwrap_or_default();
        let of_programs: Vec<Output> = of_programs.iter().map(said).collect();
        let lines: Vec<_> = self.batches.iter().zip(&of_programs).map(|(batch, said)| batch.read(&said.stdout)).collect();
        let reasons: Vec<_> = of_programs.iter().map(|said| String::from_utf8_lossy(&said.stderr)).collect();
        let whole = |one: usize, rest: &Output| {
            let mut stdout = Vec::new();
            for (batch, at) in &self.lines[one] {
                stdout.extend_from_slice(lines[*batch][*at]?);
                stdout.push(b'\n');
            }
            stdout.extend_from_slice(&rest.stdout);
            Some(Output { stdout, ..rest.clone() })
        };
        let gone = |one: usize| {
            let (batch, _) = self.lines[one].first()?;
            let thing = &self.open[one].parts.as_ref()?.about;
            let reason = self.batches[*batch].reason(thing, &reasons[*batch])?;
            Some(Output { status: 1, stdout: Vec::new(), stderr: format!("{reason}\n").into_bytes() })
        };
        let read = |(one, (answer, how)): (usize, (&Option<Output>, &How))| match (answer.as_ref()?, how) {
            (answer, How::Whole) => Some(answer.clone()),
            (answer, How::Rest) => whole(one, answer),
            (_, How::Gone) => gone(one),
        };
        of_questions.iter().zip(&how[self.batches.len()..]).enumerate().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use infra_core::command::Command;
    use infra_core::global_arguments::Context;

    use super::*;

    fn asked((about, patience): (&str, Option<u32>)) -> Open {
        let line = |program, patience| Line { program, separator: ":", given: sh!("test -e \"$1\""), patience };
        let mut lines = vec![line(sh!("stat --"), None)];
        if patience.is_some() {
            lines.push(line(sh!("digest --"), patience));
        }
        let gone = sh!("! test -e \"$1\"");
        let command = Command::in_parts(Parts { about: about.to_owned(), lines, gone, first: sh!("stat --one \"$1\""), rest: sh!(":") });
        Open::of(0, &Question { command, context: Context::default() }).expect("a question")
    }

    #[test]
    fn programs_are_asked_about_all_things_and_wait_as_long_as_their_own_work_takes() {
        let open = [("/a", None), ("/b", Some(1800)), ("/a", None), ("/odd\nname", None), ("/c", None), ("/x/a", None), ("/y", None)];
        let open = open.map(asked);
        let together = Together::new(&open);
        assert_eq!((together.count(), together.questions()), (9, 7));
        assert_eq!([0, 1].map(|batch| together.batches[batch].things.clone()), [vec!["/a", "/b", "/c", "/x/a", "/y"], vec!["/b"]]);
        // That a file is large does not make a look at another one longer.
        let patience: Vec<_> = (0..9).filter_map(|place| Some((place, together.patience(place)?))).collect();
        assert_eq!(patience, [(1, seconds(1800))]);
        let said = |text: &str| Some(Output::of(text));
        let complaint = "stat: cannot stat '/x/a': No such file or directory\n";
        let program = Some(Output { stderr: complaint.as_bytes().to_vec(), ..Output::of("1:/a\n3:/c\n") });
        let answers = vec![program, said("2:/b\n"), said("x"), said("y"), said(""), said("odd\n"), said(""), said(""), said("")];
        let how = [How::Whole, How::Whole, How::Rest, How::Rest, How::Rest, How::Whole, How::Rest, How::Gone, How::Gone];
        let read = together.read(answers, &how);
        let gone = Some(Output { status: 1, stdout: Vec::new(), stderr: complaint.as_bytes().to_vec() });
        // There is no line about the second, and no word about the last; the fourth was asked alone.
        assert_eq!(read, [said("1\nx"), None, said("1\n"), said("odd\n"), said("3\n"), gone, None]);
    }
}
