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

/// The function that says that a question is answered, and the one that says that its lines are given and the rest of it is answered.
const SAY: &str = "infra_say";
const SAY_REST: &str = "infra_rest";

/// What is added to the exit status where the lines are given. All is said once: where nothing went wrong, nothing is on standard error that would have to be told
/// apart.
pub(crate) const GIVEN: i64 = 256;

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

    /// Whether it is the same question.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.text == other.text && self.patience == other.patience
    }
}

fn seconds(patience: u32) -> Duration {
    Duration::from_secs(u64::from(patience))
}

/// A program, and the things that it is asked about at a time.
struct Batch<'o> {
    line: &'o Line,
    things: Vec<&'o str>,
}

impl Batch<'_> {
    fn takes(&self, line: &Line, thing: &str) -> bool {
        let bytes = self.things.iter().map(|thing| thing.len() + 1).sum::<usize>() + thing.len();
        self.line == line && self.things.len() < THINGS && bytes < BYTES
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
        let mut place = |line: &'o Line, thing: &'o str| {
            let place = known.entry((line.program.as_str(), thing));
            if let Entry::Occupied(known) = place {
                return *known.get();
            }
            let batch = batches.iter().position(|batch| batch.takes(line, thing)).unwrap_or_else(|| {
                batches.push(Batch { line, things: Vec::new() });
                batches.len() - 1
            });
            batches[batch].things.push(thing);
            *place.or_insert((batch, batches[batch].things.len() - 1))
        };
        let mut lines = Vec::new();
        for one in open {
            let of = one.parts.iter().flat_map(|parts| parts.lines.iter().map(|line| (line, parts.about.as_str())));
            lines.push(of.map(|(line, thing)| place(line, thing)).collect());
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
            let choose = sh!("set --\nfor infra_t in {}; do {} \"$infra_t\" && set -- \"$@\" \"$infra_t\"; done\n", batch.things, given);
            text.push_str(&format!(
                "{choose}[ $# = 0 ] || {program} \"$@\" 2>/dev/null\nset --;unset infra_t\n{SAY_REST} {}\n",
                answer.as_str()
            ));
        }
        for (place, one) in (self.batches.len()..).zip(self.open) {
            let answer = marks.add(Mark::Answer(place));
            let answer = answer.as_str();
            let Some(Parts { about, lines, first, rest }) = &one.parts else {
                text.push_str(&format!("( {} )\n{SAY} {answer}\n", one.text));
                continue;
            };
            let given = lines.iter().map(|line| sh!("{} \"$1\"", functions.name(&line.given)));
            let given = Shell::join(" && ", given.collect::<Vec<_>>());
            let (about, first, rest) = (sh!("set -- {}", about), functions.name(first), functions.name(rest));
            let rest = format!("{rest} \"$1\"");
            text.push_str(&format!(
                "{about}\nif {given}; then {rest}; {SAY_REST} {answer}; else {first} \"$1\" && {rest}; {SAY} {answer}; fi\nset --\n"
            ));
        }
        let once = receipts::function_once(SAY_REST, GIVEN);
        format!("{}{once}{}{text}", receipts::function(SAY), functions.text)
    }

    /// The answers to the questions, from those in the order of the script, of which those in `given` are without the lines before.
    /// None where there is no answer.
    pub(crate) fn read(&self, answers: Vec<Option<Output>>, given: &[bool]) -> Vec<Option<Output>> {
        let lines: Vec<Vec<Option<&[u8]>>> = self
            .batches
            .iter()
            .zip(&answers)
            .map(|(batch, answer)| batch.read(answer.as_ref().map_or(&[], |output| &output.stdout)))
            .collect();
        let whole = |of: &[(usize, usize)], rest: &Output| {
            let mut stdout = Vec::new();
            for (batch, at) in of {
                stdout.extend_from_slice(lines[*batch][*at]?);
                stdout.push(b'\n');
            }
            stdout.extend_from_slice(&rest.stdout);
            Some(Output { stdout, ..rest.clone() })
        };
        let of_questions = answers.iter().zip(given).skip(self.batches.len());
        let questions = of_questions.zip(&self.lines);
        questions
            .map(|((answer, is_given), of)| {
                answer.as_ref().and_then(|answer| if *is_given { whole(of, answer) } else { Some(answer.clone()) })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use infra_core::command::Command;
    use infra_core::global_arguments::Context;

    use super::*;

    fn open(about: &str, patience: Option<u32>) -> Open {
        let line = |program, patience| Line { program, separator: ":", given: sh!("test -e \"$1\""), patience };
        let mut lines = vec![line(sh!("stat --"), None)];
        if patience.is_some() {
            lines.push(line(sh!("digest --"), patience));
        }
        let command = Command::in_parts(Parts { about: about.to_owned(), lines, first: sh!("stat --one \"$1\""), rest: sh!(":") });
        Open::of(0, &Question { command, context: Context::default() }).expect("a question")
    }

    #[test]
    fn programs_are_asked_about_all_things_and_wait_as_long_as_their_own_work_takes() {
        let open = [open("/a", None), open("/b", Some(1800)), open("/a", None), open("/odd\nname", None), open("/c", None)];
        let together = Together::new(&open);
        assert_eq!((together.count(), together.questions()), (7, 5));
        assert_eq!([0, 1].map(|batch| together.batches[batch].things.clone()), [vec!["/a", "/b", "/c"], vec!["/b"]]);
        // That a file is large does not make a look at another one longer.
        assert_eq!(
            (0..7).map(|place| together.patience(place)).collect::<Vec<_>>(),
            [None, Some(seconds(1800)), None, None, None, None, None]
        );
        let said = |text: &str| Some(Output::of(text));
        let answers = vec![said("1:/a\n3:/c\n"), said("2:/b\n"), said("x"), said("y"), said(""), said("odd\n"), said("")];
        let given = [true, true, true, true, true, false, true];
        let read = together.read(answers, &given);
        // There is no line about the second; the fourth was asked alone.
        assert_eq!(read, [said("1\nx"), None, said("1\n"), said("odd\n"), said("3\n")]);
    }
}
