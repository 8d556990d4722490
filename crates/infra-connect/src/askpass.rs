//! What ssh starts when it has a question: the other half of [`Settings::askpass`](crate::Settings::askpass).
//!
//! ssh is told the program by `SSH_ASKPASS`, and the program is told by [`SOCKET`] whom to ask: a socket in a folder that only this user can look into, on
//! which the process that started ssh answers. So an answer is in no argument and in no environment of any process.
//!
//! A program that sets itself as `askpass` looks for [`SOCKET`] in its environment before all else, calls [`ask`] with its first argument, and does what the
//! [`Answer`] says.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use infra_core::BoxFuture;
use infra_core::secret::Secret;

/// The variable of the environment that holds the path of the socket.
pub const SOCKET: &str = "INFRA_ASKPASS";

/// The variable in which ssh says what kind of a question it has (ssh(1)).
pub const KIND: &str = "SSH_ASKPASS_PROMPT";

/// What the program that ssh started is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Print this and a newline on standard output, and exit with 0.
    Say(Secret),
    /// Print nothing, and exit with 1: there is no answer.
    Refuse,
}

/// What ssh wants to know from a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The host that is being connected to, as the inventory names it.
    pub host: String,
    /// ssh's own words.
    pub text: String,
    /// Whether what is typed is not to be seen.
    pub hidden: bool,
}

/// Somebody at a terminal.
pub trait Person: Send + Sync {
    /// Asks, one question at a time. None where the person does not want to answer. It is dropped where nobody needs the answer any more.
    fn ask(&self, question: Question) -> BoxFuture<'_, Option<Secret>>;

    /// Tells something that needs no answer, such as that a key wants to be touched.
    fn tell(&self, host: &str, text: &str);
}

/// What goes over the socket before an answer.
pub(crate) const SAY: u8 = b'+';
/// There is no answer.
pub(crate) const REFUSE: u8 = b'-';
/// Nothing is to be answered: wait until ssh has seen enough.
pub(crate) const WAIT: u8 = b'.';

/// Asks whom the socket leads to. `prompt` is the first argument that ssh gave, `kind` the value of [`KIND`].
///
/// # Errors
/// When nobody listens there any more: then there is no answer either.
pub fn ask(socket: &Path, prompt: &str, kind: Option<&str>) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    // Which ssh it is that asks: one that goes to a jump host asks by the same program.
    let question = format!("{}\n{}\n{prompt}", std::os::unix::process::parent_id(), kind.unwrap_or_default());
    stream.write_all(&u32::try_from(question.len()).map_err(io::Error::other)?.to_be_bytes())?;
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(match answer.split_first() {
        Some((&SAY, text)) => String::from_utf8(text.to_vec()).map_or(Answer::Refuse, |text| Answer::Say(Secret::new(text))),
        // A notice ends with the connection.
        Some((&WAIT, _)) => Answer::Say(Secret::new("")),
        _ => Answer::Refuse,
    })
}

/// The variables with which an ssh asks by `program`, and is answered at `socket`.
pub(crate) fn environment(program: &Path, socket: &Path) -> [(&'static str, PathBuf); 3] {
    [("SSH_ASKPASS", program.to_owned()), ("SSH_ASKPASS_REQUIRE", PathBuf::from("force")), (SOCKET, socket.to_owned())]
}
