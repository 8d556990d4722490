//! Lua files: read, checked and compiled once for all hosts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::registry::Registry;

use crate::hints;
use crate::syntax_checks;
use crate::world::{self, World};

/// A Lua file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its path as the user would write it: what Lua knows it by.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Its bytecode.
    pub bytecode: Vec<u8>,
}

impl Source {
    /// The folder it is in.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

/// Why there is no source.
#[derive(Clone, Debug)]
pub(crate) enum SourceError {
    /// The file cannot be read; why.
    Unreadable(String),
    /// What is wrong with it.
    Wrong(Vec<Diagnostic>),
}

type Loaded = Result<Arc<Source>, SourceError>;

/// All Lua files that were read so far.
pub(crate) struct Sources {
    world: Arc<dyn World>,
    /// What functions of deploys may name.
    registry: Arc<Registry>,
    loaded: Mutex<HashMap<PathBuf, Loaded>>,
    /// The texts by the name that Lua shows in its messages, which it cuts to 59 bytes.
    texts: Mutex<HashMap<String, Text>>,
}

struct Text {
    name: String,
    path: PathBuf,
    text: Arc<str>,
}

const POISON: &str = "no one panics while holding it";

impl Sources {
    pub fn new(world: Arc<dyn World>) -> Self {
        Self { world, registry: Arc::default(), loaded: Mutex::default(), texts: Mutex::default() }
    }

    /// The same for deploys, whose functions name operations and facts.
    pub fn of_deploy(world: Arc<dyn World>, registry: Arc<Registry>) -> Self {
        Self { registry, ..Self::new(world) }
    }

    /// The file at this absolute path, compiled; `deploy` says whether the checks of deploys are made on it.
    pub fn load(&self, path: &Path, deploy: bool) -> Loaded {
        if let Some(loaded) = self.loaded.lock().expect(POISON).get(path) {
            return loaded.clone();
        }
        let loaded = self.read(path, deploy);
        self.loaded.lock().expect(POISON).insert(path.to_owned(), loaded.clone());
        loaded
    }

    fn read(&self, path: &Path, deploy: bool) -> Loaded {
        let name = world::display(&*self.world, path);
        let bytes = self.world.read_file(path).map_err(|error| SourceError::Unreadable(error.to_string()))?;
        let wrong = |diagnostic: Diagnostic| SourceError::Wrong(vec![diagnostic]);
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            wrong(Diagnostic::misuse("the file is not UTF-8").at(&name, u32::try_from(line).unwrap_or(0)))
        })?;
        let mut text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        if text.starts_with("#!") {
            text.insert_str(0, "--");
        }
        let shared: Arc<str> = text.as_str().into();
        let entry = Text { name: name.clone(), path: path.to_owned(), text: shared };
        self.texts.lock().expect(POISON).insert(short_name(&name), entry);
        let bytecode = self.compile(&name, &text).map_err(wrong)?;
        if deploy {
            let found = syntax_checks::check(&name, &text, &self.registry);
            if !found.is_empty() {
                return Err(SourceError::Wrong(found));
            }
        }
        Ok(Arc::new(Source { path: path.to_owned(), name, text, bytecode }))
    }

    fn compile(&self, name: &str, text: &str) -> Result<Vec<u8>, Diagnostic> {
        let lua = mlua::Lua::new_with(mlua::StdLib::NONE, mlua::LuaOptions::new())
            .map_err(|error| Diagnostic::misuse(format!("Lua could not be started: {error}")))?;
        let function = lua.load(text).set_name(format!("@{name}")).set_mode(mlua::chunk::ChunkMode::Text).into_function();
        match function {
            Ok(function) => Ok(function.dump(false)),
            Err(error) => {
                let message = match &error {
                    mlua::Error::SyntaxError { message, .. } => message.clone(),
                    other => other.to_string(),
                };
                let (location, rest) = self.split_location(&message);
                let mut location = location.unwrap_or(Location { file: name.to_owned(), line: 0 });
                let mut line = self.line(&location).unwrap_or_default();
                let mut hint = hints::syntax_hint(rest, &line, text);
                // Lua notices a missing `then` or `do` at the next word, which stands below the line that lacks it.
                let above = Location { line: location.line.saturating_sub(1), ..location.clone() };
                if let (None, true, Some(before)) = (&hint, rest.contains("expected"), self.line(&above).filter(|line| line.ends_with(':')))
                {
                    hint = hints::syntax_hint(rest, &before, text);
                    (location, line) = (above, before);
                }
                let mut diagnostic = Diagnostic::misuse(rest).at(location.file, location.line);
                diagnostic.hint = hint;
                if !line.is_empty() {
                    diagnostic = diagnostic.source(line);
                }
                Err(diagnostic)
            }
        }
    }

    /// The line at a place, without the space around it.
    pub fn line(&self, location: &Location) -> Option<String> {
        let texts = self.texts.lock().expect(POISON);
        let text = &texts.get(&short_name(&location.file))?.text;
        let line = text.lines().nth((location.line as usize).checked_sub(1)?)?;
        Some(line.trim().to_owned())
    }

    /// The absolute path of a file by its name.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.texts.lock().expect(POISON).get(&short_name(name)).map(|text| text.path.clone())
    }

    /// Splits a message of Lua's (`file:12: what is wrong`) into the place and the rest.
    pub fn split_location<'m>(&self, message: &'m str) -> (Option<Location>, &'m str) {
        let texts = self.texts.lock().expect(POISON);
        let mut from = 0;
        while let Some(colon) = message[from..].find(':').map(|at| at + from) {
            let rest = &message[colon + 1..];
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0
                && let Some(after) = rest[digits..].strip_prefix(':')
                && let Some(text) = texts.get(&message[..colon])
            {
                let line = rest[..digits].parse().unwrap_or(0);
                return (Some(Location { file: text.name.clone(), line }), after.trim_start());
            }
            from = colon + 1;
        }
        (None, message)
    }
}

/// The name of a file as Lua's messages have it: the last 56 bytes where it is longer than 59.
fn short_name(name: &str) -> String {
    if name.len() <= 59 {
        return name.to_owned();
    }
    format!("...{}", String::from_utf8_lossy(&name.as_bytes()[name.len() - 56..]))
}
